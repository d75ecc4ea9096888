//! Properties against naive models (`properties`, `outbox`), the simulation, and many threads on one router (`stress`,
//! `stress_events`, `races_requests`, `sessions`).

mod outbox;
mod properties;
mod races_requests;
mod sessions;
mod simulation;
mod stress;
mod stress_events;
