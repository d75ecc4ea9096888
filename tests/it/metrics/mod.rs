//! Metrics: the page about them (`reference`), how they are served (`endpoint`), what is counted (`counting`, and `jetstream`), and what the
//! dashboard and the alerts ask for (`queries`), of a broker that uses everything (`everything`).

mod counting;
mod endpoint;
mod everything;
mod jetstream;
mod queries;
mod reference;
