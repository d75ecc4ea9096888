//! Properties against naive models (`properties`, `outbox`), the simulation, and many threads on one router (`stress`,
//! `stress_events`, `stress_reload`, `races_requests`).

mod outbox;
mod properties;
mod races_requests;
mod simulation;
mod stress;
mod stress_events;
mod stress_reload;
