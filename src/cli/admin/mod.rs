//! Commands for operators, which call the admin API of a running broker. A file a command; `client` makes the calls.

mod client;
mod close;
mod console;
mod doctor;
mod drain;
mod explain;
mod health;
mod nodes;
mod recent;
mod reload;
mod sessions;
mod top;

pub(crate) use client::CallError;
pub(crate) use close::{Close, run as close};
pub(crate) use console::{Console, run as console};
pub(crate) use doctor::{Doctor, run as doctor};
pub(crate) use drain::{Drain, run as drain};
pub(crate) use explain::{Explain, run as explain};
pub(crate) use health::{Health, run as health};
pub(crate) use nodes::{Nodes, run as nodes};
pub(crate) use recent::{Recent, run as recent};
pub(crate) use reload::{Reload, run as reload};
pub(crate) use sessions::{Sessions, run as sessions};
pub(crate) use top::{Top, run as top};
