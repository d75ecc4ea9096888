# This list
default:
    @just --list

# A broker in open mode, arguments are those of `switchboard serve`
run *ARGS:
    cargo run --release -- serve {{ARGS}}

# Every test; arguments choose some
test *ARGS:
    ./test {{ARGS}}

# The simulation with more seeds than a test run has; for as long as it takes
simulate SEEDS="5000":
    SIMULATION_SEEDS={{SEEDS}} cargo test --locked --test it -- model::simulation::every model::commits::every cluster::simulation::every

# A broker with durable channels that is killed again and again; for as long as it takes
kills KILLS="5000":
    SWITCHBOARD_KILLS={{KILLS}} cargo test --locked --test it a_kill_at_any_moment -- --nocapture

# Resumable clients behind a bad network, for ten minutes
chaos SECONDS="600" SEED="1":
    CHAOS_SECONDS={{SECONDS}} CHAOS_SEED={{SEED}} cargo test --locked --test it chaos:: -- --nocapture

# Everything that .ci/run checks
ci:
    .ci/run

# Format and lint, the quick half of ci
lint:
    cargo fmt --all
    cargo clippy --locked --workspace --all-targets -- -D warnings

# The benches; arguments choose some
bench *ARGS:
    cargo bench --locked {{ARGS}}

# Print docs/configuration.md and docs/metrics.md anew from the tables of keys and metrics
reference:
    cargo run --quiet -- check --print-reference > docs/configuration.md
    cargo run --quiet -- check --print-metrics > docs/metrics.md
