#!/usr/bin/env bash
# Sets up and runs every test, those on the real parts included (Kafka, catalogs, stores, engines).
#   tests/run.sh [FILTER]       a filter goes to cargo test
# Parts are installed once into ${CALVE_PARTS:-~/.cache/calve-parts}. Nothing skips itself: what cannot be set up fails here.
set -euo pipefail
cd "$(dirname "$0")/.."
export CALVE_PARTS="${CALVE_PARTS:-$HOME/.cache/calve-parts}"

say() { printf '\n== %s (%ss)\n' "$1" "$SECONDS"; }

say "tools"
tests/parts/tools.sh

# Parts are mostly waited for, compilers are not: both at once.
say "format and lints, and parts"
parts_log=$(mktemp)
tests/parts/install.sh > "$parts_log" 2>&1 &
parts=$!
trap 'kill "$parts" 2>/dev/null || true; rm -f "$parts_log"' EXIT
cargo fmt --all --check
cargo clippy --all-targets --features failpoints --quiet -- -D warnings
say "parts"
if wait "$parts"; then cat "$parts_log"; else cat "$parts_log"; exit 1; fi

say "tests"
cargo test --features failpoints --no-fail-fast "$@"

say "done"
