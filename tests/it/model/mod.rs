//! Properties against naive models (`properties`, `outbox`), the simulation, the memory of all outboxes (`memory`), and many
//! threads on one router (`stress`, `stress_events`, `races_requests`).

mod memory;
mod outbox;
mod properties;
mod races_requests;
mod simulation;
mod stress;
mod stress_events;
