//! Resume beyond the transcripts: what ends a session and what leaves it away (`ending`), the bounds of what is kept
//! (`bounds`), when the program is woken (`waking`), replays of history and events of durable channels that lose their
//! connection (`replays`, `commits`), ordered handlers (`turns`), and what becomes of a connection that another one replaces (`takeover`), on connections
//! without sockets.

mod bounds;
mod commits;
mod ending;
mod replays;
mod takeover;
mod turns;
mod waking;
