//! Metrics: the page about them (`reference`), how they are served (`endpoint`), what is counted (`counting`), and what the
//! dashboard and the alerts ask for (`queries`), of a broker that uses everything (`everything`).

mod counting;
mod endpoint;
mod everything;
mod queries;
mod reference;
