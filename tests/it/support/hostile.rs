//! What must hold whatever the bytes: the checks of the fuzz targets, and of the test that replays what these found.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;

use arrow::array::{Array, RecordBatch};
use calve::batch::{RawBatch, RejectCode, Span};
use calve::config::{ColumnOptions, ColumnType, SchemaSource};
use calve::schema::mapping::{self, Mapping};
use calve::shred::{Framing, Options, Shredder, Tombstones, rebuild};

use super::corpus::{Corpus, MESSAGES, batch, editions};
use super::wire;
use crate::rebuild::try_meaning;
use crate::shred::judge;

/// A record, the message of another and a frame: more does not find more.
const RECORDS_MAX: usize = 16;

/// Confluent's name for the header that frames a record.
const HEADER: &str = "__value_schema_id";

/// Messages of a schema whose tables are made: some schemas have very many.
const TABLES_MAX: usize = 30;

/// What an input says: which topic, how, and its records.
///
/// One byte for the topic, one of flags, and each record behind its length in two bytes, little endian.
#[derive(Clone, Debug)]
pub struct Input {
    pub topic: u8,
    pub flags: u8,
    pub records: Vec<Vec<u8>>,
}

impl Input {
    /// Each record comes twice, one behind the other in one value: Protobuf merges them.
    const DOUBLED: u8 = 1;
    /// The first record is a tombstone.
    const TOMBSTONE: u8 = 2;

    pub fn parse(bytes: &[u8]) -> Option<Input> {
        let [topic, flags, rest @ ..] = bytes else { return None };
        let mut rest = rest;
        let mut records = Vec::new();
        while let [low, high, more @ ..] = rest {
            let length = usize::from(u16::from_le_bytes([*low, *high])).min(more.len());
            let (record, behind) = more.split_at(length);
            records.push(record.to_vec());
            rest = behind;
        }
        records.truncate(RECORDS_MAX);
        Some(Input { topic: *topic, flags: *flags, records })
    }
}

/// A message and what a topic's configuration says of it.
pub struct Topic {
    pub mapping: Mapping,
    framing: Framing,
    /// The oracle knows the mapping, which has no options.
    judged: bool,
    editions: bool,
    shredder: Shredder,
    /// Of the same columns, for messages without a frame.
    unframed: Shredder,
}

/// The topics, and the oracle's view of their schemas.
pub struct Hostile {
    pub corpus: Corpus,
    editions: Corpus,
    pub topics: Vec<Topic>,
}

impl Hostile {
    pub fn new() -> Self {
        let (corpus, editions) = (Corpus::load(), editions());
        let topics = topics(&corpus, &editions);
        Hostile { corpus, editions, topics }
    }

    /// Shreds an input's records: as many rows and rejects as records; what is rejected leaves nothing behind; verdicts,
    /// values and `_raw` are the oracle's; every row gives its message back.
    pub fn shred(&mut self, input: &[u8]) {
        let Some(input) = Input::parse(input) else { return };
        let number = usize::from(input.topic) % self.topics.len();
        let Topic { mapping, framing, judged, editions, shredder, .. } = &mut self.topics[number];
        let corpus = if *editions { &self.editions } else { &self.corpus };
        let values = values(&input);
        let records = framed(*framing, &values);
        let rejects = shredder.append(&records);
        let bytes = shredder.bytes();
        let taken = shredder.take().expect("the mapping's columns are valid");
        let rows: usize = taken.iter().map(RecordBatch::num_rows).sum();
        assert_eq!(rows + rejects.len(), records.records.len());
        assert!(rejects.is_sorted_by(|one, next| one.record < next.record), "{rejects:?}");
        let held: usize = taken.iter().map(used).sum();
        // Each array ends in an offset that is no row's, and its bits in whole bytes.
        let bound = bytes + 16 * mapping.iceberg.highest_field_id() as usize;
        assert!(held <= bound, "{held} bytes of arrays, but {bytes} were said to be an upper bound");

        if !rejects.is_empty() {
            let mut accepted = records.clone();
            let mut number = 0;
            accepted.records.retain(|_| {
                number += 1;
                !rejects.iter().any(|reject| reject.record == number - 1)
            });
            assert_eq!(shredder.append(&accepted), [], "what was accepted beside others is not accepted alone");
            let alone = shredder.take().expect("the mapping's columns are valid");
            assert_eq!(alone, taken, "what was rejected has changed a column: {rejects:?}");
        }

        let id = mapping.message;
        if *judged && values.iter().all(Option::is_some) {
            let values: Vec<Vec<u8>> = values.iter().flatten().cloned().collect();
            judge(corpus, mapping, &rejects, &taken, &values, true, allowed, &|| format!("{input:02x?}"));
        }
        let mut rows = taken.iter().flat_map(|batch| (0..batch.num_rows()).map(move |row| (batch, row)));
        for (index, record) in records.records.iter().enumerate() {
            if rejects.iter().any(|reject| reject.record == index) {
                continue;
            }
            let (batch, row) = rows.next().expect("as many rows as records without a reject");
            let rebuilt = rebuild(mapping, *framing, batch, row).unwrap_or_else(|error| panic!("{error}"));
            let Some(value) = record.value else {
                let empty = rebuilt.as_ref().is_none_or(Vec::is_empty);
                assert!(empty, "{rebuilt:02x?} for a tombstone");
                continue;
            };
            let message = framing.message(records.bytes(value)).expect("the frame was good");
            let rebuilt = rebuilt.unwrap_or_else(|| panic!("taken for a tombstone: {message:02x?}"));
            // What is left out, or text below some depth, is not looked at by the shredder as the oracle does.
            let Ok(meaning) = try_meaning(corpus, id, message) else { continue };
            if !wire::is_misread(&corpus.pool, id, message) {
                assert_eq!(try_meaning(corpus, id, &rebuilt), Ok(meaning), "{rebuilt:02x?} for {message:02x?}");
            }
        }
    }

    /// The message that a row gives back makes the same row again, and this row the same message.
    pub fn rebuild(&mut self, input: &[u8]) {
        let Some(input) = Input::parse(input) else { return };
        let number = usize::from(input.topic) % self.topics.len();
        let Topic { mapping, framing, shredder, unframed, .. } = &mut self.topics[number];
        shredder.append(&framed(*framing, &values(&input)));
        let taken = shredder.take().expect("the mapping's columns are valid");
        let columns = mapping.columns.len();
        let give_back = |framing: Framing, batch: &RecordBatch, row: usize| {
            rebuild(mapping, framing, batch, row).unwrap_or_else(|error| panic!("{error}"))
        };
        for batch in &taken {
            for row in 0..batch.num_rows() {
                let Some(message) = give_back(*framing, batch, row) else { continue };
                let rejects = unframed.append(&self::batch([Some(message.as_slice())]));
                assert_eq!(rejects, [], "the rebuilt message is rejected: {message:02x?}");
                let again = unframed.take().expect("the mapping's columns are valid");
                let [again] = again.as_slice() else { panic!("{} batches of one row", again.len()) };
                for index in 0..columns {
                    let (before, after) = (batch.column(index).slice(row, 1), again.column(index));
                    assert_eq!(&before, after, "{}: {message:02x?}", mapping.columns[index].name);
                }
                let (before, after) = (batch.column(columns + 1), again.column(columns + 1));
                assert_eq!(before.is_null(row), after.is_null(0), "_raw: {message:02x?}");
                assert_eq!(give_back(Framing::None, again, 0).as_ref(), Some(&message));
            }
        }
    }

    /// A descriptor set, or the text of a `.proto` file: an error, or tables that records can go to.
    pub fn descriptors(folder: &Path, input: &[u8]) {
        let [kind, bytes @ ..] = input else { return };
        let source = if kind % 2 == 0 {
            let set = folder.join("set.binpb");
            std::fs::write(&set, bytes).expect("the folder can be written to");
            SchemaSource::DescriptorSet(set)
        } else {
            // A file in an edition goes to protoc.
            if bytes.windows(7).any(|word| word == b"edition") {
                return;
            }
            let protos = folder.join("protos");
            std::fs::create_dir_all(&protos).expect("the folder can be written to");
            std::fs::write(protos.join("a.proto"), bytes).expect("the folder can be written to");
            SchemaSource::Protos(protos)
        };
        let pool = match calve::schema::load(&source) {
            Ok(pool) => pool,
            Err(error) => {
                let text = format!("{error:#}");
                assert!(!text.is_empty());
                return;
            }
        };
        for id in 0..pool.messages.len().min(TABLES_MAX) as u32 {
            let message = calve::schema::model::MessageId(id);
            let options = mapping::Options { columns_max: 200, ..mapping::Options::default() };
            let Ok(mapping) = Mapping::create(Arc::clone(&pool), message, &options) else { continue };
            let mut shredder = Shredder::new(&mapping, Options::default()).unwrap_or_else(|error| panic!("{error}"));
            let rejects = shredder.append(&batch([Some(&b""[..]), Some(&b"\x08\x01"[..]), None]));
            let taken = shredder.take().expect("the mapping's columns are valid");
            let rows: usize = taken.iter().map(RecordBatch::num_rows).sum();
            assert_eq!(rows + rejects.len(), 3);
            for batch in &taken {
                for row in 0..batch.num_rows() {
                    let _ = rebuild(&mapping, Framing::None, batch, row).unwrap_or_else(|error| panic!("{error}"));
                }
            }
        }
    }
}

/// Which difference in verdicts is none, as in the test of broken bytes.
fn allowed(code: Option<RejectCode>, reason: Option<&str>) -> bool {
    match reason {
        // buffa refuses bits past the 64th of a varint; upb and C++ drop them.
        Some(reason) => reason.contains("varint exceeded"),
        // buffa takes tags of more than five bytes and lengths that the others call negative.
        None => matches!(code, Some(RejectCode::BadTag | RejectCode::BadLength)),
    }
}

/// Bytes of arrays that hold values.
fn used(batch: &RecordBatch) -> usize {
    // `_kafka` comes by its own count, with names that all rows share.
    let columns = batch.num_columns();
    let message = batch.columns()[..columns - 2].iter();
    message.map(|array| array.to_data().get_slice_memory_size().unwrap_or_default()).sum::<usize>()
}

/// The records' values.
fn values(input: &Input) -> Vec<Option<Vec<u8>>> {
    let doubled = input.flags & Input::DOUBLED != 0;
    let values = input.records.iter().enumerate().map(|(index, record)| match index {
        0 if input.flags & Input::TOMBSTONE != 0 => None,
        _ if doubled => Some(record.repeat(2)),
        _ => Some(record.clone()),
    });
    values.collect()
}

/// A batch of records; with headers, the first bytes of each value are its header.
fn framed(framing: Framing, values: &[Option<Vec<u8>>]) -> RawBatch {
    let mut records = batch(values.iter().map(|value| value.as_deref()));
    if framing == Framing::Header {
        let name = Span { start: records.arena.len() as u32, end: (records.arena.len() + HEADER.len()) as u32 };
        records.arena.extend(HEADER.as_bytes());
        records.arena.extend([0xff; RawBatch::PADDING]);
        for record in &mut records.records {
            let Some(value) = &mut record.value else { continue };
            let end = (value.start + 5).min(value.end);
            let header = Span { start: value.start, end };
            value.start = end;
            let index = records.headers.len() as u32;
            records.headers.push((name, Some(header)));
            record.headers = Span { start: index, end: index + 1 };
        }
    }
    records
}

fn topics(corpus: &Corpus, set: &Corpus) -> Vec<Topic> {
    let kind = |kind| ColumnOptions { kind: Some(kind), ..ColumnOptions::default() };
    let left_out = ColumnOptions { exclude: Some(true), ..ColumnOptions::default() };
    let case_column = ColumnOptions { case_column: Some(true), ..ColumnOptions::default() };
    let plain = mapping::Options::default;
    let columns = |columns: &[(&str, ColumnOptions)]| mapping::Options {
        columns: columns.iter().map(|(path, options)| (path.to_string(), *options)).collect::<BTreeMap<_, _>>(),
        ..plain()
    };
    let names = |names: &[&str]| names.iter().map(|name| name.to_string()).collect::<Vec<_>>();
    let topic = |corpus: &Corpus, name: &str, options: mapping::Options, framing: Framing| {
        let mapping = Mapping::create(Arc::clone(&corpus.pool), corpus.id(name), &options);
        let mapping = mapping.unwrap_or_else(|faults| panic!("{name}: {}", faults[0]));
        let shredder = |framing| {
            let options = Options { framing, tombstones: Tombstones::Row };
            Shredder::new(&mapping, options).unwrap_or_else(|error| panic!("{name}: {error}"))
        };
        let judged = options == plain() && framing == Framing::None;
        let (shredder, unframed) = (shredder(framing), shredder(Framing::None));
        Topic { editions: false, mapping, framing, judged, shredder, unframed }
    };
    let mut topics: Vec<Topic> = MESSAGES.into_iter().map(|name| topic(corpus, name, plain(), Framing::None)).collect();
    for name in ["corpus.editions.Features", "corpus.editions.Delimited"] {
        topics.push(Topic { editions: true, ..topic(set, name, plain(), Framing::None) });
    }
    let mut more = |name: &str, options, framing| topics.push(topic(corpus, name, options, framing));
    more("corpus.tiny.Tiny", plain(), Framing::LengthDelimited);
    more("corpus.oneofs.Oneofs", plain(), Framing::Confluent);
    more("corpus.numbers.Numbers", plain(), Framing::Header);
    for name in ["deep.Deep", "groups.Groups", "maps.Maps", "known.Known", "sets.Sets", "structs.Structs"] {
        more(&format!("corpus.{name}"), mapping::Options { json_below: Some(1), ..plain() }, Framing::None);
    }
    more("corpus.event.Event", mapping::Options { json_below: Some(2), ..plain() }, Framing::None);
    let known = [
        ("timestamp", kind(ColumnType::Millis)),
        ("timestamps", kind(ColumnType::Long)),
        ("at", kind(ColumnType::Millis)),
        ("duration", kind(ColumnType::Millis)),
        ("uint64_value", kind(ColumnType::Long)),
        ("any", kind(ColumnType::Json)),
        ("mask", left_out),
        ("which", case_column),
    ];
    more("corpus.known.Known", columns(&known), Framing::None);
    more("corpus.oneofs.Oneofs", columns(&[("scalar", case_column), ("message", case_column)]), Framing::None);
    let long = kind(ColumnType::Long);
    more("corpus.flat.Flat", columns(&[("account", long), ("checksum", long)]), Framing::None);
    let enums = ["closed", "closed_list", "closed_map", "open_map", "chosen_open"];
    more("corpus.enums.Enums", columns(&enums.map(|path| (path, kind(ColumnType::Int)))), Framing::None);
    for (message, pattern) in [("event.Event", 0), ("oneofs.Oneofs", 1), ("legacy.Legacy", 0), ("enums.Enums", 1)] {
        let name = format!("corpus.{message}");
        let fields: Vec<&str> = {
            let fields = &corpus.pool.message(corpus.id(&name)).fields;
            fields.iter().filter(|field| !field.extension).map(|field| field.name.as_str()).collect()
        };
        // Every second field.
        let some: Vec<&str> = fields.iter().skip(pattern).step_by(2).copied().collect();
        more(&name, mapping::Options { exclude: names(&some), ..plain() }, Framing::None);
    }
    topics
}
