//! What options make of columns, shredded: other types, case columns, columns that are left out.

use std::collections::BTreeMap;

use arrow::array::RecordBatch;
use calve::batch::RejectCode;
use calve::config::{ColumnOptions, ColumnType, SchemaSource};
use calve::schema::mapping::{Mapping, Options};
use calve::schema::model::{Kind, MessageId, Pool};
use calve::shred::{self, Shredder, Tombstones};
use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};

use crate::support::cells::{self, Cell};
use crate::support::corpus::{Corpus, MESSAGES, batch, generate};

/// The mapping of `t.M` in a file.
fn mapping(body: &str, options: &Options) -> Mapping {
    let folder = tempfile::tempdir().unwrap();
    let imports =
        ["calve/v1/options", "google/protobuf/duration", "google/protobuf/timestamp", "google/protobuf/wrappers"];
    let imports: String = imports.map(|name| format!("import \"{name}.proto\";\n")).concat();
    let (syntax, body) = body.split_once(';').unwrap();
    std::fs::write(folder.path().join("t.proto"), format!("{syntax};\npackage t;\n{imports}{body}")).unwrap();
    let pool =
        calve::schema::load(&SchemaSource::Protos(folder.path().to_path_buf())).unwrap_or_else(|e| panic!("{e:#}"));
    let message = pool.find("t.M").unwrap();
    Mapping::create(pool, message, options)
        .unwrap_or_else(|faults| panic!("{}", faults.iter().map(|fault| format!("{fault}\n")).collect::<String>()))
}

/// The rows of the records, and which of them are rejects.
fn shred(mapping: &Mapping, records: &[&[u8]]) -> (RecordBatch, Vec<(usize, RejectCode)>) {
    let mut shredder = Shredder::new(mapping, shred::Options::default()).unwrap();
    let rejects = shredder.append(&batch(records.iter().map(|record| Some(*record))));
    let rejects = rejects.iter().map(|reject| (reject.record, reject.code)).collect();
    let rows = shredder.take().unwrap();
    (rows.into_iter().next().unwrap_or_else(|| RecordBatch::new_empty(mapping.arrow.clone())), rejects)
}

fn column(rows: &RecordBatch, name: &str) -> Vec<Cell> {
    let array = rows.column_by_name(name).unwrap_or_else(|| panic!("no column {name}"));
    (0..rows.num_rows()).map(|row| cells::cell(array, row)).collect()
}

/// Which rows have `_raw`, which is the record.
fn raw(rows: &RecordBatch, records: &[&[u8]]) -> Vec<bool> {
    let raw = column(rows, "_raw").into_iter().zip(records);
    raw.map(|(cell, record)| {
        assert!(cell == Cell::Null || cell == Cell::Bytes(record.to_vec()));
        cell != Cell::Null
    })
    .collect()
}

fn text(value: &str) -> Cell {
    Cell::Text(value.into())
}

#[test]
fn unsigned_numbers_in_a_long() {
    let mapping = mapping(
        "syntax = \"proto3\"; message M {
           uint64 a = 1 [(calve.v1.column).type = LONG];
           fixed64 b = 2 [(calve.v1.column).type = LONG];
           repeated uint64 c = 3 [(calve.v1.column).type = LONG];
           map<uint64, fixed64> d = 4 [(calve.v1.column).type = LONG];
           google.protobuf.UInt64Value e = 5 [(calve.v1.column).type = LONG];
         }",
        &Options::default(),
    );
    let most = [0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0x7f];
    let over = [0x80, 0x80, 0x80, 0x80, 0x80, 0x80, 0x80, 0x80, 0x80, 0x01];
    let fixed = |last: u8| [vec![0; 7], vec![last]].concat();
    let good = [
        vec![0x08],
        most.to_vec(),
        vec![0x11],
        fixed(0x7f),
        vec![0x1a, 10, 1],
        most.to_vec(),
        vec![0x22, 20, 0x08],
        over.to_vec(),
        vec![0x11],
        fixed(0x7f),
        vec![0x2a, 10, 0x08],
        most.to_vec(),
    ]
    .concat();
    let bad = [
        [vec![0x08], over.to_vec()].concat(),
        [vec![0x11], fixed(0x80)].concat(),
        [vec![0x1a, 10], over.to_vec()].concat(),
        [vec![0x18], over.to_vec()].concat(),
        [vec![0x22, 9, 0x11], fixed(0x80)].concat(),
        [vec![0x2a, 11, 0x08], over.to_vec()].concat(),
    ];
    let records: Vec<&[u8]> = std::iter::once(good.as_slice()).chain(bad.iter().map(Vec::as_slice)).collect();
    let (rows, rejects) = shred(&mapping, &records);
    assert_eq!(rejects, (1..7).map(|record| (record, RejectCode::OutOfRange)).collect::<Vec<_>>());
    let max = || Cell::Int(i64::MAX.into());
    assert_eq!(column(&rows, "a"), [max()]);
    assert_eq!(column(&rows, "b"), [Cell::Int(0x7f << 56)]);
    assert_eq!(column(&rows, "c"), [Cell::List(vec![Cell::Int(1), max()])]);
    assert_eq!(column(&rows, "d"), [Cell::Map(vec![(Cell::Int(1 << 63), Cell::Int(0x7f << 56))])]);
    assert_eq!(column(&rows, "e"), [max()]);
}

#[test]
fn times_in_a_long() {
    let mapping = mapping(
        "syntax = \"proto3\"; message M {
           google.protobuf.Timestamp micros = 1 [(calve.v1.column).type = LONG];
           google.protobuf.Timestamp millis = 2 [(calve.v1.column).type = MILLIS];
           repeated google.protobuf.Duration durations = 3 [(calve.v1.column).type = MILLIS];
         }",
        &Options::default(),
    );
    let minus_one = [0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0x01];
    let records: [&[u8]; 7] = [
        // 1 s and 1,000,000 ns, all of it in the columns.
        b"\x0a\x06\x08\x01\x10\xc0\x84\x3d\x12\x06\x08\x01\x10\xc0\x84\x3d\x1a\x06\x08\x01\x10\xc0\x84\x3d",
        // 1,000 ns more: not in milliseconds.
        b"\x0a\x06\x08\x01\x10\xa8\x8c\x3d",
        b"\x12\x06\x08\x01\x10\xa8\x8c\x3d",
        b"\x1a\x06\x08\x01\x10\xa8\x8c\x3d",
        // −1 s and 1 ns; −1 ns.
        &[&[0x12, 13, 0x08], minus_one.as_slice(), &[0x10, 1]].concat(),
        &[&[0x1a, 11, 0x10], minus_one.as_slice()].concat(),
        // Nanos beyond a second.
        b"\x12\x06\x10\x80\x94\xeb\xdc\x03",
    ];
    let (rows, rejects) = shred(&mapping, &records);
    assert_eq!(rejects, [(6, RejectCode::OutOfRange)]);
    let (int, null) = (Cell::Int, || Cell::Null);
    assert_eq!(column(&rows, "micros"), [int(1_001_000), int(1_001_001), null(), null(), null(), null()]);
    assert_eq!(column(&rows, "millis"), [int(1001), null(), int(1001), null(), int(-1000), null()]);
    let list = |values: &[i128]| Cell::List(values.iter().map(|value| Cell::Int(*value)).collect());
    assert_eq!(
        column(&rows, "durations"),
        [list(&[1001]), list(&[]), list(&[]), list(&[1001]), list(&[]), list(&[-1])]
    );
    assert_eq!(raw(&rows, &records), [false, false, true, true, true, true]);
}

#[test]
fn enums_as_numbers() {
    let mapping = mapping(
        "syntax = \"proto2\"; enum E { ONE = 1; TWO = 2; } message M { optional E a = 1 [(calve.v1.column).type = INT]; }",
        &Options::default(),
    );
    let records: [&[u8]; 3] = [b"\x08\x02", b"\x08\x03", b""];
    let (rows, rejects) = shred(&mapping, &records);
    assert_eq!(rejects, []);
    assert_eq!(column(&rows, "a"), [Cell::Int(2), Cell::Null, Cell::Null]);
    assert_eq!(raw(&rows, &records), [false, true, false]);
}

const ONEOFS: &str = "syntax = \"proto2\";
    enum E { ONE = 1; }
    message M {
      oneof pick { option (calve.v1.oneof).case_column = true; int32 x = 1; string y = 2; M z = 3; E e = 4; }
      repeated R list = 5;
    }
    message R { oneof kind { int32 u = 1; bytes v = 2; } }";

fn excluding(paths: &[&str]) -> Options {
    Options { exclude: paths.iter().map(|path| path.to_string()).collect(), ..Options::default() }
}

#[test]
fn which_member_is_set() {
    let case = ColumnOptions { case_column: Some(true), ..ColumnOptions::default() };
    let options = Options { columns: BTreeMap::from([("list.kind".to_string(), case)]), ..excluding(&["z"]) };
    let mapping = mapping(ONEOFS, &options);
    let records: [&[u8]; 8] = [
        b"\x08\x00",
        b"\x12\x01a",
        b"",
        // A later member clears the earlier; what was cleared needs no `_raw`.
        b"\x08\x01\x12\x01a",
        // The one that is left out clears the others, too, and is named.
        b"\x12\x01a\x1a\x02\x08\x01",
        b"\x1a\x02\x08\x01\x12\x01a",
        // No member of the closed enumeration: an unknown field.
        b"\x08\x07\x20\x05",
        b"\x2a\x02\x08\x01\x2a\x00\x2a\x05\x08\x01\x12\x01b",
    ];
    let mut shredder =
        Shredder::new(&mapping, shred::Options { tombstones: Tombstones::Row, ..Default::default() }).unwrap();
    assert_eq!(shredder.append(&batch(records.into_iter().map(Some).chain([None]))), []);
    let rows = shredder.take().unwrap().remove(0);
    let (x, y, z, null) = (|| text("x"), || text("y"), || text("z"), || Cell::Null);
    assert_eq!(column(&rows, "pick_case"), [x(), y(), null(), y(), z(), y(), x(), null(), null()]);
    let a = || text("a");
    assert_eq!(column(&rows, "y"), [null(), a(), null(), a(), null(), a(), null(), null(), null()]);
    assert_eq!(column(&rows, "x")[..7], [Cell::Int(0), null(), null(), null(), null(), null(), Cell::Int(7)]);
    let raw: Vec<bool> = column(&rows, "_raw").iter().map(|cell| *cell != Cell::Null).collect();
    assert_eq!(raw, [false, false, false, false, true, false, true, false, false]);
    let element =
        |u: Cell, v: Cell, kind: Cell| Cell::Struct(vec![("u".into(), u), ("v".into(), v), ("kind_case".into(), kind)]);
    let elements = vec![
        element(Cell::Int(1), null(), text("u")),
        element(null(), null(), null()),
        element(null(), Cell::Bytes(b"b".to_vec()), text("v")),
    ];
    assert_eq!(column(&rows, "list")[7], Cell::List(elements));
}

#[test]
fn a_closed_enum_that_is_left_out_is_a_member_only_with_a_name() {
    let mapping = mapping(ONEOFS, &excluding(&["e", "z"]));
    let records: [&[u8]; 3] = [b"\x08\x07\x20\x05", b"\x08\x07\x20\x01", b"\x20\x01\x08\x07"];
    let (rows, rejects) = shred(&mapping, &records);
    assert_eq!(rejects, []);
    assert_eq!(column(&rows, "pick_case"), [text("x"), text("e"), text("x")]);
    assert_eq!(column(&rows, "x"), [Cell::Int(7), Cell::Null, Cell::Int(7)]);
    assert_eq!(raw(&rows, &records), [true, true, false]);
}

#[test]
fn what_is_left_out_is_not_decoded() {
    let mapping = mapping(
        "syntax = \"proto2\"; message M { optional string name = 1; optional R part = 2; required int32 n = 3; optional int32 kept = 4; }
         message R { required int32 id = 1; }",
        &excluding(&["name", "part", "n"]),
    );
    let records: [&[u8]; 7] = [
        b"\x20\x07",
        // Neither UTF-8 nor required fields are looked at.
        b"\x0a\x01\xff\x20\x07",
        b"\x12\x00\x20\x07",
        b"\x12\x01\xff\x20\x07",
        b"\x18\x01\x20\x07",
        // But where a field ends must be known.
        b"\x20\x07\x0a\x05a",
        b"\x20\x07\x18\xff",
    ];
    let (rows, rejects) = shred(&mapping, &records);
    assert_eq!(rejects, [(5, RejectCode::Truncated), (6, RejectCode::Truncated)]);
    assert_eq!(column(&rows, "kept"), vec![Cell::Int(7); 5]);
    assert_eq!(raw(&rows, &records), [false, true, true, true, true]);
}

/// Paths of fields, as deep as three levels.
fn paths(pool: &Pool, message: MessageId, prefix: &str, depth: usize, found: &mut Vec<String>) {
    for field in &pool.message(message).fields {
        let path = format!("{prefix}{}", field.name);
        found.push(path.clone());
        if let (Kind::Message(id), true) = (field.kind, depth < 3)
            && !pool.message(id).full_name.starts_with("google.")
        {
            paths(pool, id, &format!("{path}."), depth + 1, found);
        }
    }
}

/// Whether what is there of a cell is the same in the whole row's.
fn agree(cell: &Cell, whole: &Cell) -> bool {
    match (cell, whole) {
        (Cell::Struct(fields), Cell::Struct(all)) => fields.iter().all(|(name, cell)| {
            let same = all.iter().find(|(other, _)| other == name);
            same.map_or(name == "_present" && *cell == Cell::Bool(true), |(_, whole)| agree(cell, whole))
        }),
        (Cell::List(cells), Cell::List(all)) => {
            cells.len() == all.len() && cells.iter().zip(all).all(|(cell, whole)| agree(cell, whole))
        }
        (Cell::Map(cells), Cell::Map(all)) => {
            let same =
                |((key, value), (other, whole)): (&(Cell, Cell), &(Cell, Cell))| key == other && agree(value, whole);
            cells.len() == all.len() && cells.iter().zip(all).all(same)
        }
        _ => cell == whole,
    }
}

/// With any fields left out, what is left is what it is with all of them, and a record that is a row stays one.
#[test]
fn columns_do_not_depend_on_those_that_are_left_out() {
    let corpus = Corpus::load();
    for (number, name) in MESSAGES.into_iter().enumerate() {
        let seed = 58610 << 8 | number as u64;
        let mut rng = StdRng::seed_from_u64(seed);
        let whole = corpus.mapping(name);
        let mut all = Vec::new();
        paths(&corpus.pool, whole.message, "", 1, &mut all);
        for round in 0..6 {
            let share = rng.random_range(0.05..0.6);
            let mut exclude: Vec<String> = all.iter().filter(|_| rng.random_bool(share)).cloned().collect();
            exclude.dedup_by(|path, before| path.starts_with(&format!("{before}.")));
            let some = Mapping::create(corpus.pool.clone(), whole.message, &Options { exclude, ..Options::default() });
            // All of them left out is no table.
            let Ok(some) = some else { continue };
            let style = [generate::Style::PLAIN, generate::Style::REFUSED][round % 2];
            let records: Vec<Vec<u8>> =
                (0..100).map(|_| generate::message(&corpus.pool, whole.message, style, &mut rng)).collect();
            let records: Vec<&[u8]> = records.iter().map(Vec::as_slice).collect();
            let ((rows, rejects), (expected, refused)) = (shred(&some, &records), shred(&whole, &records));
            let at = |rejects: &[(usize, RejectCode)]| {
                let is_row = |record: &usize| rejects.iter().all(|(other, _)| other != record);
                (0..records.len()).filter(is_row).collect::<Vec<_>>()
            };
            let (found, known) = (at(&rejects), at(&refused));
            for (row, record) in known.iter().enumerate() {
                let Some(here) = found.iter().position(|other| other == record) else {
                    panic!("{name}, seed {seed}, round {round}: record {record} is no row any more");
                };
                let whole = cells::row(&expected, row);
                for (column, cell) in cells::row(&rows, here).into_iter().filter(|(column, _)| column != "_raw") {
                    let (_, whole) = whole.iter().find(|(other, _)| *other == column).unwrap();
                    assert!(
                        agree(&cell, whole),
                        "{name}, seed {seed}, round {round}: {column} is {cell:?}, not {whole:?}"
                    );
                }
            }
        }
    }
}

#[test]
fn the_type_of_a_column_can_be_given_by_path() {
    let long = ColumnOptions { kind: Some(ColumnType::Long), ..ColumnOptions::default() };
    let options = Options { columns: BTreeMap::from([("list.n".to_string(), long)]), ..Options::default() };
    let mapping = mapping(
        "syntax = \"proto3\"; message M { R one = 1; repeated R list = 2; } message R { uint64 n = 1; }",
        &options,
    );
    let over: &[u8] = &[0x0a, 11, 0x08, 0x80, 0x80, 0x80, 0x80, 0x80, 0x80, 0x80, 0x80, 0x80, 0x01];
    let in_list = [&[0x12], &over[1..]].concat();
    let (rows, rejects) = shred(&mapping, &[over, &in_list]);
    assert_eq!(rejects, [(1, RejectCode::OutOfRange)]);
    assert_eq!(column(&rows, "one"), [Cell::Struct(vec![("n".into(), Cell::Int(1 << 63))])]);
}

#[test]
fn messages_as_json() {
    let mapping = mapping(
        "syntax = \"proto3\"; message M {
           R one = 1 [(calve.v1.column).type = JSON];
           repeated R list = 2 [(calve.v1.column).type = JSON];
           google.protobuf.Timestamp at = 3 [(calve.v1.column).type = JSON];
         }
         message R { uint64 big_number = 1; string text = 2; }",
        &Options::default(),
    );
    let records: [&[u8]; 3] =
        [b"\x0a\x02\x08\x07\x12\x03\x12\x01x\x12\x00\x1a\x02\x08\x01", b"", b"\x1a\x06\x10\x80\x94\xeb\xdc\x03"];
    let (rows, rejects) = shred(&mapping, &records);
    // What Protobuf's JSON refuses.
    assert_eq!(rejects, [(2, RejectCode::OutOfRange)]);
    assert_eq!(column(&rows, "one"), [text("{\"bigNumber\":\"7\"}"), Cell::Null]);
    assert_eq!(column(&rows, "list")[0], Cell::List(vec![text("{\"text\":\"x\"}"), text("{}")]));
    assert_eq!(column(&rows, "at"), [text("\"1970-01-01T00:00:01Z\""), Cell::Null]);
    assert_eq!(raw(&rows, &records[..2]), [false, false]);
}
