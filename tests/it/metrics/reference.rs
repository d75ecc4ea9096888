//! docs/metrics.md is what the program prints.

use std::fs;

use switchboard::telemetry::metrics::reference;

#[test]
fn the_page_is_the_one_that_the_program_prints() {
    let page = fs::read_to_string("docs/metrics.md").unwrap_or_default();
    assert!(page == reference(), "docs/metrics.md is stale; run: cargo run -- check --print-metrics > docs/metrics.md");
}
