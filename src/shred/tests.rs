//! The interpreter as a whole, on a message of every kind of field. Small enough for Miri, which judges its unchecked
//! accesses; what rows hold is judged by the integration tests, on many more messages.

use arrow::array::RecordBatch;
use arrow::compute::concat_batches;
use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};

use super::wire::put_varint;
use super::{Framing, Options, Shredder, rebuild};
use crate::batch::{OffsetRange, Permit, RawBatch, RawRecord, Span, TimestampType};
use crate::schema::mapping::Mapping;
use crate::schema::tests::{OPTIONS, proto3};

const SCHEMA: &str = "
    message Record {
      bool a = 1; int32 b = 2; sint64 c = 3; uint32 d = 4; uint64 e = 5; fixed32 f = 6; sfixed64 g = 7; float h = 8;
      double i = 9; string j = 10; bytes k = 11; optional string l = 12; optional uint64 m = 13; Inner n = 14;
      repeated Inner o = 15; repeated int32 p = 16; repeated string q = 17; map<string, int64> r = 18;
      map<int32, Inner> s = 19; oneof t { string u = 20; Inner v = 21; } google.protobuf.Timestamp w = 22;
      google.protobuf.StringValue x = 23; Kind y = 24; repeated double z = 25; google.protobuf.Struct aa = 26;
    }
    message Inner { string a = 1; optional int64 b = 2; repeated Deep c = 3; }
    message Deep { double a = 1; optional int32 b = 2; google.protobuf.Duration c = 3; }
    enum Kind { NONE = 0; ONE = 1; }";

/// A field's number, how often it may come, and what it holds.
type Part = (u32, usize, Content);

enum Content {
    Varint,
    /// Seconds and nanoseconds of any time.
    Small,
    Fixed32,
    Fixed64,
    Text,
    Packed,
    Message(&'static [Part]),
}

use Content::{Fixed32, Fixed64, Message, Packed, Small, Text, Varint};

const NUMBERS: &[Part] = &[(1, 1, Small), (2, 1, Small)];
const DEEP: &[Part] = &[(1, 1, Fixed64), (2, 1, Varint), (3, 1, Message(NUMBERS))];
const INNER: &[Part] = &[(1, 1, Text), (2, 1, Varint), (3, 3, Message(DEEP))];
const RECORD: &[Part] = &[
    (1, 1, Varint),
    (2, 1, Varint),
    (3, 1, Varint),
    (4, 1, Varint),
    (5, 1, Varint),
    (6, 1, Fixed32),
    (7, 1, Fixed64),
    (8, 1, Fixed32),
    (9, 1, Fixed64),
    (10, 1, Text),
    (11, 1, Text),
    (12, 1, Text),
    (13, 1, Varint),
    (14, 2, Message(INNER)),
    (15, 4, Message(INNER)),
    (16, 2, Packed),
    (17, 3, Text),
    (18, 3, Message(&[(1, 1, Text), (2, 1, Varint)])),
    (19, 3, Message(&[(1, 1, Varint), (2, 1, Message(INNER))])),
    (20, 1, Text),
    (21, 1, Message(INNER)),
    (22, 1, Message(NUMBERS)),
    (23, 1, Message(&[(1, 2, Text)])),
    (24, 1, Varint),
    (25, 3, Fixed64),
    (26, 1, Message(&[(1, 2, Message(&[(1, 1, Text), (2, 1, Message(&[(3, 1, Text)]))]))])),
    (99, 1, Text),
];

fn message(parts: &[Part], rng: &mut StdRng) -> Vec<u8> {
    let mut out = Vec::new();
    let mut parts: Vec<&Part> = parts.iter().collect();
    if rng.random_bool(0.1) {
        parts.reverse();
    }
    for (number, most, content) in parts {
        for _ in 0..rng.random_range(0..=*most) {
            let wire = match content {
                Varint | Small => 0,
                Fixed64 => 1,
                Fixed32 => 5,
                Text | Packed | Message(_) => 2,
            };
            put_varint(&mut out, u64::from(number << 3 | wire));
            match content {
                // Of every length, most of them short.
                Varint => put_varint(&mut out, rng.random::<u64>() >> rng.random_range(0..64)),
                Small => put_varint(&mut out, rng.random_range(0..100_000)),
                Fixed64 => out.extend(rng.random::<[u8; 8]>()),
                Fixed32 => out.extend(rng.random::<[u8; 4]>()),
                Text | Packed => {
                    let most = if rng.random_bool(0.1) { 200 } else { 12 };
                    let length = rng.random_range(0..most);
                    put_varint(&mut out, length);
                    out.extend((0..length).map(|_| rng.random_range(0..0x80_u8)));
                }
                Message(inner) => {
                    let inner = message(inner, rng);
                    put_varint(&mut out, inner.len() as u64);
                    out.extend(inner);
                }
            }
        }
    }
    out
}

/// Records, each with the offset that it keeps in whichever batch it comes.
fn batch(values: &[(i64, Vec<u8>)]) -> RawBatch {
    let mut arena = Vec::new();
    let mut records = Vec::new();
    for (offset, value) in values {
        let start = arena.len() as u32;
        arena.extend(value);
        records.push(RawRecord {
            offset: *offset,
            timestamp_ms: *offset,
            timestamp_type: TimestampType::CreateTime,
            key: None,
            value: Some(Span { start, end: arena.len() as u32 }),
            headers: Span { start: 0, end: 0 },
        });
    }
    arena.extend([0; RawBatch::PADDING]);
    let range = OffsetRange { from: 0, to: i64::MAX };
    RawBatch {
        topic: "t".into(),
        partition: 0,
        range,
        records,
        headers: vec![],
        arena,
        times: None,
        permit: Permit::default(),
    }
}

#[test]
fn rows_are_the_same_however_their_records_come() {
    let pool = proto3(SCHEMA);
    let mapping = Mapping::create(pool.clone(), pool.find("t.Record").unwrap(), &OPTIONS).unwrap();
    let joined = |batches: Vec<RecordBatch>| concat_batches(&mapping.arrow, &batches).unwrap();
    let (rounds, records) = if cfg!(miri) { (1, 25) } else { (40, 400) };
    let (mut together, mut in_pieces) = [(); 2].map(|()| Shredder::new(&mapping, Options::default()).unwrap()).into();
    let (mut accepted, mut rejected) = (0, 0);
    for seed in 0..rounds {
        let mut rng = StdRng::seed_from_u64(seed);
        let mut values: Vec<(i64, Vec<u8>)> = (0..records).map(|offset| (offset, message(RECORD, &mut rng))).collect();
        for (_, value) in values.iter_mut().filter(|(offset, value)| offset % 7 == 3 && !value.is_empty()) {
            value.truncate(rng.random_range(0..value.len()));
        }
        let rejects = together.append(&batch(&values));
        let rows = joined(together.take().unwrap());
        rejects.iter().rev().for_each(|reject| _ = values.remove(reject.record));
        assert_eq!(rows.num_rows(), values.len(), "seed {seed}");
        (accepted, rejected) = (accepted + values.len(), rejected + rejects.len());

        let mut pieces = Vec::new();
        while !values.is_empty() {
            let rest = values.split_off(rng.random_range(1..=values.len().min(9)));
            assert_eq!(in_pieces.append(&batch(&values)), [], "seed {seed}");
            if rest.is_empty() || rng.random_bool(0.3) {
                pieces.extend(in_pieces.take().unwrap());
            }
            values = rest;
        }
        assert_eq!(joined(pieces), rows, "seed {seed}");
        for row in (0..rows.num_rows()).step_by(20) {
            rebuild(&mapping, Framing::None, &rows, row).unwrap_or_else(|error| panic!("seed {seed}: {error}"));
        }
    }
    assert!(accepted > 2 * rejected && rejected > 0, "{accepted} rows, {rejected} rejects");
}

#[test]
fn a_batch_without_the_padding_that_it_owes() {
    let pool = proto3(SCHEMA);
    let mapping = Mapping::create(pool.clone(), pool.find("t.Record").unwrap(), &OPTIONS).unwrap();
    for framing in [Framing::None, Framing::LengthDelimited, Framing::Confluent, Framing::Header] {
        let options = Options { framing, ..Options::default() };
        let mut shredder = Shredder::new(&mapping, options).unwrap();
        let mut shred = |batch: &RawBatch| (shredder.append(batch), shredder.take().unwrap());
        // Among them a message of each framing, and what is none.
        let values: [&[u8]; 8] =
            [b"", b"\x08\x01", b"\x00", b"\x02\x08\x01", b"\0\0\0\0\x01\0\x08\x01", b"\x80", b"\x08", &[0xff; 9]];
        let alone = values.iter().map(|value| vec![(0, value.to_vec())]);
        let pairs =
            values.iter().flat_map(|one| values.iter().map(|other| vec![(0, one.to_vec()), (1, other.to_vec())]));
        for values in alone.chain(pairs).step_by(if cfg!(miri) { 7 } else { 1 }) {
            let padded = batch(&values);
            let mut bare = padded.clone();
            bare.arena.truncate(bare.arena.len() - RawBatch::PADDING);
            bare.arena.shrink_to_fit();
            assert_eq!(shred(&bare), shred(&padded), "{framing:?}, {values:x?}");
        }
    }
}
