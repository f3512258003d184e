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

# The shredder's unchecked memory accesses, alone and by the whole interpreter, under Miri. A quarter of an hour.
miri:
    cd fuzz && MIRIFLAGS=-Zmiri-disable-isolation cargo +nightly miri test --lib -- \
        shred::unchecked shred::bytes shred::columns shred::wire shred::marks shred::tests

# The same accesses where there is no Miri: the shredder's tests and all inputs that the fuzzer found, with debug
# assertions and AddressSanitizer; a bench run under valgrind.
sanitize:
    cd fuzz && RUSTFLAGS=-Zsanitizer=address cargo +nightly test --target x86_64-unknown-linux-gnu --lib shred::
    cd fuzz && cargo run --release --features corpus --bin corpus -- unpack
    for target in shred rebuild descriptors; do cargo +nightly fuzz run $target -- -runs=0 || exit 1; done
    cd benches && cargo build --release
    for schema in event maps known; do valgrind --error-exitcode=1 benches/target/release/bench alone $schema 1 || exit 1; done

# Looks for records that break the shredder's promises, until stopped: `just fuzz shred`, `rebuild` or `descriptors`.
fuzz TARGET *ARGS:
    cd fuzz && cargo run --release --features corpus --bin corpus -- seed
    cargo +nightly fuzz run {{TARGET}} -- -dict=fuzz/corpus/{{ if TARGET == "descriptors" { "descriptors" } else { "records" } }}.dict \
        -max_len=2048 -timeout=20 -malloc_limit_mb=256 {{ARGS}}

# Everything disturbed at random, N times, on the light broker and on real Kafka. CALVE_SEED repeats a run.
chaos N="200":
    CALVE_CHAOS={{N}} cargo test --features failpoints --test it chaos:: -- --nocapture --test-threads 1
