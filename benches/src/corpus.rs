//! The schemas, and messages of them.

use std::path::PathBuf;
use std::sync::Arc;

use rand::SeedableRng;
use rand::rngs::StdRng;

use crate::batch::{OffsetRange, Permit, RawBatch, RawRecord, Span, TimestampType};
use crate::config::SchemaSource;
use crate::generate::{self, Style};
use crate::producers;
use crate::schema;
use crate::schema::mapping::{Mapping, Options};
use crate::schema::model::Pool;

/// Rows that become one record batch.
pub const BATCH_ROWS: usize = crate::shred::BATCH_ROWS;

/// Name and message. The first two are what services write; the others are the test corpus, of random shape and random
/// values, which is what predicts worst.
pub const SCHEMAS: [(&str, &str); 17] = [
    ("event", "corpus.event.Event"),
    ("flat", "corpus.flat.Flat"),
    ("event-random", "corpus.event.Event"),
    ("flat-random", "corpus.flat.Flat"),
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

pub fn folder() -> PathBuf {
    PathBuf::from(concat!(env!("CARGO_MANIFEST_DIR"), "/../tests/corpus/proto"))
}

pub fn pool() -> Arc<Pool> {
    schema::load(&SchemaSource::Protos(folder())).expect("the corpus is valid")
}

pub fn mapping(pool: &Arc<Pool>, message: &str) -> Mapping {
    let id = pool.find(message).expect("the corpus has the message");
    let Ok(mapping) = Mapping::create(pool.clone(), id, &Options::default()) else {
        panic!("{message} has no mapping")
    };
    mapping
}

/// About so many bytes of messages, the same ones each time. As many as fill whole batches, if they fill one: a shorter
/// one at the end leaves less room to the next than that needs.
pub fn records(pool: &Pool, name: &str, message: &str, about: usize) -> Vec<Vec<u8>> {
    let id = pool.find(message).expect("the corpus has the message");
    let mut rng = StdRng::seed_from_u64(1);
    let mut records = Vec::new();
    let mut bytes = 0;
    while bytes < about {
        let record = match name {
            "event" => producers::event(records.len() as u64, &mut rng),
            "flat" => producers::flat(records.len() as u64, &mut rng),
            _ => generate::message(pool, id, style(name), &mut rng),
        };
        bytes += record.len();
        records.push(record);
    }
    if records.len() > BATCH_ROWS {
        records.truncate(records.len() / BATCH_ROWS * BATCH_ROWS);
    }
    records
}

/// Batches as the Kafka client hands them over: without keys and headers.
pub fn batches(records: &[Vec<u8>]) -> Vec<RawBatch> {
    let mut offset = 0;
    records.chunks(BATCH_ROWS).map(|chunk| batch(chunk, &mut offset)).collect()
}

fn batch(values: &[Vec<u8>], offset: &mut i64) -> RawBatch {
    let mut arena = Vec::new();
    let mut records = Vec::with_capacity(values.len());
    let from = *offset;
    for value in values {
        let start = arena.len() as u32;
        arena.extend_from_slice(value);
        records.push(RawRecord {
            offset: *offset,
            timestamp_ms: 1_790_000_000_000 + *offset * 2,
            timestamp_type: TimestampType::CreateTime,
            key: None,
            value: Some(Span { start, end: arena.len() as u32 }),
            headers: Span { start: 0, end: 0 },
        });
        *offset += 1;
    }
    arena.extend([0; RawBatch::PADDING]);
    let range = OffsetRange { from, to: *offset };
    RawBatch { topic: "bench".into(), partition: 0, range, records, headers: vec![], arena, times: None, permit: Permit::default() }
}
