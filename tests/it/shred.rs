//! The shredder against an independent decoder: values, verdicts, and what goes to `_raw`.

use arrow::array::RecordBatch;
use calve::batch::{Reject, RejectCode};
use calve::schema::mapping::Mapping;
use calve::shred::{Options, Shredder};
use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};

use crate::support::cells::{self, Cell};
use crate::support::corpus::{Corpus, MESSAGES, batch, generate};
use crate::support::oracle::{Oracle, Verdict};
use crate::support::wire;

/// Rounds of 40 records for each message and style.
const ROUNDS: u64 = 12;

/// Shreds the records as one batch and compares each with the oracle's verdict; `allowed` says which difference in
/// verdicts is none. With `broken` bytes a map's entry may have fields of its own that nobody knows: calve keeps them
/// in `_raw`, the oracle forgets them.
pub fn compare(
    corpus: &Corpus,
    mapping: &Mapping,
    shredder: &mut Shredder,
    seed: u64,
    records: &[Vec<u8>],
    broken: bool,
    allowed: impl Fn(Option<RejectCode>, Option<&str>) -> bool,
) {
    let name = &corpus.pool.message(mapping.message).full_name;
    let rejects = shredder.append(&batch(records.iter().map(|record| Some(record.as_slice()))));
    assert_eq!(shredder.rows() + rejects.len(), records.len(), "{name}, seed {seed}");
    let batches = shredder.take().unwrap();
    judge(corpus, mapping, &rejects, &batches, records, broken, allowed, &|| format!("{name}, seed {seed}"));
}

/// The same of records that were shredded, `of` saying whose they are.
#[allow(clippy::too_many_arguments)] // All that went in, and all that came out.
pub fn judge(
    corpus: &Corpus,
    mapping: &Mapping,
    rejects: &[Reject],
    batches: &[RecordBatch],
    records: &[Vec<u8>],
    broken: bool,
    allowed: impl Fn(Option<RejectCode>, Option<&str>) -> bool,
    of: &dyn Fn() -> String,
) {
    let mut rows = batches.iter().flat_map(|batch| (0..batch.num_rows()).map(move |row| (batch, row)));
    let oracle = Oracle { pool: &corpus.pool, descriptors: &corpus.descriptors };
    for (index, record) in records.iter().enumerate() {
        let misread = broken && wire::is_misread(&corpus.pool, mapping.message, record);
        let place = || format!("{}, record {index}: {record:02x?}", of());
        let reject = rejects.iter().find(|reject| reject.record == index);
        let row = reject.is_none().then(|| rows.next().expect("as many rows as records without a reject"));
        if misread {
            continue;
        }
        match (oracle.judge(mapping.message, record), row) {
            (Verdict::Refused(_), None) => {}
            (Verdict::Row { columns, raw }, Some((batch, row))) => {
                let mut actual = cells::row(batch, row);
                let actual_raw = actual.pop().expect("_raw is the last column").1;
                let (_, kafka) = actual.pop().expect("_kafka is before it");
                for (expected, (name, actual)) in columns.iter().zip(actual.clone()) {
                    let actual = (name, actual.json_like(&expected.1));
                    assert_eq!(*expected, actual, "{}", place());
                }
                assert_eq!(columns.len(), actual.len(), "{}", place());
                let expected_raw = if raw { Cell::Bytes(record.clone()) } else { Cell::Null };
                let more = broken && !raw && actual_raw == Cell::Bytes(record.clone());
                assert!(more || actual_raw == expected_raw, "_raw is {actual_raw:?} for {}", place());
                let Cell::Struct(kafka) = kafka else { panic!("_kafka is never null") };
                assert_eq!(kafka[2], ("offset".into(), Cell::Int(index as i128)), "{}", place());
            }
            (Verdict::Refused(reason), Some(_)) => {
                assert!(allowed(None, Some(&reason)), "accepted, but the oracle says {reason}: {}", place());
            }
            (Verdict::Row { .. }, None) => {
                let reject = reject.unwrap();
                assert!(allowed(Some(reject.code), None), "rejected, {}: {}", reject.detail, place());
            }
        }
    }
    assert!(rows.next().is_none(), "{}: more rows than records", of());
}

fn random(style: generate::Style, salt: u64) {
    let corpus = Corpus::load();
    for (number, name) in MESSAGES.into_iter().enumerate() {
        let mapping = corpus.mapping(name);
        let mut shredder = Shredder::new(&mapping, Options::default()).unwrap();
        for round in 0..ROUNDS {
            let seed = salt << 32 | (number as u64) << 16 | round;
            let mut rng = StdRng::seed_from_u64(seed);
            let id = corpus.id(name);
            let records: Vec<Vec<u8>> = (0..40).map(|_| generate::message(&corpus.pool, id, style, &mut rng)).collect();
            compare(&corpus, &mapping, &mut shredder, seed, &records, false, |_, _| false);
        }
    }
}

#[test]
fn messages_as_writers_emit_them() {
    random(generate::Style::PLAIN, 1);
}

#[test]
fn messages_in_any_legal_form() {
    random(generate::Style::WILD, 2);
}

#[test]
fn messages_with_values_that_are_refused() {
    random(generate::Style::REFUSED, 3);
}

#[test]
fn messages_with_broken_bytes() {
    let corpus = Corpus::load();
    for (number, name) in MESSAGES.into_iter().enumerate() {
        let mapping = corpus.mapping(name);
        let mut shredder = Shredder::new(&mapping, Options::default()).unwrap();
        for round in 0..ROUNDS {
            let seed = 4 << 32 | (number as u64) << 16 | round;
            let mut rng = StdRng::seed_from_u64(seed);
            let id = corpus.id(name);
            let records: Vec<Vec<u8>> = (0..40)
                .map(|_| {
                    let mut record = generate::message(&corpus.pool, id, generate::Style::WILD, &mut rng);
                    for _ in 0..rng.random_range(0..3) {
                        match rng.random_range(0..3) {
                            0 => record.truncate(rng.random_range(0..=record.len())),
                            1 => record.insert(rng.random_range(0..=record.len()), rng.random()),
                            _ if record.is_empty() => {}
                            _ => {
                                let at = rng.random_range(0..record.len());
                                record[at] = rng.random();
                            }
                        }
                    }
                    record
                })
                .collect();
            compare(&corpus, &mapping, &mut shredder, seed, &records, true, |code, reason| match reason {
                // buffa refuses bits past the 64th of a varint; upb and C++ drop them.
                Some(reason) => reason.contains("varint exceeded"),
                // buffa takes tags of more than five bytes and lengths that the others call negative.
                None => matches!(code, Some(RejectCode::BadTag | RejectCode::BadLength)),
            });
        }
    }
}
