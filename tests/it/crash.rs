//! Killed anywhere: kill -9 at random instants, at every stage edge, zombies, rebalances. After each, the table is
//! compared to the log offset by offset.

use std::time::Duration;

use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};

use crate::support::broker::{Broker, Record};
use crate::support::parts::Part;
use crate::support::project::{Project, damaged, event};
use crate::support::proxy::{Fault, Proxy};

/// Records of which one in forty is damaged.
fn records(partitions: i32, ids: std::ops::Range<i64>) -> Vec<Record> {
    let value = |id| if id % 40 == 11 { damaged(id) } else { event(id) };
    ids.map(|id| Record::new((id % i64::from(partitions)) as i32, value(id))).collect()
}

fn seed() -> u64 {
    let seed = std::env::var("CALVE_SEED").ok().and_then(|seed| seed.parse().ok()).unwrap_or_else(rand::random);
    println!("CALVE_SEED={seed}");
    seed
}

/// Kills the daemon `kills` times at random instants, while records keep coming.
fn kill_at_random(broker: &Broker, kills: usize) {
    let mut random = StdRng::seed_from_u64(seed());
    broker.create_topic("events", 3, &[]);
    let project = Project::new(broker, "commit_interval = \"150ms\"\n");
    let mut next = 0;
    for _ in 0..kills {
        let daemon = project.start();
        let lives = Duration::from_millis(random.random_range(50..3500));
        let started = std::time::Instant::now();
        while started.elapsed() < lives {
            let count = random.random_range(20..400);
            broker.produce("events", &records(3, next..next + count));
            next += count;
            std::thread::sleep(Duration::from_millis(random.random_range(0..80)));
        }
        daemon.kill();
    }
    project.catch_up();
    project.assert_exactly_once(broker, "events");
}

#[test]
fn kill_9_at_random_instants_loses_nothing_and_doubles_nothing() {
    kill_at_random(&Broker::light(), 20);
}

#[test]
fn kill_9_at_random_instants_on_real_kafka() {
    kill_at_random(&Broker::kafka(), 12);
}

/// Daemons that share a topic are killed and started again, one of them or all at once. Each takes its dead
/// predecessor's place: nobody waits for a session to end, which here would outlast the test.
fn who_is_killed_is_succeeded_at_once(broker: &Broker, rounds: usize) {
    broker.create_topic("events", 6, &[]);
    let project = Project::new(broker, "commit_interval = \"100ms\"\n");
    project.edit("calve.toml", "\"session.timeout.ms\" = \"6000\"", "\"session.timeout.ms\" = \"60000\"");
    let mut next = 0;
    let mut produce = || {
        broker.produce("events", &records(6, next..next + 60));
        next += 60;
    };
    let mut daemons = vec![project.start(), project.start()];
    produce();
    daemons.iter().for_each(|daemon| daemon.wait_for("partitions assigned", Duration::from_secs(60)));
    let mut times = Vec::new();
    for round in 0..rounds {
        let killed = if round % 3 == 2 { daemons.len() } else { 1 };
        for daemon in daemons.drain(..killed) {
            daemon.kill();
        }
        produce();
        // Kafka goes by a returning member's protocol alone. The light broker also compares what the member holds, which
        // is nothing, and has the whole group join again; who is dead does not, so there all come before one is waited
        // for.
        let at_once = if broker.is_light() { killed } else { 1 };
        for _ in 0..killed / at_once {
            let started = std::time::Instant::now();
            let come = daemons.len();
            daemons.extend((0..at_once).map(|_| project.start()));
            for daemon in &daemons[come..] {
                daemon.wait_for(" committed ", Duration::from_secs(15));
                times.push(started.elapsed().as_millis());
            }
        }
    }
    times.sort_unstable();
    println!("from start to first commit, ms: {times:?}");
    for daemon in daemons {
        assert_eq!(daemon.terminate(), 0);
    }
    project.catch_up();
    project.assert_exactly_once(broker, "events");
}

#[test]
fn who_is_killed_is_succeeded_at_once_on_the_light_broker() {
    who_is_killed_is_succeeded_at_once(&Broker::light(), 9);
}

#[test]
fn who_is_killed_is_succeeded_at_once_on_real_kafka() {
    who_is_killed_is_succeeded_at_once(&Broker::kafka(), 6);
}

const SQLITE: &str = "type = \"sql\"\nuri = \"sqlite:///warehouse/catalog.db\"\nwarehouse = \"warehouse\"\n";

/// Each stage edge, by its failpoint: the process ends there, and the next one finishes the work.
#[test]
fn killed_at_every_stage_edge() {
    let edges = [
        "ingest::shred",
        "ingest::staged",
        "ingest::between_commits",
        "ingest::committed",
        "write::before_put",
        "write::after_put",
        "commit::before_manifests",
        "commit::after_manifests",
        "commit::sent",
        "commit::after",
    ];
    let broker = Broker::light();
    broker.create_topic("events", 2, &[]);
    let project = Project::new(&broker, "commit_interval = \"200ms\"\n");
    let mut next = 0;
    // Rejects and rows as one change, and one after the other.
    for (together, edge) in [true, false].into_iter().flat_map(|together| edges.map(|edge| (together, edge))) {
        if together && edge == "ingest::between_commits" {
            continue;
        }
        let set = |value: bool| format!("\"calve.commit-together\" = \"{value}\"\n");
        project.write("catalogs/local.toml", &(SQLITE.to_owned() + &set(together)));
        // The first time that it is reached, and a later time, when more is under way.
        for passed in [0, 2] {
            broker.produce("events", &records(2, next..next + 500));
            next += 500;
            let kill_at = format!("{edge}@{passed}");
            let run = project.calve_with(&["run", "--until-caught-up"], &[("CALVE_KILL_AT", &kill_at)]);
            if passed == 0 {
                assert_eq!(run.0, -1, "{edge} was not reached, or did not kill: {}\n{}", run.1, run.2);
            }
        }
    }
    project.catch_up();
    project.assert_exactly_once(&broker, "events");
}

/// A daemon that is stopped while another takes over, and then goes on, must not write what the other wrote.
fn zombie(broker: &Broker) {
    broker.create_topic("events", 2, &[]);
    broker.produce("events", &records(2, 0..3000));
    let project = Project::new(broker, "commit_interval = \"300ms\"\n");
    let first = project.start();
    first.wait_for("committed", Duration::from_secs(60));
    broker.produce("events", &records(2, 3000..6000));
    std::thread::sleep(Duration::from_millis(120));
    first.signal("STOP");
    broker.produce("events", &records(2, 6000..9000));
    let second = project.start();
    second.wait_for("committed", Duration::from_secs(90));
    first.signal("CONT");
    broker.produce("events", &records(2, 9000..12000));
    std::thread::sleep(Duration::from_secs(3));
    assert_eq!(first.terminate(), 0);
    assert_eq!(second.terminate(), 0);
    project.catch_up();
    project.assert_exactly_once(broker, "events");
}

#[test]
fn a_zombie_finds_the_ledger_moved() {
    zombie(&Broker::light());
}

#[test]
fn a_zombie_finds_the_ledger_moved_on_real_kafka() {
    zombie(&Broker::kafka());
}

/// Daemons come and go; partitions move between them in the middle of batches.
#[test]
fn rebalances_between_daemons_on_real_kafka() {
    let broker = Broker::kafka();
    broker.create_topic("events", 6, &[]);
    let project = Project::new(&broker, "commit_interval = \"250ms\"\n");
    let mut next = 0;
    let mut produce = |count| {
        broker.produce("events", &records(6, next..next + count));
        next += count;
    };
    produce(3000);
    let first = project.start();
    first.wait_for("committed", Duration::from_secs(60));
    produce(3000);
    let second = project.start();
    second.wait_for("partitions assigned", Duration::from_secs(60));
    produce(3000);
    let third = project.start();
    produce(3000);
    std::thread::sleep(Duration::from_secs(4));
    assert_eq!(second.terminate(), 0);
    produce(3000);
    std::thread::sleep(Duration::from_secs(3));
    assert_eq!(first.terminate(), 0);
    produce(1000);
    std::thread::sleep(Duration::from_secs(2));
    assert_eq!(third.terminate(), 0);
    project.catch_up();
    project.assert_exactly_once(&broker, "events");
}

#[test]
fn a_broker_that_restarts_interrupts_and_nothing_more() {
    let broker = Broker::kafka();
    broker.create_topic("events", 2, &[]);
    broker.produce("events", &records(2, 0..2000));
    let project = Project::new(&broker, "commit_interval = \"300ms\"\n");
    let daemon = project.start();
    daemon.wait_for("committed", Duration::from_secs(60));
    broker.kill();
    std::thread::sleep(Duration::from_secs(2));
    broker.start();
    broker.produce("events", &records(2, 2000..4000));
    std::thread::sleep(Duration::from_secs(8));
    assert_eq!(daemon.terminate(), 0);
    project.catch_up();
    project.assert_exactly_once(&broker, "events");
}

/// Commits fail before and after they were applied, and answers are cut off, while the daemon goes on.
#[test]
fn a_rest_catalog_that_loses_answers_loses_no_rows() {
    let broker = Broker::light();
    broker.create_topic("events", 2, &[]);
    let rest = Part::start("rest", &[]);
    let project = Project::new(&broker, "commit_interval = \"150ms\"\n").on_rest(&rest.address);
    let daemon = project.start();
    let mut next = 0;
    for (when, status) in [("after", 503), ("before", 500), ("after", 0), ("before", 0), ("after", 500), ("after", 504)]
    {
        let url = format!("{}/_fault?when={when}&status={status}&times=2", rest.address);
        assert!(std::process::Command::new("curl").args(["-sf", "-X", "POST", &url]).status().unwrap().success());
        broker.produce("events", &records(2, next..next + 700));
        next += 700;
        std::thread::sleep(Duration::from_millis(900));
    }
    daemon.wait_for("committed", Duration::from_secs(60));
    assert_eq!(daemon.terminate(), 0);
    project.catch_up();
    project.assert_exactly_once(&broker, "events");
}

/// A server that changes one of two tables and says that all went well: who asked it finds out, and if it is killed
/// before it could, the next one does.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn rejects_that_a_rest_catalog_dropped_are_made_up_for() {
    let (broker, rest) = (Broker::light(), Part::start("rest", &[]));
    let proxy = Proxy::start(&rest.address).await;
    broker.create_topic("events", 2, &[]);
    let project = Project::new(&broker, "commit_interval = \"200ms\"\n").on_rest(&rest.address);
    project.write("catalogs/local.toml", &format!("type = \"rest\"\nuri = \"{}\"\n", proxy.url(&rest.address)));
    let mut next = 0;
    let mut produce = || {
        broker.produce("events", &records(2, next..next + 500));
        next += 500;
        next
    };
    let counts = |table: &str| {
        let (code, out, errors) =
            project.calve(&["query", "--format", "csv", &format!("SELECT count(*) FROM {table}")]);
        assert_eq!(code, 0, "{errors}");
        out.lines().nth(1).unwrap().parse::<i64>().unwrap()
    };
    for round in 0..3 {
        let rejected = if round == 0 { 0 } else { counts("bronze.events__quarantine") };
        let read = produce();
        proxy.arm("POST /v1/transactions/commit ", Fault::Halve, 1);
        let killed = project.calve_with(&["run", "--until-caught-up"], &[("CALVE_KILL_AT", "commit::sent")]);
        assert_eq!(killed.0, -1, "{}\n{}", killed.1, killed.2);
        assert!(proxy.spent());
        assert!(counts("bronze.events") > read - 500, "the rows are there");
        assert_eq!(counts("bronze.events__quarantine"), rejected, "the rejects are not");
        // Nothing new, as in a run that ends at once; or more.
        if round > 0 {
            produce();
        }
        project.catch_up();
        project.assert_exactly_once(&broker, "events");
        produce();
        proxy.arm("POST /v1/transactions/commit ", Fault::Halve, 1);
        project.catch_up();
        assert!(proxy.spent());
        project.assert_exactly_once(&broker, "events");
    }
}

/// What the quarantine table has of a topic's former life is no sign that this life's record is there.
#[test]
fn a_recreated_topic_is_read_whole_after_a_kill_between_two_commits() {
    let broker = Broker::light();
    broker.create_topic("events", 1, &[]);
    let project = Project::new(&broker, "");
    project.write("catalogs/local.toml", &(SQLITE.to_owned() + "\"calve.commit-together\" = \"false\"\n"));
    let produce = |bad: i64| {
        let value = |id| if id == bad { damaged(id) } else { event(id) };
        broker.produce("events", &(0..6).map(|id| Record::new(0, value(id))).collect::<Vec<_>>());
    };
    produce(3);
    project.catch_up();
    broker.recreate_topic("events", 1);
    let reset = project.calve(&["ledger", "reset", "bronze.events", "--recreated"]);
    assert_eq!(reset.0, 0, "{reset:?}");
    produce(5);
    let killed = project.calve_with(&["run", "--until-caught-up"], &[("CALVE_KILL_AT", "ingest::between_commits")]);
    assert_eq!(killed.0, -1, "{killed:?}");
    project.catch_up();
    let sql = "SELECT id, count(*) FROM bronze.events GROUP BY 1 ORDER BY 1";
    let (code, out, errors) = project.calve(&["query", "--format", "csv", sql]);
    assert_eq!(code, 0, "{errors}");
    assert_eq!(out.lines().skip(1).collect::<Vec<_>>(), ["0,2", "1,2", "2,2", "3,1", "4,2", "5,1"]);
    let sql = "SELECT _kafka.offset, count(*) FROM bronze.events__quarantine GROUP BY 1 ORDER BY 1";
    let (_, out, _) = project.calve(&["query", "--format", "csv", sql]);
    assert_eq!(out.lines().skip(1).collect::<Vec<_>>(), ["3,1", "5,1"]);
}

/// A refinement run killed at each of its edges, and at those of its commit: nothing doubled, and each commit of the
/// target carries both its rows and how far they go.
#[test]
fn a_refinement_that_is_killed_anywhere_adds_every_row_once() {
    let edges = [
        "refine::writing",
        "refine::written",
        "refine::before_commit",
        "refine::after_commit",
        "write::before_put",
        "write::after_put",
        "commit::before_manifests",
        "commit::after_manifests",
        "commit::sent",
        "commit::after",
    ];
    const MODEL: &str = "sql/silver/names.sql";
    let broker = Broker::light();
    broker.create_topic("events", 2, &[]);
    let project = Project::new(&broker, "");
    let events =
        |ids: std::ops::Range<i64>| -> Vec<Record> { ids.map(|id| Record::new((id % 2) as i32, event(id))).collect() };
    let mut next = 0;
    for edge in edges {
        broker.produce("events", &events(next..next + 200));
        next += 200;
        // Ingest comes to the same edges of writing and committing: it runs by itself, before.
        let _ = std::fs::remove_file(project.path().join(MODEL));
        project.catch_up();
        project.write(MODEL, "/*---\nmode: append\n---*/\nSELECT id, name, _kafka FROM bronze.events\n");
        let killed = project.calve_with(&["refine", "run"], &[("CALVE_KILL_AT", edge)]);
        assert_eq!(killed.0, -1, "{edge} was not reached, or did not kill: {}\n{}", killed.1, killed.2);
    }
    let (code, out, errors) = project.calve(&["refine", "run"]);
    assert_eq!(code, 0, "{out}\n{errors}");

    let found = project.offsets("silver.names");
    let doubled: Vec<_> = found.iter().filter(|(_, times)| **times > 1).take(5).collect();
    assert!(doubled.is_empty(), "{doubled:?}");
    assert_eq!(found.len(), next as usize);
    let source: serde_json::Value = read_json(&project.metadata("bronze.events"));
    let target: serde_json::Value = read_json(&project.metadata("silver.names"));
    // Their order in the file means nothing.
    let mut snapshots = target["snapshots"].as_array().unwrap().clone();
    snapshots.sort_by_key(|snapshot| snapshot["sequence-number"].as_i64());
    let mut watermarks = Vec::new();
    for snapshot in &snapshots {
        let summary = &snapshot["summary"];
        assert_eq!(summary["calve.refine.rows-out"], summary["added-records"], "{summary}");
        let state: serde_json::Value = serde_json::from_str(summary["refresh-state"].as_str().unwrap()).unwrap();
        watermarks.push(state["source-states"][0]["snapshot-id"].clone());
    }
    assert_eq!(watermarks.last(), Some(&source["current-snapshot-id"]));
    let distinct: std::collections::BTreeSet<String> = watermarks.iter().map(ToString::to_string).collect();
    assert_eq!(distinct.len(), watermarks.len(), "no two commits go equally far: {watermarks:?}");
}

fn read_json(file: &str) -> serde_json::Value {
    serde_json::from_str(&std::fs::read_to_string(file).unwrap()).unwrap()
}
