# `just` lists these; continuous integration runs `test`.

# Everything embedded: broker, schema, ingest, refinement, query.
demo *ARGS:
    cargo run -- demo {{ARGS}}

# Sets up and runs all tests, those on real parts included.
test *FILTER:
    tests/run.sh {{FILTER}}

lint:
    cargo fmt --all --check
    cargo clippy --all-targets --features failpoints -- -D warnings

# Tests of one module while working on it.
unit MODULE:
    cargo test --features failpoints --lib {{MODULE}}::

# The shredder against its peers.
bench:
    cd benches && cargo run --release
