//! The shredder's rules one by one: rejects, tombstones, framings, `_kafka`, batches, hostile bytes.

use std::sync::Arc;

use arrow::array::RecordBatch;
use calve::batch::{RawBatch, RejectCode, Span, TimestampType};
use calve::schema::mapping::{Mapping, Shape};
use calve::shred::{Framing, Options, Shredder, Tombstones};
use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};

use crate::support::cells::{self, Cell, column, text};
use crate::support::corpus::{Corpus, MESSAGES, batch, generate};

fn shredder(message: &str, options: Options) -> Shredder {
    Shredder::new(&Corpus::load().mapping(message), options).unwrap()
}

fn take(shredder: &mut Shredder) -> RecordBatch {
    let mut batches = shredder.take().unwrap();
    assert_eq!(batches.len(), 1);
    batches.remove(0)
}

/// A record that is rejected between two good ones, which come out as if it had never been there.
fn check_reject(message: &str, bad: &[u8], code: RejectCode, detail: &str) {
    let corpus = Corpus::load();
    let mut rng = StdRng::seed_from_u64(5);
    let good: Vec<u8> = generate::message(&corpus.pool, corpus.id(message), generate::Style::PLAIN, &mut rng);
    let mapping = corpus.mapping(message);
    let mut with = Shredder::new(&mapping, Options::default()).unwrap();
    let rejects = with.append(&batch([Some(good.as_slice()), Some(bad), Some(good.as_slice())]));
    assert_eq!(rejects.len(), 1, "{rejects:?}");
    assert_eq!((rejects[0].record, rejects[0].code, rejects[0].detail.as_str()), (1, code, detail));
    let mut without = Shredder::new(&mapping, Options::default()).unwrap();
    assert_eq!(without.append(&batch([Some(good.as_slice()), Some(good.as_slice())])), []);
    let (with, without) = (take(&mut with), take(&mut without));
    for index in 0..mapping.columns.len() {
        assert_eq!(with.column(index), without.column(index), "column {index}");
    }
}

#[test]
fn each_reject_has_its_code_and_place() {
    let check = check_reject;
    let event = "corpus.event.Event";
    check(event, b"\x0a\x05ab", RejectCode::Truncated, "event_id: the data ends inside a value, at byte 0");
    check(event, b"\x22\x02\x08", RejectCode::Truncated, "user: the data ends inside a value, at byte 0");
    check(event, b"\x22\x01\x08", RejectCode::Truncated, "user.id: the data ends inside a value, at byte 2");
    check(event, b"\x50\xff", RejectCode::Truncated, "sequence: the data ends inside a value, at byte 0");
    check(
        event,
        b"\x0a\x01x\x50\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\x01",
        RejectCode::BadVarint,
        "sequence: a varint of more than ten bytes, at byte 3",
    );
    let bad_tag = "a tag with field number 0, wire type 6 or 7, or more than 32 bits, at byte 0";
    check(event, b"\x00\x01", RejectCode::BadTag, bad_tag);
    check(event, b"\x0e\x01", RejectCode::BadTag, bad_tag);
    check(event, b"\x0f\x01", RejectCode::BadTag, bad_tag);
    check(event, b"\xff\xff\xff\xff\x7f\x01", RejectCode::BadTag, bad_tag);
    check(event, b"\x0c", RejectCode::BadGroup, "the end of a group that is not open, at byte 0");
    check(event, b"\xa3\x06\x0c", RejectCode::BadGroup, "the end of a group that is not open, at byte 0");
    check(event, b"\xa3\x06\x08\x01", RejectCode::Truncated, "the data ends inside a value, at byte 0");
    let huge = "event_id: a length of 2 GiB or more, at byte 0";
    check(event, b"\x0a\xff\xff\xff\xff\x0f", RejectCode::BadLength, huge);
    check(event, b"\x0a\xff\xff\xff\xff\xff\xff\xff\xff\xff\x01", RejectCode::BadLength, huge);
    check(event, b"\x0a\x02\xc3(", RejectCode::InvalidUtf8, "event_id: a string that is not UTF-8");
    check(event, b"\x32\x04\x0a\x02\xc3(", RejectCode::InvalidUtf8, "items.sku: a string that is not UTF-8");
    check(event, b"\x3a\x04\x0a\x02\xc3(", RejectCode::InvalidUtf8, "labels: a string that is not UTF-8");
    // Overwritten, but read.
    check(event, b"\x0a\x02\xc3(\x0a\x01x", RejectCode::InvalidUtf8, "event_id: a string that is not UTF-8, at byte 0");
    let range = "occurred_at: a value that its column cannot hold";
    check(event, b"\x12\x07\x08\x80\x83\xd1\xff\xaf\x07", RejectCode::OutOfRange, range);
    check(event, b"\x12\x06\x10\x80\x94\xeb\xdc\x03", RejectCode::OutOfRange, range);
    let legacy = "corpus.legacy.Legacy";
    check(legacy, b"", RejectCode::RequiredMissing, "id: a required field is missing");
    check(legacy, b"\x0a\x00\x4a\x00", RejectCode::RequiredMissing, "part.number: a required field is missing");
    check(
        legacy,
        b"\x0a\x00\x4a\x04\x08\x01\x1a\x00",
        RejectCode::RequiredMissing,
        "part.bolt.size: a required field is missing",
    );
    let part = "part_by_number.number: a required field is missing";
    check(legacy, b"\x0a\x00\x5a\x02\x08\x01", RejectCode::RequiredMissing, part);
    // A group inside a group inside … that no field takes.
    let deep = [[0xa3, 0x06].repeat(101), [0xa4, 0x06].repeat(101)].concat();
    check(event, &deep, RejectCode::TooDeep, "more than 100 messages nested in each other, at byte 0");
}

#[test]
fn fields_that_come_back_are_one_value() {
    // A string, a time and a message again behind a later field; the second of them begins out of order itself.
    let mut events = shredder("corpus.event.Event", Options::default());
    let records: [&[u8]; 2] = [
        b"\x0a\x01a\x12\x02\x08\x01\x22\x04\x12\x02no\x50\x05\x0a\x01b\x12\x02\x08\x02\x22\x03\x12\x01n\x0a\x01c",
        b"\x50\x05\x0a\x01a\x0a\x01b",
    ];
    assert_eq!(events.append(&batch(records.map(Some))), []);
    let events = take(&mut events);
    assert_eq!((0..2).map(|row| column(&events, row, "event_id")).collect::<Vec<_>>(), [text("c"), text("b")]);
    assert_eq!(column(&events, 0, "occurred_at"), Cell::Int(2_000_000));
    assert_eq!(column(&events, 0, "user.name"), text("n"));
    assert_eq!((0..2).map(|row| column(&events, row, "sequence")).collect::<Vec<_>>(), [Cell::Int(5), Cell::Int(5)]);
    // Behind a list in its other encoding, which stands behind all fields of the table.
    let mut lists = shredder("corpus.repeated.Repeated", Options::default());
    let record: &[u8] = b"\x92\x01\x08\x1a\x01a\x10\x05\x1a\x01b";
    assert_eq!(lists.append(&batch([Some(record)])), []);
    let row = format!("{:?}", column(&take(&mut lists), 0, "rows"));
    assert!(row.contains("Text(\"b\")") && !row.contains("Text(\"a\")"), "{row}");
}

#[test]
fn entries_of_maps_in_any_form() {
    fn entry(tag: &[u8], content: impl AsRef<[u8]>) -> Vec<u8> {
        let content = content.as_ref();
        [tag, &[content.len() as u8 & 0x7f | 0x80, (content.len() >> 7) as u8], content].concat()
    }
    // As writers write it.
    fn plain(key: &str, value: &str) -> Vec<u8> {
        let content = [&[0x0a, key.len() as u8], key.as_bytes(), &[0x12, value.len() as u8], value.as_bytes()].concat();
        [&[0x3a, content.len() as u8], content.as_slice()].concat()
    }
    // `column` sorts them.
    fn map(entries: impl IntoIterator<Item = (String, String)>) -> Cell {
        let mut entries: Vec<_> = entries.into_iter().collect();
        entries.sort();
        Cell::Map(entries.into_iter().map(|(key, value)| (text(&key), text(&value))).collect())
    }
    let pairs = |pairs: &[(&str, &str)]| map(pairs.iter().map(|(key, value)| (key.to_string(), value.to_string())));
    let long = "v".repeat(200);
    let many = (0..30).map(|index| format!("k{index}"));
    let records = [
        // An overlong tag, the value before the key; a long value; neither; no value; an overlong length.
        [
            entry(b"\xba\x00", b"\x12\x01w\x0a\x01a"),
            plain("b", "x"),
            entry(b"\x3a", [b"\x0a\x01c\x12\xc8\x01", long.as_bytes()].concat()),
            entry(b"\x3a", b""),
            entry(b"\x3a", b"\x0a\x01d"),
            entry(b"\x3a", b"\x0a\x01e\x12\x01y"),
            b"\x50\x05".to_vec(),
        ]
        .concat(),
        many.clone().flat_map(|key| plain(&key, "v")).collect(),
        // The same key in entries of two forms, in either order, and behind an unknown field and a known one.
        [entry(b"\x3a", b"\x12\x011\x0a\x01a"), plain("a", "2")].concat(),
        [plain("a", "2"), entry(b"\x3a", b"\x12\x011\x0a\x01a")].concat(),
        [plain("a", "1"), b"\xa0\x06\x01".to_vec(), plain("a", "2")].concat(),
        [plain("a", "1"), b"\x50\x05".to_vec(), plain("a", "2")].concat(),
        // The last one with an overlong tag, behind one of another form and one that follows it.
        [
            entry(b"\x3a", b"\x12\x011\x0a\x01x"),
            plain("a", "1"),
            [b"\xba\x00", &plain("a", "2")[1..]].concat(),
            b"\x50\x05".to_vec(),
        ]
        .concat(),
        many.clone().chain(["k7".into()]).flat_map(|key| plain(&key, "v")).collect(),
    ];
    let mut events = shredder("corpus.event.Event", Options::default());
    assert_eq!(events.append(&batch(records.iter().map(|record| Some(record.as_slice())))), []);
    let events = take(&mut events);
    let expected = [
        pairs(&[("a", "w"), ("b", "x"), ("c", &long), ("", ""), ("d", ""), ("e", "y")]),
        map(many.clone().map(|key| (key, "v".into()))),
        pairs(&[("a", "2")]),
        pairs(&[("a", "1")]),
        pairs(&[("a", "2")]),
        pairs(&[("a", "2")]),
        pairs(&[("a", "2"), ("x", "1")]),
    ];
    for (row, expected) in expected.iter().enumerate() {
        assert_eq!(column(&events, row, "labels"), *expected, "row {row}");
        assert_eq!(column(&events, row, "_raw") == Cell::Null, row != 4, "row {row}");
    }
    assert_eq!([0, 6].map(|row| column(&events, row, "sequence")), [5, 5].map(Cell::Int));
    assert!(matches!(column(&events, 7, "labels"), Cell::Map(entries) if entries.len() == 30));

    // Numbers; and values that a closed enumeration does not have, whose entries are unknown fields.
    let mut maps = shredder("corpus.maps.Maps", Options::default());
    let records: [&[u8]; 3] =
        [b"\x12\x04\x08\x01\x10\x02\x12\x00", b"\x12\x02\x10\x07\x12\x02\x08\x00", b"\x12\x04\x10\x02\x08\x01"];
    assert_eq!(maps.append(&batch(records.map(Some))), []);
    let maps = take(&mut maps);
    let numbers = |pairs: &[(i128, i128)]| {
        Cell::Map(pairs.iter().map(|(key, value)| (Cell::Int(*key), Cell::Int(*value))).collect())
    };
    assert_eq!(
        (0..3).map(|row| column(&maps, row, "by_int32")).collect::<Vec<_>>(),
        [numbers(&[(0, 0), (1, 2)]), numbers(&[(0, 0)]), numbers(&[(1, 2)])]
    );
    let mut enums = shredder("corpus.enums.Enums", Options::default());
    let records: [&[u8]; 3] = [
        b"\x22\x05\x0a\x01a\x10\x01\x22\x05\x0a\x01b\x10\x05",
        b"\x22\x05\x10\x05\x0a\x01b\x22\x05\x10\x01\x0a\x01a",
        b"\x22\x05\x0a\x01a\x10\x01\x08\x05",
    ];
    assert_eq!(enums.append(&batch(records.map(Some))), []);
    let enums = take(&mut enums);
    for (row, record) in records.iter().enumerate() {
        assert_eq!(column(&enums, row, "closed_map"), Cell::Map(vec![(text("a"), text("ONE"))]), "row {row}");
        assert_eq!(column(&enums, row, "_raw"), Cell::Bytes(record.to_vec()), "row {row}");
        assert_eq!(column(&enums, row, "closed"), Cell::Null);
    }
}

#[test]
fn entries_of_a_map_that_stand_apart() {
    // So many, each behind something unknown, that a look at all keys at each of them would take many minutes.
    let record: Vec<u8> = (0..200_000_u32)
        .flat_map(|index| [b"\x22\x05\x0d".as_slice(), &index.reverse_bits().to_le_bytes(), b"\xa0\x06\x01"].concat())
        .collect();
    let mut maps = shredder("corpus.maps.Maps", Options::default());
    assert_eq!(maps.append(&batch([Some(record.as_slice())])), []);
    let maps = take(&mut maps);
    assert!(matches!(column(&maps, 0, "by_sfixed32"), Cell::Map(entries) if entries.len() == 200_000));
    assert_eq!(column(&maps, 0, "_raw"), Cell::Bytes(record));
}

#[test]
fn members_of_a_oneof_and_what_follows() {
    let mut oneofs = shredder("corpus.oneofs.Oneofs", Options::default());
    let records: [&[u8]; 6] = [
        // The first member of each, then what follows both.
        b"\x08\x01\x3a\x02\x08\x02\x48\x03",
        // A later member of each; an earlier one again; the field behind, twice.
        b"\x1a\x01t\x42\x03\x12\x01y\x48\x03\x48\x04",
        b"\x1a\x01t\x10\x07\x48\x03",
        b"\x10\x07\x1a\x01t\x48\x03",
        b"\x48\x03\x10\x07\x10\x08",
        b"\x1a\x01t\x1a\x01u\x3a\x02\x08\x01\x3a\x03\x12\x01b",
    ];
    assert_eq!(oneofs.append(&batch(records.map(Some))), []);
    let rows = take(&mut oneofs);
    let column = |row, name| column(&rows, row, name);
    let all = |name| (0..6).map(|row| column(row, name)).collect::<Vec<_>>();
    assert_eq!(all("flag")[0], Cell::Bool(true));
    assert_eq!(all("plain"), [3, 4, 3, 3, 3, 0].map(Cell::Int));
    assert_eq!(all("number"), [Cell::Null, Cell::Null, Cell::Int(7), Cell::Null, Cell::Int(8), Cell::Null]);
    assert_eq!(all("text"), [Cell::Null, text("t"), Cell::Null, text("t"), Cell::Null, text("u")]);
    assert_eq!([column(0, "left.a"), column(1, "right.y")], [Cell::Int(2), text("y")]);
    assert_eq!([column(5, "left.a"), column(5, "left.b")], [Cell::Int(1), text("b")]);
}

#[test]
fn what_is_settled_by_later_bytes_is_no_reject() {
    let mut events = shredder("corpus.event.Event", Options::default());
    // Seconds out of range, then overwritten by another piece of the same message; a duration of a message cleared by
    // its oneof.
    let records: [&[u8]; 2] =
        [b"\x12\x07\x08\x80\x83\xd1\xff\xaf\x07\x12\x02\x08\x01", b"\x5a\x02\x0a\x00\x62\x01x\xa0\x06\x01"];
    assert_eq!(events.append(&batch(records.map(Some))), []);
    let events = take(&mut events);
    assert_eq!(column(&events, 0, "occurred_at"), Cell::Int(1_000_000));
    assert_eq!(column(&events, 0, "_raw"), Cell::Null);
    assert_eq!(column(&events, 1, "purchase"), Cell::Null);
    assert_eq!(column(&events, 1, "failure"), text("x"));
    assert_eq!(column(&events, 1, "_raw"), Cell::Bytes(records[1].to_vec()));

    let mut legacies = shredder("corpus.legacy.Legacy", Options::default());
    let records: [&[u8]; 2] = [
        // The required number comes with the second piece.
        b"\x0a\x00\x4a\x03\x12\x01n\x4a\x02\x08\x07",
        // A part without its number, cleared by a later member; an unknown field in it is no loss.
        b"\x0a\x00\x6a\x02\x20\x01\x72\x01x",
    ];
    assert_eq!(legacies.append(&batch(records.map(Some))), []);
    let legacies = take(&mut legacies);
    assert_eq!(column(&legacies, 0, "part.number"), Cell::Int(7));
    assert_eq!(column(&legacies, 0, "part.name"), text("n"));
    assert_eq!(column(&legacies, 1, "chosen_part"), Cell::Null);
    assert_eq!(column(&legacies, 1, "chosen_name"), text("x"));
    assert_eq!(column(&legacies, 1, "_raw"), Cell::Null);
}

#[test]
fn strings_that_are_utf8_only_together() {
    let mut shredder = shredder("corpus.repeated.Repeated", Options::default());
    // One character, half in each of two strings; then a good record.
    let records: [&[u8]; 2] = [b"\x72\x01\xc3\x72\x01\xa4", b"\x72\x02\xc3\xa4"];
    let rejects = shredder.append(&batch(records.map(Some)));
    assert_eq!(rejects.len(), 1);
    assert_eq!((rejects[0].record, rejects[0].code), (0, RejectCode::InvalidUtf8));
    assert_eq!(column(&take(&mut shredder), 0, "strings"), Cell::List(vec![text("ä")]));
    // Half in each of two records: both are rejects.
    let records: [&[u8]; 2] = [b"\x72\x01\xc3", b"\x72\x01\xa4"];
    assert_eq!(shredder.append(&batch(records.map(Some))).len(), 2);
    assert_eq!(shredder.rows(), 0);
}

#[test]
fn tombstones_are_rows_or_skipped() {
    let records: [Option<&[u8]>; 3] = [Some(b"\x18\x01"), None, Some(b"")];
    let mut rows = shredder("corpus.event.Event", Options::default());
    assert_eq!(rows.append(&batch(records)), []);
    let rows = take(&mut rows);
    assert_eq!(rows.num_rows(), 3);
    let null: Vec<bool> = cells::row(&rows, 1).iter().map(|(_, cell)| *cell == Cell::Null).collect();
    // All but `_kafka`, which is the last but one.
    assert_eq!(null.iter().position(|null| !null), Some(null.len() - 2));
    // An empty message is a message of defaults.
    assert_eq!(column(&rows, 2, "event_id"), text(""));
    assert_eq!(column(&rows, 2, "kind"), text("KIND_UNSPECIFIED"));
    assert_eq!(column(&rows, 2, "items"), Cell::List(vec![]));
    assert_eq!(column(&rows, 2, "labels"), Cell::Map(vec![]));
    assert_eq!(column(&rows, 2, "user"), Cell::Null);

    let skip = Options { tombstones: Tombstones::Skip, ..Options::default() };
    let mut skipped = shredder("corpus.event.Event", skip);
    assert_eq!(skipped.append(&batch(records)), []);
    assert_eq!(column(&take(&mut skipped), 1, "_kafka.offset"), Cell::Int(2));
}

#[test]
fn a_length_in_front_of_the_message() {
    let options = Options { framing: Framing::LengthDelimited, ..Options::default() };
    let mut shredder = shredder("corpus.tiny.Tiny", options);
    let records: [&[u8]; 3] = [b"\x02\x08\x07", b"\x03\x08\x07", b"\x04\x08\x07\x18\x01"];
    let rejects = shredder.append(&batch(records.map(Some)));
    assert_eq!(
        rejects.iter().map(|reject| (reject.record, reject.code)).collect::<Vec<_>>(),
        [(1, RejectCode::BadFrame)]
    );
    let rows = take(&mut shredder);
    assert_eq!(column(&rows, 0, "a"), Cell::Int(7));
    // `_raw` is the record as it came, its frame included.
    assert_eq!(column(&rows, 1, "_raw"), Cell::Bytes(records[2].to_vec()));
}

#[test]
fn a_schema_id_in_front_of_the_message() {
    let options = Options { framing: Framing::Confluent, ..Options::default() };
    let mut shredder = shredder("corpus.event.Purchase", options);
    // The message is the sixth of its file; an empty message, an unknown field, and what is wrong with a frame or in it.
    let records: [&[u8]; 9] = [
        b"\x00\x00\x00\x01\x02\x02\x0a",
        b"\x00\x00\x00\x01\x03\x02\x0a\xa0\x06\x01",
        b"\x00\x00\x00\x01\x02\x00",
        b"\x00\x00\x00\x01\x02\x02\x7e",
        b"\x00\x00\x00\x01\x02",
        b"\x01\x00\x00\x01\x02\x02\x0a",
        b"",
        b"\x00\x00\x00\x01\x04\x02\x0a\xff",
        b"\x00\x00\x00\x01\x05\x02\x0a",
    ];
    let records: Vec<Option<&[u8]>> = records.into_iter().map(Some).chain([None]).collect();
    let rejects = shredder.append(&batch(records.iter().copied()));
    let found: Vec<_> = rejects.iter().map(|reject| (reject.record, reject.code, reject.schema_id)).collect();
    assert_eq!(
        found,
        [
            (2, RejectCode::UnknownMessage, Some(258)),
            (3, RejectCode::UnknownMessage, Some(258)),
            (4, RejectCode::BadFrame, Some(258)),
            (5, RejectCode::BadFrame, None),
            (6, RejectCode::BadFrame, None),
            (7, RejectCode::Truncated, Some(260)),
        ]
    );
    let rows = take(&mut shredder);
    let ids: Vec<Cell> = (0..rows.num_rows()).map(|row| column(&rows, row, "_kafka.schema_id")).collect();
    assert_eq!(ids, [Cell::Int(258), Cell::Int(259), Cell::Int(261), Cell::Null]);
    assert_eq!(column(&rows, 0, "_raw"), Cell::Null);
    // `_raw` is the record as it came, its frame included.
    assert_eq!(column(&rows, 1, "_raw"), Cell::Bytes(records[1].unwrap().to_vec()));
}

#[test]
fn a_schema_id_in_a_header() {
    let guid: &[u8] = &[1; 17];
    let headers: [&[(&str, Option<&[u8]>)]; 6] = [
        &[("__value_schema_id", Some(b"\x00\x00\x00\x01\x02")), ("trace", Some(b"x"))],
        &[("__value_schema_id", Some(b"\x00\x00\x00\x01\x02")), ("__value_schema_id", Some(guid))],
        &[("__key_schema_id", Some(guid))],
        &[],
        &[("__value_schema_id", None)],
        &[("__value_schema_id", Some(b"\x00\x00\x00\x01\x03\x02\x04"))],
    ];
    let mut batch = batch(headers.map(|_| Some(b"\x08\x07".as_slice())));
    for (record, headers) in headers.into_iter().enumerate() {
        let start = batch.headers.len() as u32;
        for (name, value) in headers {
            let mut put = |bytes: &[u8]| {
                let start = batch.arena.len() as u32;
                batch.arena.extend_from_slice(bytes);
                Span { start, end: batch.arena.len() as u32 }
            };
            let header = (put(name.as_bytes()), value.map(&mut put));
            batch.headers.push(header);
        }
        batch.records[record].headers = Span { start, end: batch.headers.len() as u32 };
    }
    batch.arena.extend([0; RawBatch::PADDING]);
    let mut shredder = shredder("corpus.tiny.Tiny", Options { framing: Framing::Header, ..Options::default() });
    let rejects = shredder.append(&batch);
    let found: Vec<_> = rejects.iter().map(|reject| (reject.record, reject.code, reject.schema_id)).collect();
    assert_eq!(
        found,
        [
            (2, RejectCode::BadFrame, None),
            (3, RejectCode::BadFrame, None),
            (4, RejectCode::BadFrame, None),
            (5, RejectCode::UnknownMessage, Some(259)),
        ]
    );
    let rows = take(&mut shredder);
    assert_eq!([0, 1].map(|row| column(&rows, row, "_kafka.schema_id")), [Cell::Int(258), Cell::Null]);
    assert_eq!([0, 1].map(|row| column(&rows, row, "a")), [Cell::Int(7), Cell::Int(7)]);
}

#[test]
fn where_a_row_comes_from() {
    let mut batch = batch([Some(b"".as_slice()), Some(b""), Some(b"")]);
    let mut put = |bytes: &[u8]| {
        let start = batch.arena.len() as u32;
        batch.arena.extend_from_slice(bytes);
        Span { start, end: batch.arena.len() as u32 }
    };
    let (key, name, value) = (put(b"key"), put(b"trace"), put(b"\xff"));
    batch.arena.extend([0; RawBatch::PADDING]);
    batch.topic = Arc::from("orders");
    batch.headers = vec![(name, Some(value)), (name, None)];
    batch.records[0].key = Some(key);
    batch.records[0].headers = Span { start: 0, end: 2 };
    batch.records[1].timestamp_type = TimestampType::NotAvailable;
    batch.records[2].timestamp_ms = i64::MAX;
    batch.records[2].timestamp_type = TimestampType::LogAppendTime;
    let mut shredder = shredder("corpus.tiny.Tiny", Options::default());
    assert_eq!(shredder.append(&batch), []);
    let rows = take(&mut shredder);
    let header = |value| Cell::Struct(vec![("key".into(), text("trace")), ("value".into(), value)]);
    assert_eq!(
        column(&rows, 0, "_kafka"),
        Cell::Struct(vec![
            ("topic".into(), text("orders")),
            ("partition".into(), Cell::Int(3)),
            ("offset".into(), Cell::Int(0)),
            ("timestamp".into(), Cell::Int(1_700_000_000_000_000)),
            ("timestamp_type".into(), text("create_time")),
            ("key".into(), Cell::Bytes(b"key".to_vec())),
            ("headers".into(), Cell::List(vec![header(Cell::Bytes(vec![0xff])), header(Cell::Null)])),
            ("schema_id".into(), Cell::Null),
        ])
    );
    assert_eq!(column(&rows, 1, "_kafka.timestamp"), Cell::Null);
    assert_eq!(column(&rows, 1, "_kafka.timestamp_type"), Cell::Null);
    assert_eq!(column(&rows, 1, "_kafka.key"), Cell::Null);
    assert_eq!(column(&rows, 1, "_kafka.headers"), Cell::List(vec![]));
    assert_eq!(column(&rows, 2, "_kafka.timestamp"), Cell::Null);
    assert_eq!(column(&rows, 2, "_kafka.timestamp_type"), text("log_append_time"));
}

#[test]
fn a_topic_of_a_well_known_type() {
    let check = |message: &str, record: &[u8], expected: Cell, raw: bool| {
        let mut shredder = shredder(message, Options::default());
        assert_eq!(shredder.append(&batch([Some(record), None])), [], "{message}");
        let rows = take(&mut shredder);
        assert_eq!(column(&rows, 0, "value"), expected, "{message}");
        assert_eq!(column(&rows, 0, "_raw"), if raw { Cell::Bytes(record.to_vec()) } else { Cell::Null }, "{message}");
        assert_eq!(column(&rows, 1, "value"), Cell::Null, "{message}");
    };
    check("google.protobuf.Timestamp", b"", Cell::Int(0), false);
    check("google.protobuf.Timestamp", b"\x08\x01\x08\x02\x10\x01", Cell::Int(2_000_000), true);
    check("google.protobuf.Duration", b"\x10\xff\xff\xff\xff\xff\xff\xff\xff\xff\x01", Cell::Int(-1), true);
    check("google.protobuf.StringValue", b"\x0a\x01x", text("x"), false);
    check("google.protobuf.StringValue", b"", text(""), false);
    check("google.type.Date", b"\x08\xd0\x0f\x10\x02\x18\x1d", Cell::Int(11_016), false);
    check("google.type.Date", b"\x08\xd0\x0f", Cell::Null, true);
}

fn leaves(mapping: &Mapping) -> usize {
    fn of(shape: &Shape) -> usize {
        match shape {
            Shape::Leaf(_) => 1,
            Shape::Struct(shape) => shape.columns.iter().map(|column| of(&column.shape)).sum(),
            Shape::List(element) => 1 + of(element),
            Shape::Map { value, .. } => 2 + of(value),
        }
    }
    mapping.columns.iter().map(|column| of(&column.shape)).sum()
}

/// Bytes without sense, and sense with broken bytes: no panic, every record a row or a reject, memory bounded by a
/// small multiple of the input.
#[test]
fn hostile_bytes() {
    let corpus = Corpus::load();
    for (number, name) in MESSAGES.into_iter().enumerate() {
        let seed = 6 << 32 | number as u64;
        let mut rng = StdRng::seed_from_u64(seed);
        let mapping = corpus.mapping(name);
        let mut shredder = Shredder::new(&mapping, Options::default()).unwrap();
        for round in 0..20 {
            let records: Vec<Vec<u8>> = (0..100)
                .map(|index| {
                    let mut record = match index % 3 {
                        0 => (0..rng.random_range(0..200)).map(|_| rng.random()).collect(),
                        1 => (0..rng.random_range(0..200)).map(|_| rng.random_range(0..32)).collect(),
                        _ => generate::message(&corpus.pool, mapping.message, generate::Style::REFUSED, &mut rng),
                    };
                    for _ in 0..rng.random_range(0..4) {
                        let at = rng.random_range(0..=record.len());
                        match rng.random_range(0..3) {
                            0 => record.truncate(at),
                            1 => record.insert(at, [0, 1, 0x7f, 0x80, 0xff][rng.random_range(0..5)]),
                            _ => record.rotate_left(at),
                        }
                    }
                    record
                })
                .collect();
            let batch = batch(records.iter().map(|record| Some(record.as_slice())));
            let rejects = shredder.append(&batch);
            assert_eq!(shredder.rows() + rejects.len(), records.len(), "{name}, seed {seed}, round {round}");
            assert!(rejects.is_sorted_by_key(|reject| reject.record), "{name}, seed {seed}, round {round}");
            // A row, or two bytes of a record, cost each column at most an enumeration's name or a decimal.
            let announced = shredder.bytes();
            let bound = 40 * (shredder.rows() + batch.arena.len() / 2) * (leaves(&mapping) + 16);
            assert!(announced <= bound, "{name}, seed {seed}, round {round}: {announced} bytes");
            let batches = shredder.take().unwrap();
            let rows: usize = batches.iter().map(RecordBatch::num_rows).sum();
            assert_eq!(rows + rejects.len(), records.len(), "{name}, seed {seed}, round {round}");
            // What was announced is what it takes, but for spare capacity.
            let taken: usize = batches.iter().map(RecordBatch::get_array_memory_size).sum();
            assert!(taken <= 3 * announced + (1 << 20), "{name}, seed {seed}, round {round}: {taken} of {announced}");
        }
    }
}
