//! Resume beyond the transcripts: what ends a session and what leaves it away (`ending`), the bounds of what is kept
//! (`bounds`), and replays of history that lose their connection (`replays`), on connections without sockets.

mod bounds;
mod ending;
mod replays;
