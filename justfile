# Everything that .ci/run checks
ci:
    .ci/run

# Every test; arguments choose some
test *ARGS:
    ./test {{ARGS}}
