//! Properties against naive models (`properties`, `outbox`, `rights`, `history`) and of explain (`explain`), the simulation, a
//! simulation of durable channels (`commits`), the memory of all outboxes (`memory`), and many threads on one router (`stress`,
//! `stress_events`, `stress_history`, `stress_metrics`, `stress_reload`, `stress_renew`, `stress_resume`, `stress_rights`,
//! `stress_scope`, `races_requests`, `sessions`; `threads` is what several of them share).

mod commits;
mod explain;
mod history;
mod memory;
mod outbox;
mod properties;
mod races_requests;
mod rights;
mod sessions;
mod simulation;
mod stress;
mod stress_events;
mod stress_history;
mod stress_metrics;
mod stress_reload;
mod stress_renew;
mod stress_resume;
mod stress_rights;
mod stress_scope;
mod threads;
