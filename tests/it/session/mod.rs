//! The life of a session and of its connection: registering (`registering`), the connection's task (`connection`), the
//! listener (`listener`), many connections at once (`crowd`), presence (`presence`), and the end of the broker (`drain`).

mod connection;
mod crowd;
mod drain;
mod listener;
mod presence;
mod registering;
