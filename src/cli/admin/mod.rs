//! Commands for operators, which call the admin API of a running broker. A file a command; `client` makes the calls.

mod client;
mod drain;
mod health;
mod recent;

pub(crate) use client::CallError;
pub(crate) use drain::{Drain, run as drain};
pub(crate) use health::{Health, run as health};
pub(crate) use recent::{Recent, run as recent};
