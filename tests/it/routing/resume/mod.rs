//! Resume beyond the transcripts: what ends a session and what leaves it away (`ending`), the bounds of what is kept
//! (`bounds`), replays of history and events of durable channels that lose their connection (`replays`, `commits`), on
//! connections without sockets.

mod bounds;
mod commits;
mod ending;
mod replays;
