//! What routing does beyond the transcripts: groups, retained values and their replay, history, durable channels and their
//! commits, handlers that disappear,
//! announcements of adapters, load and pressure, rights and lists of users, and explain.

mod announce;
mod commits;
mod durable;
mod durable_wills;
pub(crate) mod explain;
mod from_disk;
mod groups;
mod handler_gone;
mod history;
mod kills;
mod lists;
mod load;
mod pressure;
mod replay;
mod resume;
mod retained;
mod rights;
