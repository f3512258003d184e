//! A live topic's schema changes between two starts of the daemon.

use std::time::Duration;

use serde_json::{Value, json};

use crate::support::broker::{Broker, Record};
use crate::support::engines;
use crate::support::project::Project;

const PROTO: &str = "proto/test/v1/event.proto";
const LOCAL: &str = "type = \"sql\"\nuri = \"sqlite:///warehouse/catalog.db\"\nwarehouse = \"warehouse\"\n";
const OTHERS: &str = "[topics.others]\ncatalog = \"local\"\nmessage = \"test.v1.Other\"\nschema = \"proto\"\n";

const BEFORE: &str = r#"syntax = "proto3";
package test.v1;
message Event {
  int64 id = 1;
  string name = 2;
  int32 amount = 3;
  Inner inner = 4;
  Color color = 5;
  string note = 6;
  map<string, Inner> parts = 7;
}
message Inner { double x = 1; }
enum Color { NONE = 0; RED = 1; }
message Other { int64 id = 1; }
"#;

/// `name` renamed, `amount` widened, fields added two levels down and inside a map, a value added to the enumeration,
/// `note` gone.
const AFTER: &str = r#"syntax = "proto3";
package test.v1;
message Event {
  int64 id = 1;
  int64 amount = 3;
  Inner inner = 4;
  string title = 2;
  Color color = 5;
  map<string, Inner> parts = 7;
}
message Inner { double x = 1; optional string unit = 2; Deep deep = 3; }
message Deep { repeated int32 levels = 1; }
enum Color { NONE = 0; RED = 1; GREEN = 2; }
message Other { int64 id = 1; }
"#;

fn varint(mut value: u64) -> Vec<u8> {
    let mut out = Vec::new();
    while value >= 0x80 {
        out.push(value as u8 | 0x80);
        value >>= 7;
    }
    out.push(value as u8);
    out
}

fn number(field: u8, value: i64) -> Vec<u8> {
    [vec![field << 3], varint(value as u64)].concat()
}

fn bytes(field: u8, value: &[u8]) -> Vec<u8> {
    [vec![field << 3 | 2], varint(value.len() as u64), value.to_vec()].concat()
}

fn double(field: u8, value: f64) -> Vec<u8> {
    [vec![field << 3 | 1], value.to_le_bytes().to_vec()].concat()
}

fn event_before(id: i64) -> Vec<u8> {
    let part = [bytes(1, b"left"), bytes(2, &double(1, 2.0))].concat();
    [
        number(1, id),
        bytes(2, format!("event {id}").as_bytes()),
        number(3, id * 10),
        bytes(4, &double(1, 0.5)),
        // Its name is not known yet.
        number(5, 2),
        bytes(6, b"a note"),
        bytes(7, &part),
    ]
    .concat()
}

fn event_after(id: i64) -> Vec<u8> {
    let inner = [double(1, 1.5), bytes(2, b"kg"), bytes(3, &bytes(1, &[7, 8]))].concat();
    let part = [bytes(1, b"right"), bytes(2, &inner)].concat();
    [
        number(1, id),
        bytes(2, format!("event {id}").as_bytes()),
        number(3, i64::from(i32::MAX) + id),
        bytes(4, &inner),
        number(5, 2),
        bytes(7, &part),
    ]
    .concat()
}

fn records(ids: std::ops::Range<i64>, value: impl Fn(i64) -> Vec<u8>) -> Vec<Record> {
    ids.map(|id| Record::new((id % 2) as i32, value(id))).collect()
}

/// The rows that DuckDB reads, by id, less the columns that calve adds.
fn rows(project: &Project, table: &str) -> Vec<Value> {
    let mut rows: Vec<Value> = engines::rows("duckdb", &project.metadata(table))
        .iter()
        .map(|row| {
            let mut row: Value = serde_json::from_str(row).unwrap();
            row.as_object_mut().unwrap().retain(|column, _| !column.starts_with('_'));
            row
        })
        .collect();
    rows.sort_by_key(|row| row["id"].as_i64());
    rows
}

fn metadata(project: &Project, table: &str) -> Value {
    serde_json::from_str(&std::fs::read_to_string(project.metadata(table)).unwrap()).unwrap()
}

fn bits(value: f64) -> String {
    format!("{:016x}", value.to_bits())
}

/// Runs the daemon until it has committed so many rows.
fn live(project: &Project, rows: u64) {
    let daemon = project.start();
    daemon.wait_for_rows("events", rows);
    assert_eq!(daemon.terminate(), 0);
}

#[test]
fn a_live_topic_evolves_and_every_row_reads_by_the_new_schema() {
    let broker = Broker::light();
    broker.create_topic("events", 2, &[]);
    let project = Project::new(&broker, "commit_interval = \"200ms\"\n");
    project.write(PROTO, BEFORE);
    broker.produce("events", &records(0..100, event_before));
    live(&project, 100);
    let before = metadata(&project, "bronze.events");

    // A schema alone changes nothing: it travels with the first data that needs it.
    project.write(PROTO, AFTER);
    let daemon = project.start();
    daemon.wait_for("partitions assigned", Duration::from_secs(30));
    std::thread::sleep(Duration::from_secs(1));
    assert_eq!(metadata(&project, "bronze.events"), before);
    broker.produce("events", &records(100..200, event_after));
    daemon.wait_for_rows("events", 100);
    assert_eq!(daemon.terminate(), 0);

    let after = metadata(&project, "bronze.events");
    // Their order in the file means nothing.
    let mut snapshots = after["snapshots"].as_array().unwrap().clone();
    snapshots.sort_by_key(|snapshot| snapshot["sequence-number"].as_i64());
    let schemas: Vec<i64> = snapshots.iter().map(|snapshot| snapshot["schema-id"].as_i64().unwrap()).collect();
    let first_new = snapshots.iter().find(|snapshot| snapshot["schema-id"] == after["current-schema-id"]).unwrap();
    assert!(schemas.is_sorted() && schemas[0] == before["current-schema-id"], "{schemas:?}");
    assert_ne!(before["current-schema-id"], after["current-schema-id"]);
    assert_eq!(first_new["parent-snapshot-id"], before["current-snapshot-id"]);
    assert_ne!(first_new["summary"]["added-records"], Value::Null, "the schema's commit brings rows: {first_new}");
    let logged = after["metadata-log"].as_array().unwrap().len();
    let commits = snapshots.len() - before["snapshots"].as_array().unwrap().len();
    assert_eq!(logged, before["metadata-log"].as_array().unwrap().len() + commits, "one commit a snapshot, no other");

    for (id, row) in (0..).zip(rows(&project, "bronze.events")) {
        let inner = |x, unit: Value, deep: Value| json!({"x": bits(x), "unit": unit, "deep": deep});
        let wanted = if id < 100 {
            let part = json!([["left", inner(2.0, Value::Null, Value::Null)]]);
            json!({"id": id, "title": format!("event {id}"), "amount": id * 10, "color": "2", "note": "a note",
                   "inner": inner(0.5, Value::Null, Value::Null), "parts": part})
        } else {
            let inner = inner(1.5, json!("kg"), json!({"levels": [7, 8]}));
            json!({"id": id, "title": format!("event {id}"), "amount": i64::from(i32::MAX) + id, "color": "GREEN",
                   "note": null, "inner": inner, "parts": [["right", inner]]})
        };
        assert_eq!(row, wanted, "row {id}");
    }
    assert_eq!(rows(&project, "bronze.events").len(), 200);
    let (code, out, errors) = project.calve(&["verify", "bronze.events"]);
    assert_eq!(code, 0, "{out}\n{errors}");
}

#[test]
fn an_incompatible_change_halts_its_topic_or_begins_a_new_column() {
    let broker = Broker::light();
    broker.create_topic("events", 2, &[]);
    broker.create_topic("others", 2, &[]);
    let project = Project::with(&broker, OTHERS, "", LOCAL);
    project.write(PROTO, BEFORE);
    broker.produce("events", &records(0..10, event_before));
    broker.produce("others", &records(0..10, |id| number(1, id)));
    project.catch_up();

    project.write(PROTO, &BEFORE.replace("int32 amount = 3", "string amount = 3"));
    let changed = |id: i64| [number(1, id), bytes(3, format!("{id} EUR").as_bytes())].concat();
    broker.produce("events", &records(10..20, changed));
    broker.produce("others", &records(10..30, |id| number(1, id)));
    let (code, out, errors) = project.calve(&["run", "--until-caught-up"]);
    assert_eq!(code, 1, "{out}\n{errors}");
    let halted = out.lines().find(|line| line.starts_with("events: halted: ")).unwrap_or_else(|| panic!("{out}"));
    for word in ["topic events", "bronze.events", "test.v1.Event.amount", "int", "string", "on_incompatible"] {
        assert!(halted.contains(word), "{word} is missing in: {halted}");
    }
    assert_eq!(rows(&project, "bronze.events").len(), 10, "the halted topic's table stays as it was");
    assert_eq!(rows(&project, "bronze.others").len(), 30, "the other goes on");

    project.edit("calve.toml", "[topics.events]\n", "[topics.events]\non_incompatible = \"new_column\"\n");
    project.catch_up();
    for (id, row) in (0..).zip(rows(&project, "bronze.events")) {
        let wanted = if id < 10 { (json!(id * 10), Value::Null) } else { (Value::Null, json!(format!("{id} EUR"))) };
        assert_eq!((&row["amount"], &row["amount_2"]), (&wanted.0, &wanted.1), "row {id}: {row}");
    }
    assert_eq!(rows(&project, "bronze.events").len(), 20);
    let (code, out, errors) = project.calve(&["verify", "bronze.events"]);
    assert_eq!(code, 0, "{out}\n{errors}");
}
