//! Stand-ins for the systems that the broker asks, for tests and demonstrations.
//!
//! This room uses nothing of the others: a stand-in that shared code with the adapter would share its mistakes. It is
//! judged by clients that were written elsewhere (tests/python, tests/node).

pub mod salesforce;
