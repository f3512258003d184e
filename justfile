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

# Shredder and Parquet encoder against their peers.
bench:
    cd benches && cargo run --release -- decode
    cd benches && cargo run --release -- encode

# The shredder's unchecked memory accesses, under Miri.
miri:
    cd benches && cargo +nightly miri test -- shred::unchecked shred::columns shred::wire
