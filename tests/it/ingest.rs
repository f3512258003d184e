//! A topic becomes a table, exactly once: the daemon as a process, on the light broker.

use std::time::{Duration, Instant};

use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};

use iceberg::spec::Operation;
use serde_json::{Value, json};

use crate::support::broker::{Broker, Record};
use crate::support::engines;
use crate::support::lake::Lake;
use crate::support::project::{Project, damaged, event};

fn records(partitions: i32, ids: std::ops::Range<i64>) -> Vec<Record> {
    ids.map(|id| Record::new((id % i64::from(partitions)) as i32, event(id)).key(format!("key-{id}"))).collect()
}

#[test]
fn everything_up_to_the_ends_is_committed_and_a_second_run_adds_nothing() {
    let broker = Broker::light();
    broker.create_topic("events", 3, &[]);
    broker.produce("events", &records(3, 0..5000));
    let project = Project::new(&broker, "");
    project.catch_up();
    project.assert_exactly_once(&broker, "events");
    let before = project.metadata("bronze.events");
    project.catch_up();
    assert_eq!(project.metadata("bronze.events"), before, "a run without news commits nothing");
    broker.produce("events", &records(3, 5000..5100));
    project.catch_up();
    project.assert_exactly_once(&broker, "events");
    let (code, out, errors) =
        project.calve(&["query", "--format", "csv", "SELECT count(*) AS n, max(id) AS m FROM bronze.events"]);
    assert_eq!((code, out.as_str()), (0, "n,m\n5100,5099\n"), "{errors}");
}

#[test]
fn aborted_transactions_never_reach_a_table_and_control_records_lie_inside_ranges() {
    let broker = Broker::light();
    broker.create_topic("events", 2, &[]);
    broker.transaction("t1", "events", &records(2, 0..300), true);
    broker.transaction("t2", "events", &records(2, 300..600), false);
    broker.transaction("t3", "events", &records(2, 600..900), true);
    broker.transaction("t4", "events", &records(2, 900..950), false);
    let project = Project::new(&broker, "");
    project.catch_up();
    project.assert_exactly_once(&broker, "events");
    assert_eq!(project.offsets("bronze.events").len(), 600);
    // The ledger is at the end, past the last aborted transaction and its marker: a second run reads nothing.
    let before = project.metadata("bronze.events");
    project.catch_up();
    assert_eq!(project.metadata("bronze.events"), before);
}

#[test]
fn what_cannot_be_decoded_is_a_row_of_the_quarantine_table() {
    let broker = Broker::light();
    broker.create_topic("events", 2, &[]);
    let mut all = records(2, 0..1000);
    for (at, record) in all.iter_mut().enumerate() {
        if at % 10 == 3 {
            record.value = Some(damaged(at as i64));
        }
        if at % 50 == 7 {
            record.value = None;
        }
    }
    broker.produce("events", &all);
    let keys = "snapshot_properties = { team = \"sales\", \"cost.centre\" = \"42\" }\n";
    let project = Project::new(&broker, keys);
    project.catch_up();
    project.assert_exactly_once(&broker, "events");
    let sql = "SELECT error, count(*) AS n FROM bronze.events__quarantine GROUP BY error";
    let (code, out, errors) = project.calve(&["query", "--format", "csv", sql]);
    assert_eq!((code, out.as_str()), (0, "error,n\ntruncated,100\n"), "{errors}");
    for table in ["bronze.events", "bronze.events__quarantine"] {
        let metadata = std::fs::read_to_string(project.metadata(table)).unwrap();
        let metadata: Value = serde_json::from_str(&metadata).unwrap();
        let snapshots = metadata["snapshots"].as_array().unwrap();
        let summaries: Vec<&Value> = snapshots.iter().map(|snapshot| &snapshot["summary"]).collect();
        assert!(!summaries.is_empty(), "{table} has no snapshot");
        for summary in summaries {
            assert_eq!((&summary["team"], &summary["cost.centre"]), (&json!("sales"), &json!("42")), "{table}");
        }
    }
}

const ANNOTATED: &str = r#"syntax = "proto3";
package shop.v1;
import "calve/v1/options.proto";
import "google/protobuf/timestamp.proto";
message Other {}
message Order {
  option (calve.v1.table) = { name: "sales.orders", partition_by: "day(placed_at)", description: "what was sold" };
  uint64 id = 1 [(calve.v1.column).type = LONG];
  google.protobuf.Timestamp placed_at = 2;
  State state = 3 [(calve.v1.column).type = INT];
  string secret = 4 [(calve.v1.column).exclude = true];
  oneof payment { option (calve.v1.oneof).case_column = true; string card = 5; uint64 cash = 6; }
  Address address = 7;
}
message Address { string city = 1; string street = 2; }
enum State { NEW = 0; PAID = 1; }
"#;

/// Read back by DuckDB: a topic in Confluent's framing, options of the schema and of calve.toml, a wrong frame.
#[test]
fn framed_records_become_the_columns_that_the_options_choose() {
    let broker = Broker::light();
    broker.create_topic("events", 1, &[]);
    let plain = b"\x08\x05\x12\x02\x08\x01\x18\x01\x2a\x04visa\x3a\x04\x0a\x02Lu";
    let pruned = b"\x08\x06\x22\x01x\x30\x07\x3a\x04\x12\x02St";
    let framed = |id: u8, indexes: &[u8], message: &[u8]| [&[0, 0, 0, 1, id], indexes, message].concat();
    let values = [
        framed(2, &[2, 2], plain),
        framed(3, &[2, 2], pruned),
        framed(4, &[0], plain),
        plain.to_vec(),
        framed(5, &[2, 2], b"\x08\xff"),
    ];
    broker.produce("events", &values.map(|value| Record::new(0, value).timestamp(1_700_000_000_000)));
    let keys =
        "framing = \"confluent\"\nexclude = [\"address.street\"]\n[topics.events.columns]\ncash.type = \"long\"\n";
    let project = Project::new(&broker, keys);
    project.edit("calve.toml", "test.v1.Event", "shop.v1.Order");
    project.write("proto/shop/v1/order.proto", ANNOTATED);
    project.catch_up();

    let column = |row: &str, path: &[&str]| -> Value {
        let row: Value = serde_json::from_str(row).unwrap();
        path.iter().fold(row, |value, name| value[*name].clone())
    };
    let mut rows = engines::rows("duckdb", &project.metadata("sales.orders"));
    rows.sort_by_key(|row| column(row, &["id"]).as_i64());
    let all = |path: &[&str]| -> Vec<Value> { rows.iter().map(|row| column(row, path)).collect() };
    assert_eq!(all(&["id"]), [json!(5), json!(6)]);
    assert_eq!(all(&["placed_at"]), [json!("micros 1000000"), json!(null)]);
    assert_eq!(all(&["state"]), [json!(1), json!(0)]);
    assert_eq!(all(&["card"]), [json!("visa"), json!(null)]);
    assert_eq!(all(&["cash"]), [json!(null), json!(7)]);
    assert_eq!(all(&["payment_case"]), [json!("card"), json!("cash")]);
    assert_eq!(all(&["address"]), [json!({"city": "Lu"}), json!({"city": ""})]);
    assert_eq!(all(&["_kafka", "schema_id"]), [json!(258), json!(259)]);
    let hex: String = framed(3, &[2, 2], pruned).iter().map(|byte| format!("{byte:02x}")).collect();
    assert_eq!(all(&["_raw"]), [json!(null), json!(hex)]);
    assert!(rows.iter().all(|row| column(row, &["secret"]).is_null() && !row.contains("secret")));

    let mut rejects = engines::rows("duckdb", &project.metadata("sales.orders__quarantine"));
    rejects.sort_by_key(|row| column(row, &["_kafka", "offset"]).as_i64());
    let all = |path: &[&str]| -> Vec<Value> { rejects.iter().map(|row| column(row, path)).collect() };
    assert_eq!(all(&["error"]), [json!("unknown_message"), json!("bad_frame"), json!("truncated")]);
    assert_eq!(all(&["_kafka", "schema_id"]), [json!(260), json!(null), json!(261)]);
    assert_eq!(all(&["detail"])[1], json!("the value starts with the byte 8, not with 0"));

    let metadata = std::fs::read_to_string(project.metadata("sales.orders")).unwrap();
    let metadata: Value = serde_json::from_str(&metadata).unwrap();
    assert_eq!(metadata["properties"]["comment"], json!("what was sold"));
    assert_eq!(metadata["partition-specs"][0]["fields"][0]["name"], json!("placed_at_day"));
    let (code, out, errors) = project.calve(&["verify", "--deep", "sales.orders"]);
    assert_eq!(code, 0, "{out}\n{errors}");

    // Another choice for a column that the table has.
    project.edit(
        "calve.toml",
        "cash.type = \"long\"",
        "state.type = \"default\"\n\"adress.street\" = { exclude = true }",
    );
    let (code, _, errors) = project.calve(&["validate"]);
    assert_eq!(code, 2, "{errors}");
    assert!(errors.contains("calve.toml:") && errors.contains("did you mean `address`?"), "{errors}");
    project.edit("calve.toml", "\"adress.street\" = { exclude = true }", "cash.type = \"long\"");
    broker.produce("events", &[Record::new(0, framed(2, &[2, 2], plain))]);
    let (code, _, errors) = project.calve(&["run", "--until-caught-up"]);
    assert_eq!(code, 1, "{errors}");
    assert!(errors.contains("the field's column type is string, the table's column is int"), "{errors}");
}

#[test]
fn sigterm_commits_what_was_read_and_exits_with_0() {
    let broker = Broker::light();
    broker.create_topic("events", 2, &[]);
    broker.produce("events", &records(2, 0..2000));
    let project = Project::new(&broker, "commit_interval = \"1h\"\n");
    let daemon = project.start();
    daemon.wait_for("partitions assigned", Duration::from_secs(30));
    std::thread::sleep(Duration::from_millis(1500));
    assert_eq!(daemon.terminate(), 0);
    project.assert_exactly_once(&broker, "events");
}

#[test]
fn a_start_later_than_the_log_is_kept_by_the_ledger() {
    let broker = Broker::light();
    broker.create_topic("events", 2, &[]);
    broker.produce("events", &records(2, 0..100));
    let project = Project::new(&broker, "start = \"latest\"\n");
    project.catch_up();
    // Nothing was there to read, yet where it begins is on record: what comes now is not skipped by the next start.
    broker.produce("events", &records(2, 100..150));
    project.catch_up();
    assert_eq!(project.offsets("bronze.events").len(), 50);
    let (code, out, errors) = project.calve(&["verify", "bronze.events"]);
    assert_eq!(code, 0, "{out}\n{errors}");
}

#[test]
fn start_by_time_begins_at_the_first_record_as_late_as_that() {
    let broker = Broker::light();
    broker.create_topic("events", 1, &[]);
    let base = 1_790_000_000_000;
    let stamped: Vec<Record> = (0..100).map(|id| Record::new(0, event(id)).timestamp(base + id * 1000)).collect();
    broker.produce("events", &stamped);
    // base + 40 s.
    let project = Project::new(&broker, "start = \"2026-09-21T14:14:00Z\"\n");
    let wanted = stamped.iter().filter(|record| record.timestamp_ms.unwrap() >= 1_790_000_040_000).count();
    project.catch_up();
    assert_eq!(project.offsets("bronze.events").len(), wanted);
}

/// Back to a snapshot that is older than its first row. Nobody produces anything after: the daemon finds out by itself.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_table_that_was_rolled_back_is_filled_again_though_its_topic_is_quiet() {
    let broker = Broker::light();
    broker.create_topic("events", 2, &[]);
    let project = Project::new(&broker, "commit_interval = \"100ms\"\n");
    project.catch_up();
    let lake = Lake::of_project(project.path()).await;
    let theirs = lake.publish("bronze.events", Operation::Append, Vec::new()).await;
    let daemon = project.start();
    let mut all = records(2, 0..500);
    all.extend([Record::new(0, damaged(500)), Record::new(1, damaged(501))]);
    broker.produce("events", &all);
    daemon.wait_for_rows("events", 500);
    lake.roll_back("bronze.events", theirs).await;
    assert_eq!(lake.rows("SELECT count(*) FROM bronze.events").await, ["0"]);
    let (code, out, _) = project.calve(&["verify", "bronze.events"]);
    assert_eq!(code, 0, "an empty table with an empty ledger is whole: {out}");
    // It looks once a minute.
    let deadline = Instant::now() + Duration::from_secs(90);
    while lake.rows("SELECT count(*) FROM bronze.events").await != ["500"] {
        assert!(Instant::now() < deadline, "{}", daemon.log());
        tokio::time::sleep(Duration::from_millis(500)).await;
    }
    daemon.wait_for("the ledger moved: the table was rolled back", Duration::from_secs(1));
    assert_eq!(daemon.terminate(), 0);
    project.assert_exactly_once(&broker, "events");
}

#[test]
fn a_recreated_topic_halts_and_the_other_topic_goes_on() {
    let broker = Broker::light();
    broker.create_topic("events", 1, &[]);
    broker.create_topic("others", 1, &[]);
    broker.produce("events", &records(1, 0..50));
    broker.produce("others", &records(1, 0..50));
    let project = Project::with(&broker, OTHERS, "", LOCAL);
    project.catch_up();
    broker.recreate_topic("events", 1);
    broker.produce("events", &records(1, 0..200));
    broker.produce("others", &records(1, 50..80));
    let (code, out, errors) = project.calve(&["run", "--until-caught-up"]);
    assert_eq!(code, 1, "{out}\n{errors}");
    assert!(errors.contains("made again") || errors.contains("recreated"), "{errors}");
    project.assert_exactly_once_in(&broker, "others", "bronze.others");
    assert_eq!(project.offsets("bronze.events").len(), 50, "the halted topic's table stays as it was");
}

/// The consumer notices nothing when the new log is as long as the old one; the broker's topic id tells.
#[test]
fn a_topic_recreated_under_a_running_daemon_gives_nothing_to_the_table() {
    let broker = Broker::light();
    broker.create_topic("events", 1, &[]);
    broker.produce("events", &records(1, 0..50));
    let project = Project::new(&broker, "commit_interval = \"200ms\"\n");
    let daemon = project.start();
    daemon.wait_for("committed", Duration::from_secs(30));
    broker.recreate_topic("events", 1);
    broker.produce("events", &records(1, 1000..1200));
    daemon.wait_for("recreated", Duration::from_secs(60));
    daemon.kill();
    assert_eq!(project.offsets("bronze.events").len(), 50, "the table holds the old log and nothing else");
}

#[test]
fn offsets_that_are_gone_halt_the_topic_until_someone_accepts_it() {
    let broker = Broker::light();
    broker.create_topic("events", 1, &[]);
    broker.produce("events", &records(1, 0..50));
    let project = Project::new(&broker, "");
    project.catch_up();
    broker.produce("events", &records(1, 50..200));
    broker.delete_records("events", 0, 120);
    let (code, _, errors) = project.calve(&["run", "--until-caught-up"]);
    assert_eq!(code, 1, "{errors}");
    assert!(errors.contains("70 offsets are gone") && errors.contains("calve ledger reset bronze.events"), "{errors}");
    let (code, out, errors) = project.calve(&["ledger", "reset", "bronze.events"]);
    assert_eq!(code, 0, "{out}\n{errors}");
    project.catch_up();
    assert_eq!(project.offsets("bronze.events").len(), 50 + 80);
}

#[test]
fn a_message_that_is_not_in_the_schema_is_a_usage_error_with_the_nearest_name() {
    let broker = Broker::light();
    let project = Project::new(&broker, "");
    project.edit("calve.toml", "test.v1.Event", "test.v1.Evnt");
    let (code, _, errors) = project.calve(&["validate"]);
    assert_eq!(code, 2, "{errors}");
    assert!(errors.contains("test.v1.Event"), "{errors}");
}

const OTHERS: &str = "[topics.others]\ncatalog = \"local\"\nmessage = \"test.v1.Event\"\nschema = \"proto\"\n";
const LOCAL: &str = "type = \"sql\"\nuri = \"sqlite:///warehouse/catalog.db\"\nwarehouse = \"warehouse\"\n";

#[test]
fn a_topic_that_does_not_exist_fails_at_once_and_the_others_go_on() {
    let broker = Broker::light();
    broker.create_topic("others", 1, &[]);
    broker.produce("others", &records(1, 0..50));
    let project = Project::with(&broker, OTHERS, "", LOCAL);
    let started = Instant::now();
    let (code, out, errors) = project.calve(&["run", "--until-caught-up"]);
    assert_eq!(code, 1, "{out}\n{errors}");
    assert!(started.elapsed() < Duration::from_secs(30), "took {:?}", started.elapsed());
    let said = format!("events: halted: topic events does not exist on the broker at {}", broker.bootstrap_servers());
    assert!(out.contains(&said) && out.contains("create it, or correct its name in calve.toml"), "{out}");
    project.assert_exactly_once_in(&broker, "others", "bronze.others");
    assert!(!project.path().join("warehouse/bronze/events").exists(), "a wrong name leaves no table behind");
}

#[test]
fn a_daemon_waits_for_a_topic_that_is_created_later() {
    let broker = Broker::light();
    broker.create_topic("others", 1, &[]);
    let project = Project::with(&broker, OTHERS, "commit_interval = \"200ms\"\n", LOCAL);
    let daemon = project.start();
    daemon.wait_for("topic events does not exist", Duration::from_secs(30));
    let status: serde_json::Value = serde_json::from_str(&daemon.get("/status")).unwrap();
    assert_eq!(status["topics"]["events"]["state"], "retrying");
    assert!(status["topics"]["events"]["reason"].as_str().unwrap().contains("does not exist"), "{status}");
    broker.create_topic("events", 2, &[]);
    broker.produce("events", &records(2, 0..300));
    daemon.wait_for("table=bronze.events", Duration::from_secs(60));
    daemon.wait_for_rows("events", 300);
    assert_eq!(daemon.terminate(), 0);
    project.assert_exactly_once(&broker, "events");
}

#[test]
fn a_topic_of_nothing_but_damage_stays_within_the_memory_limit() {
    let broker = Broker::light();
    broker.create_topic("events", 2, &[]);
    let mut random = StdRng::seed_from_u64(7);
    let mut value = || {
        // Wire type 7 does not exist; the rest does not compress.
        let mut value = vec![0x07];
        value.extend((0..1000).map(|_| random.random::<u8>()));
        value
    };
    const RECORDS: usize = 60_000;
    for _ in 0..RECORDS / 5000 {
        let records: Vec<Record> = (0..5000).map(|id| Record::new(id % 2, value())).collect();
        broker.produce("events", &records);
    }
    // 60 MB against 16 MiB; commits come when memory or a file is full, not by time.
    let project = Project::new(&broker, "commit_interval = \"1h\"\nfile_size_target = \"20MiB\"\n");
    project.edit("calve.toml", "[daemon]\n", "[daemon]\nmemory_limit = \"16MiB\"\n");
    let daemon = project.start();
    let deadline = Instant::now() + Duration::from_secs(120);
    let (mut peak, mut read) = (0, 0);
    while read < RECORDS as u64 {
        let metrics = daemon.get("/metrics");
        let value = |series: &str| -> u64 {
            let line = metrics.lines().find_map(|line| line.strip_prefix(series)?.strip_prefix(' '));
            line.map_or(0, |value| value.parse().unwrap())
        };
        peak = peak.max(
            value("calve_memory_used_bytes{part=\"fetched\"}") + value("calve_memory_used_bytes{part=\"writing\"}"),
        );
        read = value("calve_rejected_records_total{topic=\"events\",code=\"bad_tag\"}");
        assert!(Instant::now() < deadline, "{read} of {RECORDS}\n{}", daemon.log());
        std::thread::sleep(Duration::from_millis(20));
    }
    println!("peak of buffers: {peak} bytes");
    assert!(peak > 0 && peak <= 16 << 20, "{peak} bytes are buffered");
    assert_eq!(daemon.terminate(), 0);
    project.assert_exactly_once(&broker, "events");
    assert_eq!(project.offsets("bronze.events__quarantine").len(), RECORDS);
}
