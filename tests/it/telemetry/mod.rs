//! The flight recorder and the tap.

mod dumps;
mod recording;
mod rings;
mod tap;
mod traces;
