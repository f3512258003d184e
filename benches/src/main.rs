//! Wire to Arrow, one core: calve's shredder against ptars, prost-reflect and buffa's reflection, in one run.
//!
//! Before any timing, each message of the corpus is shredded and read back by the test suite's own comparison (see
//! `tests/it/shred.rs`); here the peers' row counts and verdicts are compared once more. Rounds are interleaved, so
//! that a noisy machine disturbs all alike; printed are the median and the spread, in MB/s of Protobuf.

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

#[path = "../../tests/corpus/generate.rs"]
mod generate;

use std::hint::black_box;
use std::path::Path;
use std::sync::Arc;

use batch::{OffsetRange, Permit, RawBatch, RawRecord, Span, TimestampType};
use config::SchemaSource;
use generate::Style;
use rand::SeedableRng;
use rand::rngs::StdRng;
use schema::mapping::{Mapping, Options as MappingOptions};
pub use schema::model;
use shred::{Options, Shredder};

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

/// Bytes of Protobuf that each decoder reads in one round of one schema.
const ROUND_BYTES: usize = 8 << 20;
const ROUNDS: usize = 15;
/// Rows that become one record batch.
const BATCH_ROWS: usize = 8192;

/// Name, message, and what of `Style::PLAIN` is different.
const CORPUS: [(&str, &str); 15] = [
    ("event", "corpus.event.Event"),
    ("flat", "corpus.flat.Flat"),
    ("deep", "corpus.deep.Deep"),
    ("wide", "corpus.wide.Wide"),
    ("repeated", "corpus.repeated.Repeated"),
    ("maps", "corpus.maps.Maps"),
    ("bytes", "corpus.bytes.Blob"),
    ("tiny", "corpus.tiny.Tiny"),
    ("large", "corpus.large.Document"),
    ("legacy", "corpus.legacy.Legacy"),
    ("shuffled", "corpus.shuffled.Shuffled"),
    ("known", "corpus.known.Known"),
    ("oneofs", "corpus.oneofs.Oneofs"),
    ("enums", "corpus.enums.Enums"),
    ("numbers", "corpus.numbers.Numbers"),
];

fn style(name: &str) -> Style {
    let plain = Style { foreign: 0.02, ..Style::PLAIN };
    match name {
        "large" => Style { elements_max: 80, text_max: 200, ..plain },
        "bytes" => Style { elements_max: 4, text_max: 2000, ..plain },
        _ => plain,
    }
}

/// CPU seconds of this thread, and there is no other: what else runs on the machine does not count.
fn cpu() -> f64 {
    let stat = std::fs::read_to_string("/proc/self/schedstat").expect("Linux counts CPU time");
    let nanoseconds = stat.split_whitespace().next().and_then(|field| field.parse::<f64>().ok());
    nanoseconds.expect("the first field of schedstat is a number") / 1e9
}

struct Peer {
    name: &'static str,
    /// MB/s of each round.
    speeds: Vec<f64>,
}

fn median(values: &[f64]) -> (f64, f64, f64) {
    let mut sorted = values.to_vec();
    if sorted.is_empty() {
        return (0.0, 0.0, 0.0);
    }
    sorted.sort_by(f64::total_cmp);
    (sorted[sorted.len() / 2], sorted[0], sorted[sorted.len() - 1])
}

fn raw_batch(records: &[Vec<u8>]) -> RawBatch {
    let mut arena = Vec::new();
    let records = records
        .iter()
        .enumerate()
        .map(|(index, record)| {
            let start = arena.len() as u32;
            arena.extend_from_slice(record);
            RawRecord {
                offset: index as i64,
                timestamp_ms: 1_700_000_000_000,
                timestamp_type: TimestampType::CreateTime,
                key: None,
                value: Some(Span { start, end: arena.len() as u32 }),
                headers: Span { start: 0, end: 0 },
            }
        })
        .collect();
    arena.extend([0; RawBatch::PADDING]);
    let range = OffsetRange { from: 0, to: 0 };
    RawBatch { topic: "bench".into(), partition: 0, range, records, headers: vec![], arena, permit: Permit::default() }
}

fn main() {
    let mut only: Vec<String> = std::env::args().skip(1).collect();
    // `--calve`: no peers, for a profile.
    let alone = only.iter().position(|argument| argument == "--calve").map(|at| only.remove(at)).is_some();
    let rounds = if alone { 3 } else { ROUNDS };
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../tests/corpus/proto");
    let pool = schema::load(&SchemaSource::Protos(folder.clone())).expect("the corpus is valid");
    let mut compiler = protox::Compiler::new([&folder]).expect("the corpus is there");
    compiler.include_imports(true);
    for file in std::fs::read_dir(&folder).expect("the corpus is there").flatten() {
        if file.path().extension().is_some_and(|extension| extension == "proto") {
            compiler.open_file(file.path()).expect("the corpus is valid");
        }
    }
    let set = compiler.encode_file_descriptor_set();
    let prost_pool = prost_reflect::DescriptorPool::decode(set.as_slice()).expect("the corpus is valid");
    let buffa_pool = Arc::new(buffa_descriptor::DescriptorPool::decode(&set).expect("the corpus is valid"));

    println!(
        "{:9} {:>6}  {:>17}  {:>17}  {:>17}  {:>17}  ratios",
        "", "bytes", "calve", "ptars", "prost-reflect", "buffa"
    );
    for (name, message) in CORPUS {
        if !only.is_empty() && !only.iter().any(|wanted| wanted == name) {
            continue;
        }
        let id = pool.find(message).expect("the corpus has the message");
        let mut rng = StdRng::seed_from_u64(1);
        let mut records = Vec::new();
        let mut bytes = 0;
        while bytes < ROUND_BYTES {
            let record = generate::message(&pool, id, style(name), &mut rng);
            bytes += record.len();
            records.push(record);
        }
        let raw: Vec<RawBatch> = records.chunks(BATCH_ROWS).map(raw_batch).collect();
        let options = MappingOptions::default();
        let Ok(mapping) = Mapping::create(pool.clone(), id, &options) else { panic!("{name} has no mapping") };
        let mut shredder = Shredder::new(&mapping, Options::default()).expect("the mapping can be shredded");
        let arrays: Vec<arrow_array_60::BinaryArray> = records
            .chunks(BATCH_ROWS)
            .map(|chunk| chunk.iter().map(|record| Some(record.as_slice())).collect())
            .collect();
        let descriptor = prost_pool.get_message_by_name(message).expect("the corpus has the message");
        let index = buffa_pool.message_index(message).expect("the corpus has the message");
        let config = ptars_core::PtarsConfig::new();

        let mut peers = ["calve", "ptars", "prost-reflect", "buffa"].map(|name| Peer { name, speeds: Vec::new() });
        for round in 0..=rounds {
            for peer in &mut peers {
                let before = cpu();
                let rows = match peer.name {
                    "calve" => raw
                        .iter()
                        .map(|batch| {
                            assert!(shredder.append(batch).is_empty());
                            let batches = black_box(shredder.take().expect("the schema fits"));
                            batches.iter().map(|batch| batch.num_rows()).sum::<usize>()
                        })
                        .sum(),
                    "ptars" if !alone => arrays
                        .iter()
                        .map(|array| {
                            let batch = ptars_core::binary_array_to_record_batch_direct(array, &descriptor, &config);
                            black_box(batch.expect("ptars reads it")).num_rows()
                        })
                        .sum(),
                    _ if alone => continue,
                    // One round in three: these take long and are there for orientation.
                    _ if round % 3 != 1 => continue,
                    "prost-reflect" => records
                        .iter()
                        .map(|record| {
                            let decoded = prost_reflect::DynamicMessage::decode(descriptor.clone(), record.as_slice());
                            black_box(decoded.expect("prost-reflect reads it"));
                        })
                        .count(),
                    _ => records
                        .iter()
                        .map(|record| {
                            let pool = buffa_pool.clone();
                            let decoded = buffa_descriptor::reflect::DynamicMessage::decode(pool, index, record);
                            black_box(decoded.expect("buffa reads it"));
                        })
                        .count(),
                };
                let seconds = cpu() - before;
                assert_eq!(rows, records.len(), "{name}: rows of {}", peer.name);
                // The first round warms up.
                if round > 0 {
                    peer.speeds.push(bytes as f64 / 1e6 / seconds);
                }
            }
        }
        print!("{name:9} {:6}", bytes / records.len());
        let calve = median(&peers[0].speeds).0;
        for peer in &peers {
            let (middle, low, high) = median(&peer.speeds);
            print!("  {:>17}", format!("{middle:.0} ({low:.0}–{high:.0})"));
        }
        let ratios: Vec<String> =
            peers[1..].iter().map(|peer| format!("{:.1}", calve / median(&peer.speeds).0)).collect();
        println!("  {}", ratios.join(" "));
    }
}
