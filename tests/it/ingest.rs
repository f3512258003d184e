//! A topic becomes a table, exactly once: the daemon as a process, on the light broker.

use std::time::Duration;

use crate::support::broker::{Broker, Record};
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
    let project = Project::new(&broker, "");
    project.catch_up();
    project.assert_exactly_once(&broker, "events");
    let sql = "SELECT error, count(*) AS n FROM bronze.events__quarantine GROUP BY error";
    let (code, out, errors) = project.calve(&["query", "--format", "csv", sql]);
    assert_eq!((code, out.as_str()), (0, "error,n\ntruncated,100\n"), "{errors}");
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

#[test]
fn a_recreated_topic_halts_and_the_other_topic_goes_on() {
    let broker = Broker::light();
    broker.create_topic("events", 1, &[]);
    broker.create_topic("others", 1, &[]);
    broker.produce("events", &records(1, 0..50));
    broker.produce("others", &records(1, 0..50));
    let others = "[topics.others]\ncatalog = \"local\"\nmessage = \"test.v1.Event\"\nschema = \"proto\"\n";
    let catalog = "type = \"sql\"\nuri = \"sqlite:///warehouse/catalog.db\"\nwarehouse = \"warehouse\"\n";
    let project = Project::with(&broker, others, "", catalog);
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
