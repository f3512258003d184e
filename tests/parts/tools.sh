#!/usr/bin/env bash
# The tools that the tests need beside Rust. Installs what is missing with apt-get where it can (as root, on Debian or
# Ubuntu), else says plainly what to install.
set -euo pipefail

missing=()
need() { command -v "$1" >/dev/null 2>&1 || missing+=("$2"); }
need cc build-essential
need make make
need perl perl
need python3 python3
need curl curl
need script bsdutils
need javac openjdk-17-jdk-headless
need mvn maven
need go golang-go
need npm npm
# Trino wants a JDK of 25 or later beside that; Debian calls it so where it has it.
newest=0
for javac in "$(command -v javac || true)" ${JAVA_HOME:+"$JAVA_HOME/bin/javac"} /usr/lib/jvm/*/bin/javac; do
  version=$([ -x "$javac" ] && "$javac" -version 2>&1 | sed -E 's/javac ([0-9]+).*/\1/' || echo 0)
  [ "$version" -le "$newest" ] || newest=$version
done
[ "$newest" -ge 25 ] || missing+=(openjdk-25-jdk-headless)
[ -n "$(ls /usr/lib/postgresql/*/bin/postgres 2>/dev/null)" ] || command -v postgres >/dev/null 2>&1 || missing+=(postgresql)

if [ ${#missing[@]} -gt 0 ]; then
  if [ "$(id -u)" = 0 ] && command -v apt-get >/dev/null 2>&1; then
    echo "installing: ${missing[*]}"
    apt-get update -qq
    DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends "${missing[@]}" >/dev/null
  else
    echo "missing: ${missing[*]}; install them (Debian package names) and run again" >&2
    exit 1
  fi
fi
command -v cargo >/dev/null 2>&1 || { echo "missing: a Rust toolchain (rustup.rs), 1.95 or newer" >&2; exit 1; }
cargo clippy --version >/dev/null 2>&1 || rustup component add clippy
cargo fmt --version >/dev/null 2>&1 || rustup component add rustfmt
