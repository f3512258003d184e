//! Wire to Arrow: calve's shredder against ptars, prost-reflect and buffa's reflection.
//!
//! That calve's rows are right is what the test suite shows, value by value (`tests/it/shred.rs`); here the decoders'
//! row counts and verdicts are compared once more, in every round.

use std::hint::black_box;
use std::sync::Arc;
use std::time::Instant;

use crate::corpus::{self, BATCH_ROWS, SCHEMAS};
use crate::measure::{Speeds, cpu};
use crate::shred::{Framing, Options, Shredder};

/// Bytes of Protobuf that each decoder reads in one round of one schema.
pub const ROUND_BYTES: usize = 8 << 20;
const ROUNDS: usize = 15;
/// The decoders that make no columns take long and are there for orientation: they run in one round of three.
const SLOW_ROUNDS: usize = 3;

pub fn run(only: &[String]) {
    let pool = corpus::pool();
    let mut compiler = protox::Compiler::new([corpus::folder()]).expect("the corpus is there");
    compiler.include_imports(true);
    for file in std::fs::read_dir(corpus::folder()).expect("the corpus is there").flatten() {
        if file.path().extension().is_some_and(|extension| extension == "proto") {
            compiler.open_file(file.path()).expect("the corpus is valid");
        }
    }
    let set = compiler.encode_file_descriptor_set();
    let prost_pool = prost_reflect::DescriptorPool::decode(set.as_slice()).expect("the corpus is valid");
    let buffa_pool = Arc::new(buffa_descriptor::DescriptorPool::decode(&set).expect("the corpus is valid"));

    let names = ["calve", "ptars", "prost-reflect", "buffa", "empty"];
    print!("{:12} {:>6}", "MB/s", "bytes");
    names[..4].iter().for_each(|name| print!("  {name:>17}"));
    println!("  calve is × as fast  × ptars but for what a row of an empty message takes");
    for (name, message) in SCHEMAS {
        if !only.is_empty() && !only.iter().any(|wanted| wanted == name) {
            continue;
        }
        let records = corpus::records(&pool, name, message, ROUND_BYTES);
        let bytes: usize = records.iter().map(Vec::len).sum();
        let raw = corpus::batches(&records);
        // As many rows of nothing: `_kafka`, of which the peers make none, and the columns' nulls.
        let empty = corpus::batches(&vec![Vec::new(); records.len()]);
        let mut shredder =
            Shredder::new(&corpus::mapping(&pool, message), Options::default()).expect("the mapping can be shredded");
        // Where an empty message is no row, required fields missing, there is nothing to take off.
        let has_empty = shredder.append(&empty[0]).is_empty();
        shredder.take().expect("the schema fits");
        let arrays: Vec<arrow_array_60::BinaryArray> = records
            .chunks(BATCH_ROWS)
            .map(|chunk| chunk.iter().map(|record| Some(record.as_slice())).collect())
            .collect();
        let descriptor = prost_pool.get_message_by_name(message).expect("the corpus has the message");
        let index = buffa_pool.message_index(message).expect("the corpus has the message");
        let config = ptars_core::PtarsConfig::new();

        let mut decode = |decoder: &str| -> usize {
            match decoder {
                "calve" => raw.iter().map(|batch| shred(&mut shredder, batch)).sum(),
                "empty" => empty.iter().map(|batch| shred(&mut shredder, batch)).sum(),
                "ptars" => arrays
                    .iter()
                    .map(|array| {
                        let batch = ptars_core::binary_array_to_record_batch_direct(array, &descriptor, &config);
                        black_box(batch.expect("ptars reads it")).num_rows()
                    })
                    .sum(),
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
            }
        };
        let mut speeds: [Speeds; 5] = Default::default();
        for round in 0..ROUNDS {
            for (index, decoder) in names.into_iter().enumerate() {
                let rests = (2..4).contains(&index) && round % SLOW_ROUNDS != 1;
                if rests || decoder == "empty" && !has_empty {
                    continue;
                }
                // The first time it finds its input and memory where the others have left them: elsewhere.
                decode(decoder);
                let start = cpu();
                let rows = decode(decoder);
                speeds[index].add(bytes, start);
                assert_eq!(rows, records.len(), "{name}: rows of {decoder}");
            }
        }
        print!("{name:12} {:6}", bytes / records.len());
        speeds[..4].iter().for_each(|speeds| print!("  {speeds:>17}"));
        let calve = speeds[0].median();
        let ratios = speeds[1..4].iter().map(|speeds| format!("{:.1}", calve / speeds.median()));
        let alone = has_empty.then(|| (1.0 / speeds[1].median()) / (1.0 / calve - 1.0 / speeds[4].median()));
        let alone = alone.map_or("-".to_owned(), |alone| format!("{alone:.1}"));
        println!("  {}", ratios.chain([alone]).collect::<Vec<_>>().join("  "));
    }
}

/// A function of its own, which callgrind can be told of.
#[inline(never)]
pub fn shred(shredder: &mut Shredder, batch: &crate::batch::RawBatch) -> usize {
    assert!(shredder.append(batch).is_empty());
    let batches = black_box(shredder.take().expect("the schema fits"));
    batches.iter().map(|batch| batch.num_rows()).sum()
}

/// Shreds one schema's messages so many times and nothing else: for a profiler, and to compare two builds. Prints how
/// many records that were, and what one took in the fastest round, in nanoseconds.
pub fn alone(name: &str, rounds: usize, framing: Framing) {
    let (_, message) = SCHEMAS.into_iter().find(|(known, _)| *known == name).expect("a schema of the corpus");
    let pool = corpus::pool();
    let mut records = corpus::records(&pool, name, message, ROUND_BYTES);
    if framing == Framing::Confluent {
        // Schema 1, its first message.
        records.iter_mut().for_each(|record| drop(record.splice(0..0, [0, 0, 0, 0, 1, 0])));
    }
    let raw = corpus::batches(&records);
    let options = Options { framing, ..Options::default() };
    let mut shredder = Shredder::new(&corpus::mapping(&pool, message), options).expect("the mapping can be shredded");
    let (mut rows, mut least) = (0, f64::INFINITY);
    for _ in 0..rounds {
        // Not `cpu`, whose way to the clock is none under valgrind.
        let start = Instant::now();
        let shredded: usize = raw.iter().map(|batch| shred(&mut shredder, batch)).sum();
        least = least.min(start.elapsed().as_secs_f64() * 1e9 / shredded as f64);
        rows += shredded;
    }
    println!("{rows} {least:.1}");
}
