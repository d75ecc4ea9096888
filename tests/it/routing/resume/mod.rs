//! Resume beyond the transcripts: what ends a session and what leaves it away (`ending`), and the bounds of what is kept
//! (`bounds`), on connections without sockets.

mod bounds;
mod ending;
