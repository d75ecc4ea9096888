//! The life of a session and of its connection: registering (`registering`), the connection's task (`connection`), the
//! listener (`listener`), roles and permissions (`roles`), many connections at once (`crowd`), presence (`presence`), the end of
//! the broker (`drain`), a new configuration (`reload`, `reload_load`, `reload_scope`), wills (`wills`), resumable sessions behind
//! a bad network (`chaos`), and what the log says of all that (`logs`).

mod chaos;
mod connection;
mod crowd;
mod drain;
mod listener;
mod logs;
mod presence;
mod registering;
mod reload;
mod reload_load;
mod reload_scope;
mod resume;
mod roles;
mod wills;
