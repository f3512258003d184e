//! `calve verify`: what is right is said to be, and what somebody spoiled is found and named.

use iceberg::spec::Operation;

use crate::support::broker::{Broker, Record};
use crate::support::lake::Lake;
use crate::support::project::{PROTO, Project, damaged, event};

const TABLE: &str = "bronze.events";
const QUARANTINE: &str = "bronze.events__quarantine";

/// Rows, rejects and tombstones, of offsets 0 to 499 in each of two partitions.
fn records() -> Vec<Record> {
    let record = |id: i64| {
        let value = if id % 20 == 6 { damaged(id) } else { event(id) };
        let record = Record::new((id % 2) as i32, value).key(format!("key-{id}")).header("h", Some(b"v"));
        if id % 50 == 9 { Record::tombstone((id % 2) as i32, format!("key-{id}")) } else { record }
    };
    (0..1000).map(record).collect()
}

fn filled() -> (Broker, Project) {
    let broker = Broker::light();
    broker.create_topic("events", 2, &[]);
    broker.produce("events", &records());
    let project = Project::new(&broker, "");
    project.catch_up();
    (broker, project)
}

#[track_caller]
fn check(project: &Project, arguments: &[&str], code: i32, words: &[&str]) {
    let (exit, out, errors) = project.calve(&[&["verify"], arguments].concat());
    assert_eq!(exit, code, "{arguments:?}: {out}\n{errors}");
    for word in words {
        assert!(format!("{out}{errors}").contains(word), "{arguments:?} does not say {word:?}: {out}\n{errors}");
    }
}

#[test]
fn a_good_table_agrees_with_its_ledger_and_with_the_log() {
    let (_broker, project) = filled();
    check(&project, &[TABLE], 0, &["verified: each record once"]);
    check(&project, &[QUARANTINE], 0, &["verified: each record once"]);
    check(
        &project,
        &[TABLE, "--deep"],
        0,
        &["1,000 records read, 950 rows and 50 rejects compared", "equal to the log"],
    );

    let (code, out, errors) = project.calve(&["-o", "json", "verify", TABLE, "--deep"]);
    assert_eq!(code, 0, "{errors}");
    let json: serde_json::Value = serde_json::from_str(&out).unwrap();
    assert_eq!(json["agrees"], true);
    assert_eq!(json["topics"][0]["rows"], 950);
    assert_eq!((&json["deep"]["records"], &json["deep"]["rejects"]), (&1000.into(), &50.into()));
    assert_eq!(json["deep"]["partitions"][1]["to"], 500);
    assert_eq!(json["words"], serde_json::json!([]));
}

#[tokio::test(flavor = "multi_thread")]
async fn columns_that_came_later_or_went_are_no_difference() {
    let (broker, project) = filled();
    let grown =
        PROTO.replace("message Inner {", "string extra = 6; repeated int64 more = 7; message Inner { bool b = 9;");
    project.write("proto/test/v1/event.proto", &grown);
    check(&project, &[TABLE, "--deep"], 0, &["equal to the log"]);
    let newer: Vec<Record> = (0..100).map(|id| Record::new(0, event(id))).collect();
    broker.produce("events", &newer);
    project.catch_up();
    check(&project, &[TABLE, "--deep"], 0, &["1,100 records read", "equal to the log"]);
    // Old rows in a file that has the new columns.
    let lake = Lake::of_project(project.path()).await;
    lake.compact(TABLE).await;
    check(&project, &[TABLE, "--deep"], 0, &["1,100 records read", "equal to the log"]);
    project.write("proto/test/v1/event.proto", &grown.replace("repeated int32 numbers = 3;", ""));
    broker.produce("events", &newer);
    project.catch_up();
    check(&project, &[TABLE, "--deep"], 0, &["1,200 records read", "equal to the log"]);
    // A value that was there and is gone is another thing than one that never was. The last row is the newest.
    let columns = "id, name, numbers, labels, inner, more, _kafka, _raw";
    let spoiled = format!("SELECT CASE WHEN _kafka.offset < 699 THEN extra END AS extra, {columns} FROM {TABLE}");
    lake.rewrite(TABLE, &spoiled, Operation::Replace, &[]).await;
    let last = "events/0/699: extra is null in bronze.events, but \"\" from the log";
    check(&project, &[TABLE, "--deep"], 3, &[last]);
}

#[test]
fn what_the_log_lost_is_counted_and_the_rest_is_compared() {
    let (broker, project) = filled();
    broker.delete_records("events", 0, 120);
    check(&project, &[TABLE, "--deep"], 0, &["880 records read", "120 offsets are gone and could not be compared"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_later_start_is_where_comparing_begins() {
    let broker = Broker::light();
    broker.create_topic("events", 2, &[]);
    broker.produce("events", &records());
    let project = Project::new(&broker, "start = \"latest\"\n");
    project.catch_up();
    check(&project, &[TABLE, "--deep"], 0, &["0 records read"]);
    broker.produce("events", &records()[..40]);
    project.catch_up();
    check(&project, &[TABLE, "--deep"], 0, &["40 records read", "equal to the log"]);
    // Where it began is on record: what is missing before the first row that is left, is missing.
    let lake = Lake::of_project(project.path()).await;
    let kept = "SELECT * FROM bronze.events WHERE NOT (_kafka.partition = 0 AND _kafka.offset < 502)";
    lake.rewrite(TABLE, kept, Operation::Replace, &[]).await;
    let missing = ["events/0/500 is in the log and belongs in bronze.events", "events/0/501 is in the log"];
    check(&project, &[TABLE, "--deep"], 3, &missing);
}

#[test]
fn tables_that_are_not_a_topics() {
    let (_broker, project) = filled();
    check(&project, &["bronze.nothing"], 2, &["table bronze.nothing does not exist in catalog local"]);
    check(&project, &[QUARANTINE, "--deep"], 2, &["is the quarantine of bronze.events"]);
    project.edit("calve.toml", "[topics.events]\n", "[topics.events]\ntable = \"bronze.others\"\n");
    check(&project, &[TABLE], 0, &["bronze.events__quarantine", "verified: each record once"]);
    check(&project, &[TABLE, "--deep"], 2, &["no topic of calve.toml fills it"]);
    check(&project, &["bronze.others"], 1, &["is not in catalog local yet"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_table_of_a_refinement_has_no_ledger_to_be_verified_against() {
    let (_broker, project) = filled();
    let lake = Lake::of_project(project.path()).await;
    let schema = lake.table(TABLE).await.metadata().current_schema().as_struct().fields().to_vec();
    lake.create("silver.ids", schema[..1].to_vec()).await;
    lake.append_query("silver.ids", "SELECT id FROM bronze.events").await;
    check(&project, &["silver.ids"], 2, &["table silver.ids has no Kafka ledger", "calve refine status"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_row_that_is_there_twice_is_found() {
    let (_broker, project) = filled();
    let lake = Lake::of_project(project.path()).await;
    lake.append_query(TABLE, "SELECT * FROM bronze.events WHERE _kafka.partition = 1 AND _kafka.offset = 17").await;
    let twice = "events/1/17 is in bronze.events more than once";
    let count = "bronze.events has 951 rows of events, its ledger counts 950";
    check(&project, &[TABLE], 3, &[twice, count]);
    check(&project, &[TABLE, "--deep"], 3, &[twice, count]);
}

#[tokio::test(flavor = "multi_thread")]
async fn rows_that_another_writer_deleted_are_named_with_their_snapshot() {
    let (_broker, project) = filled();
    let lake = Lake::of_project(project.path()).await;
    let kept = "SELECT * FROM bronze.events WHERE NOT (_kafka.partition = 0 AND _kafka.offset < 5)";
    let deleted = lake.engine.query(kept).await.unwrap().count().await.unwrap();
    let deleted = (950 - deleted).to_string();
    let snapshot = lake.rewrite(TABLE, kept, Operation::Delete, &[("deleted-records", &deleted)]).await;
    let named = format!("snapshot {snapshot}, by another writer, deleted {deleted} rows of bronze.events");
    check(&project, &[TABLE], 3, &[&named]);
    check(&project, &[TABLE, "--accept-deletes"], 0, &["verified"]);
    let missing = "events/0/0 is in the log and belongs in bronze.events, but is not there";
    check(&project, &[TABLE, "--deep"], 3, &[&named, missing]);
    check(&project, &[TABLE, "--deep", "--accept-deletes"], 0, &["records are missing, as other writers deleted rows"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn rows_that_vanished_without_a_word_are_a_difference_that_nobody_can_accept() {
    let (_broker, project) = filled();
    let lake = Lake::of_project(project.path()).await;
    let kept = "SELECT * FROM bronze.events WHERE NOT (_kafka.partition = 0 AND _kafka.offset = 4)";
    lake.rewrite(TABLE, kept, Operation::Replace, &[]).await;
    let count = "bronze.events has 949 rows of events, its ledger counts 950";
    check(&project, &[TABLE], 3, &[count]);
    let missing = "events/0/4 is in the log and belongs in bronze.events, but is not there";
    check(&project, &[TABLE, "--deep", "--accept-deletes"], 3, &[count, missing]);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_value_that_was_changed_is_found_against_the_log_alone() {
    let (_broker, project) = filled();
    let lake = Lake::of_project(project.path()).await;
    lake.compact(TABLE).await;
    check(&project, &[TABLE, "--deep"], 0, &["equal to the log"]);
    // Offset 7 of partition 0 is event 14, and of partition 1 event 15.
    let changed = "SELECT CASE WHEN _kafka.offset = 7 AND _kafka.partition = 0 THEN 99 ELSE id END AS id, \
                   CASE WHEN _kafka.offset = 7 AND _kafka.partition = 1 THEN '' ELSE name END AS name, \
                   numbers, labels, inner, _kafka, _raw FROM bronze.events";
    lake.rewrite(TABLE, changed, Operation::Replace, &[]).await;
    check(&project, &[TABLE], 0, &["verified"]);
    let id = "events/0/7: id is 99 in bronze.events, but 14 from the log";
    let name = "events/1/7: name is \"\" in bronze.events, but \"event number 15\" from the log";
    check(&project, &[TABLE, "--deep"], 3, &[id, name]);
}

#[tokio::test(flavor = "multi_thread")]
async fn the_quarantine_is_compared_in_bytes_and_code() {
    let (_broker, project) = filled();
    let lake = Lake::of_project(project.path()).await;
    // Offset 3 of partition 0 is record 6, the first that is damaged; offset 13 is record 26.
    let changed = "SELECT _kafka, CASE WHEN _kafka.offset = 13 THEN X'00' ELSE value END AS value, \
                   CASE WHEN _kafka.offset = 3 THEN 'bad_tag' ELSE error END AS error, detail, message, \
                   calve_version, quarantined_at, replayed_at FROM bronze.events__quarantine";
    lake.rewrite(QUARANTINE, changed, Operation::Replace, &[]).await;
    check(&project, &[TABLE], 0, &["verified"]);
    let code = "events/0/3: error is \"bad_tag\" in bronze.events__quarantine, but \"truncated\" from the log";
    let bytes = "events/0/13: value is 00 in bronze.events__quarantine, but ";
    check(&project, &[TABLE, "--deep"], 3, &[code, bytes]);
}
