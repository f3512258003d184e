//! `decode [SCHEMA…]`, `encode [SCHEMA…]`, `scale SCHEMA…`: see the modules of these names, and README.md for the figures.
//! For a profiler `alone SCHEMA ROUNDS [confluent]` decodes and `profile SCHEMA ROUNDS` encodes; `explain SCHEMA` shows the encodings
//! of a file.
//!
//! Rules: peers in the same run, interleaved, so that a noisy machine disturbs all alike; medians and their spread; CPU
//! time; what comes out is compared before anything counts.

// The daemon's sources, of which the bench needs a part.
#![allow(dead_code)]

#[path = "../../src/batch.rs"]
pub mod batch;
#[path = "../../src/config/mod.rs"]
pub mod config;
#[path = "../../src/schema/mod.rs"]
pub mod schema;
#[path = "../../src/shred/mod.rs"]
pub mod shred;

#[path = "../../src/write/bounds.rs"]
mod bounds;
#[path = "../../src/write/encoding.rs"]
mod encoding;
#[path = "../../src/error.rs"]
mod error;
#[path = "../../src/write/layout.rs"]
mod layout;
#[path = "../../src/write/options.rs"]
mod options;
#[path = "../../src/write/sample.rs"]
mod sample;
#[path = "../../src/write/encode/mod.rs"]
mod write;

#[path = "../../tests/corpus/generate.rs"]
mod generate;

mod corpus;
mod decode;
mod encode;
mod measure;
mod producers;
mod scale;

pub use schema::model;

#[cfg(not(miri))] // Which does not run C.
#[global_allocator]
static ALLOCATOR: tikv_jemallocator::Jemalloc = tikv_jemallocator::Jemalloc;

/// As in the daemon.
#[cfg_attr(all(target_os = "linux", target_env = "gnu"), unsafe(export_name = "malloc_conf"))]
#[cfg_attr(not(all(target_os = "linux", target_env = "gnu")), unsafe(export_name = "_rjem_malloc_conf"))]
pub static ALLOCATOR_OPTIONS: &[u8] = b"background_thread:true,narenas:4,dirty_decay_ms:400,muzzy_decay_ms:0\0";

fn main() {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    match arguments.iter().map(String::as_str).collect::<Vec<_>>().as_slice() {
        ["decode", ..] => decode::run(&arguments[1..]),
        ["alone", schema, rounds, rest @ ..] => {
            let framing = if *rest == ["confluent"] { shred::Framing::Confluent } else { shred::Framing::None };
            decode::alone(schema, rounds.parse().expect("a number of rounds"), framing);
        }
        ["encode", ..] => encode::run(&arguments[1..]),
        ["profile", schema, rounds] => encode::alone(schema, rounds.parse().expect("a number of rounds")),
        ["scale", schemas @ ..] if !schemas.is_empty() => scale::run(schemas),
        ["explain", schema] => encode::explain(schema),
        _ => {
            eprintln!(
                "usage: decode [SCHEMA…] | scale SCHEMA… | alone SCHEMA ROUNDS | encode [SCHEMA…] | profile SCHEMA ROUNDS | \
                 explain SCHEMA"
            );
            std::process::exit(2);
        }
    }
}
