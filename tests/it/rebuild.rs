//! A row gives its record back: columns and `_raw` together hold the message's whole meaning.

use arrow::array::Array;
use buffa_descriptor::reflect::{DynamicMessage, ReflectMessage, Value};
use calve::config::{ColumnOptions, ColumnType};
use calve::schema::mapping::{self, Mapping};
use calve::schema::model::MessageId;
use calve::shred::rebuild::from_json;
use calve::shred::{Framing, Options, Shredder, Tombstones, rebuild};
use rand::SeedableRng;
use rand::rngs::StdRng;

use crate::support::corpus::{Corpus, MESSAGES, batch, generate};
use crate::support::needs;
use crate::support::oracle::{Oracle, Verdict};
use crate::support::wire;

/// Rounds of 40 records for each message and style.
const ROUNDS: u64 = 12;

/// What a message says, whatever its fields' order and encoding: the oracle's own encoding of it, with that of what is
/// in an Any.
fn meaning(corpus: &Corpus, id: MessageId, bytes: &[u8]) -> Vec<u8> {
    try_meaning(corpus, id, bytes).unwrap_or_else(|error| panic!("{error}: {bytes:02x?}"))
}

/// The same, unless the oracle refuses the bytes.
pub fn try_meaning(corpus: &Corpus, id: MessageId, bytes: &[u8]) -> Result<Vec<u8>, String> {
    let mut message = Oracle { pool: &corpus.pool, descriptors: &corpus.descriptors }.decode(id, bytes)?;
    settle(corpus, &mut message)?;
    Ok(message.encode_to_vec())
}

/// Fails where an Any holds a varint of more than 64 bits: buffa refuses it, others drop the bits.
fn settle(corpus: &Corpus, message: &mut DynamicMessage) -> Result<(), String> {
    let descriptor = message.message_descriptor();
    if descriptor.full_name() == "google.protobuf.Any"
        && let Some(Value::String(url)) = message.field_by_number(1)
        && let Some(id) = corpus.pool.find_by_url(url)
        && let Some(Value::Bytes(inner)) = message.field_by_number(2)
    {
        match (try_meaning(corpus, id, inner), message.field_by_number_mut(2)) {
            (Ok(inner), Some(value)) => *value = Value::Bytes(inner),
            (Err(error), _) if error.contains("varint exceeded") => return Err(error),
            _ => {}
        }
    }
    for number in needs::numbers(&corpus.descriptors, message) {
        match message.field_by_number_mut(number) {
            Some(Value::Message(inner)) => settle(corpus, inner)?,
            Some(Value::List(values)) => {
                for value in values {
                    if let Value::Message(inner) = value {
                        settle(corpus, inner)?;
                    }
                }
            }
            Some(Value::Map(entries)) => {
                let mut settled = Vec::new();
                for (key, mut value) in std::mem::take(entries).into_entries() {
                    if let Value::Message(inner) = &mut value {
                        settle(corpus, inner)?;
                    }
                    settled.push((key, value));
                }
                *entries = settled.into_iter().collect();
            }
            _ => {}
        }
    }
    Ok(())
}

/// Shreds records, gives every row back, and compares; how many needed `_raw`, of how many.
/// `judged` if the mapping has no options, which the oracle does not know.
pub fn round_trip(corpus: &Corpus, mapping: &Mapping, seed: u64, records: &[Vec<u8>], judged: bool) -> (usize, usize) {
    let id = mapping.message;
    let name = &corpus.pool.message(id).full_name;
    let mut shredder = Shredder::new(mapping, Options::default()).unwrap();
    let rejects = shredder.append(&batch(records.iter().map(|record| Some(record.as_slice()))));
    let taken = shredder.take().unwrap();
    let mut rows = taken.iter().flat_map(|batch| (0..batch.num_rows()).map(move |row| (batch, row)));
    let oracle = Oracle { pool: &corpus.pool, descriptors: &corpus.descriptors };
    let (mut raws, mut all) = (0, 0);
    for (index, record) in records.iter().enumerate() {
        if rejects.iter().any(|reject| reject.record == index) {
            continue;
        }
        let (batch, row) = rows.next().expect("as many rows as records without a reject");
        let place = format!("{name}, seed {seed}, record {index}: {record:02x?}");
        let rebuilt = match rebuild(mapping, Framing::None, batch, row) {
            Ok(rebuilt) => rebuilt.unwrap_or_else(|| panic!("taken for a tombstone: {place}")),
            Err(error) => panic!("{error}: {place}"),
        };
        if !wire::is_misread(&corpus.pool, id, record) {
            assert_eq!(meaning(corpus, id, &rebuilt), meaning(corpus, id, record), "{rebuilt:02x?} for {place}");
        }
        let raw = !batch.columns().last().expect("_raw is the last column").is_null(row);
        // Unknown fields, nanoseconds below a microsecond and the like need `_raw`, and nothing else does.
        if judged {
            let needed = matches!(oracle.judge(id, record), Verdict::Row { raw: true, .. });
            assert_eq!(raw, needed, "_raw: {place}");
        }
        raws += usize::from(raw);
        all += 1;
    }
    (raws, all)
}

fn random(style: generate::Style, salt: u64) {
    let corpus = Corpus::load();
    for (number, name) in MESSAGES.into_iter().enumerate() {
        let mapping = corpus.mapping(name);
        let (mut raws, mut all) = (0, 0);
        for round in 0..ROUNDS {
            let seed = salt << 32 | (number as u64) << 16 | round;
            let mut rng = StdRng::seed_from_u64(seed);
            let id = mapping.message;
            let records: Vec<Vec<u8>> = (0..40).map(|_| generate::message(&corpus.pool, id, style, &mut rng)).collect();
            let (raw, rows) = round_trip(&corpus, &mapping, seed, &records, true);
            raws += raw;
            all += rows;
        }
        println!("{name}: {all} rows, {raws} with _raw");
        assert!(all > 0, "{name}: every record was rejected");
    }
}

#[test]
fn messages_as_writers_emit_them() {
    random(generate::Style::PLAIN, 11);
}

#[test]
fn messages_in_any_legal_form() {
    random(generate::Style::WILD, 12);
}

/// Without what goes to `_raw`, columns alone give every form of a message back.
#[test]
fn messages_in_any_legal_form_without_unknown_fields() {
    random(generate::Style { unknown: false, ..generate::Style::WILD }, 13);
}

/// The JSON text of columns, read back, against buffa's writer of it.
#[test]
fn messages_from_their_json() {
    let corpus = Corpus::load();
    // What buffa cannot write (an Any of random bytes) is left out, and what JSON does not say.
    // buffa reads no MessageSets.
    for (number, name) in MESSAGES.into_iter().filter(|name| *name != "corpus.sets.Sets").enumerate() {
        let id = corpus.id(name);
        let mut rng = StdRng::seed_from_u64(14 << 32 | number as u64);
        let mut texts = 0;
        for _ in 0..200 {
            let record = generate::message(&corpus.pool, id, generate::Style::PLAIN, &mut rng);
            let message = corpus.decode(name, &record);
            if needs::raw(&corpus.descriptors, &message).is_some() {
                continue;
            }
            let Ok(text) = serde_json::to_string(&message) else { continue };
            texts += 1;
            let rebuilt = from_json(&corpus.pool, id, &text).unwrap_or_else(|error| panic!("{name}: {error}: {text}"));
            assert_eq!(meaning(&corpus, id, &rebuilt), meaning(&corpus, id, &record), "{name}: {text}");
        }
        assert!(texts > 0, "{name}: no message has a JSON form");
    }
}

#[test]
fn tombstones_are_no_messages() {
    let corpus = Corpus::load();
    let mapping = corpus.mapping("corpus.tiny.Tiny");
    let mut shredder = Shredder::new(&mapping, Options { tombstones: Tombstones::Row, ..Options::default() }).unwrap();
    assert!(shredder.append(&batch([None, Some(&b""[..])])).is_empty());
    let taken = shredder.take().unwrap();
    assert_eq!(rebuild(&mapping, Framing::None, &taken[0], 0), Ok(None));
    assert_eq!(rebuild(&mapping, Framing::None, &taken[0], 1), Ok(Some(vec![])));
}

/// `_raw` is the record's value, frame and all; the message is what is in the frame.
#[test]
fn a_frame_is_no_part_of_the_message() {
    let corpus = Corpus::load();
    let mapping = corpus.mapping("corpus.tiny.Tiny");
    let framing = Framing::LengthDelimited;
    let mut shredder = Shredder::new(&mapping, Options { framing, ..Options::default() }).unwrap();
    // A varint in field 1000, which the message has not.
    let record = [3, 0xc0, 0x3e, 0x07];
    assert!(shredder.append(&batch([Some(&record[..])])).is_empty());
    let taken = shredder.take().unwrap();
    assert_eq!(rebuild(&mapping, framing, &taken[0], 0), Ok(Some(record[1..].to_vec())));
}

#[test]
fn a_batch_of_other_columns_is_an_error() {
    let corpus = Corpus::load();
    let mut shredder = Shredder::new(&corpus.mapping("corpus.tiny.Tiny"), Options::default()).unwrap();
    assert!(shredder.append(&batch([Some(&b""[..])])).is_empty());
    let taken = shredder.take().unwrap();
    let error = rebuild(&corpus.mapping("corpus.event.Event"), Framing::None, &taken[0], 0).unwrap_err();
    assert_eq!(error.to_string(), "the batch lacks columns of the mapping");
}

/// Columns of other types, left out, or beside the message's own: what they cannot say is in `_raw`.
#[test]
fn messages_from_columns_with_options() {
    let corpus = Corpus::load();
    let kind = |kind| ColumnOptions { kind: Some(kind), ..ColumnOptions::default() };
    let left_out = ColumnOptions { exclude: Some(true), ..ColumnOptions::default() };
    let case_column = ColumnOptions { case_column: Some(true), ..ColumnOptions::default() };
    let known = [
        ("timestamp", kind(ColumnType::Millis)),
        ("timestamps", kind(ColumnType::Long)),
        ("at", kind(ColumnType::Millis)),
        ("duration", kind(ColumnType::Millis)),
        ("durations", kind(ColumnType::Millis)),
        ("uint64_value", kind(ColumnType::Long)),
        ("any", kind(ColumnType::Json)),
        ("mask", left_out),
        ("which", case_column),
    ];
    let oneofs = [("scalar", case_column), ("message", case_column)];
    let flat = [("account", kind(ColumnType::Long)), ("checksum", kind(ColumnType::Long))];
    let enums =
        ["closed", "closed_list", "closed_map", "open_map", "chosen_open"].map(|path| (path, kind(ColumnType::Int)));
    let topics = [
        ("corpus.enums.Enums", enums.as_slice()),
        ("corpus.known.Known", known.as_slice()),
        ("corpus.oneofs.Oneofs", oneofs.as_slice()),
        ("corpus.flat.Flat", flat.as_slice()),
    ];
    for (number, (name, columns)) in topics.into_iter().enumerate() {
        let columns = columns.iter().map(|(path, options)| (path.to_string(), *options)).collect();
        let options = mapping::Options { columns, ..mapping::Options::default() };
        let mapping = Mapping::create(corpus.pool.clone(), corpus.id(name), &options).expect("the options fit");
        let (mut raws, mut rows) = (0, 0);
        for (style, salt) in [(generate::Style::PLAIN, 15), (generate::Style::WILD, 16)] {
            let seed = salt << 32 | number as u64;
            let mut rng = StdRng::seed_from_u64(seed);
            let record = || generate::message(&corpus.pool, mapping.message, style, &mut rng);
            let records: Vec<Vec<u8>> = std::iter::repeat_with(record).take(200).collect();
            let (raw, all) = round_trip(&corpus, &mapping, seed, &records, false);
            raws += raw;
            rows += all;
        }
        assert!(0 < raws && raws < rows, "{name}: {raws} of {rows} rows with _raw");
    }
}
