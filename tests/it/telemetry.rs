//! What a running calve says of itself: metrics that are fed, progress that garbles nothing.

use std::process::Command;
use std::time::{Duration, Instant};

use calve::telemetry::metrics::TABLE;

use crate::support::broker::{Broker, Record};
use crate::support::lake::Lake;
use crate::support::project::{Project, damaged, event};

const LOCAL: &str = "type = \"sql\"\nuri = \"sqlite:///warehouse/catalog.db\"\nwarehouse = \"warehouse\"\n";
const NAMES: &str = "/*---\nmode: append\ntrigger: { on_commit: true }\n---*/\nSELECT id, name FROM bronze.events\n";

fn topic(name: &str, keys: &str) -> String {
    format!("[topics.{name}]\ncatalog = \"local\"\nmessage = \"test.v1.Event\"\nschema = \"proto\"\n{keys}\n")
}

/// The value of a series, as `calve_commits_total{table="bronze.events"}`.
fn value(metrics: &str, series: &str) -> Option<f64> {
    let line = metrics.lines().find_map(|line| line.strip_prefix(series)?.strip_prefix(' '))?;
    Some(line.parse().unwrap_or_else(|_| panic!("{series} is {line}")))
}

#[tokio::test(flavor = "multi_thread")]
async fn every_metric_is_fed_by_a_daemon_that_works() {
    let broker = Broker::light();
    for topic in ["events", "slow"] {
        broker.create_topic(topic, 1, &[]);
    }
    let hour_ago = chrono::Utc::now().timestamp_millis() - 3_600_000;
    // More than a worker encodes at a time, so that a file is open while nothing is committed.
    let old = |id| Record::new(0, event(id)).timestamp(hour_ago);
    broker.produce("slow", &(0..20_000).map(old).collect::<Vec<_>>());
    broker.produce("events", &(0..500).map(|id| Record::new(0, event(id))).collect::<Vec<_>>());
    broker.produce("events", &(0..20).map(|id| Record::new(0, damaged(id))).collect::<Vec<_>>());
    let more = topic("slow", "commit_interval = \"1h\"") + &topic("missing", "");
    let project = Project::with(&broker, &more, "commit_interval = \"200ms\"\n", LOCAL);
    project.write("sql/silver/names.sql", NAMES);
    let daemon = project.start();
    daemon.wait_for_rows("events", 500);
    daemon.wait_for("refined", Duration::from_secs(60));
    // Another writer's commit: the next one of ours finds the table changed.
    Lake::of_project(project.path()).await.append("bronze.events", r#"{"id": 1}"#).await;
    broker.produce("events", &(500..600).map(|id| Record::new(0, event(id))).collect::<Vec<_>>());
    daemon.wait_for_rows("events", 600);

    let deadline = Instant::now() + Duration::from_secs(30);
    let metrics = loop {
        let metrics = daemon.get("/metrics");
        // Looked at every second, or every few.
        let settled = value(&metrics, "calve_lag_records{topic=\"events\"}") == Some(0.0)
            && value(&metrics, "calve_lag_seconds{topic=\"events\"}") == Some(0.0)
            && value(&metrics, "calve_lag_records{topic=\"slow\"}") == Some(20_000.0)
            && value(&metrics, "calve_unread_records{topic=\"slow\"}") == Some(0.0)
            && value(&metrics, "calve_lag_seconds{topic=\"slow\"}") > Some(0.0)
            && value(&metrics, "calve_memory_used_bytes{part=\"fetched\"}") == Some(0.0);
        if settled {
            break metrics;
        }
        assert!(Instant::now() < deadline, "the lag does not settle:\n{metrics}");
        std::thread::sleep(Duration::from_millis(100));
    };
    for (name, unit, _) in TABLE {
        let name = if unit.is_empty() { format!("calve_{name}") } else { format!("calve_{name}_{unit}") };
        let is_fed = metrics.lines().any(|line| line.starts_with(&name));
        assert!(is_fed, "{name} has no value:\n{metrics}");
    }
    let exactly = [
        ("calve_read_records_total{topic=\"events\"}", 620.0),
        ("calve_read_records_total{topic=\"slow\"}", 20_000.0),
        ("calve_shredded_rows_total{topic=\"events\"}", 600.0),
        ("calve_rejected_records_total{topic=\"events\",code=\"truncated\"}", 20.0),
        ("calve_lag_seconds{topic=\"events\"}", 0.0),
        ("calve_topic_state{topic=\"events\",state=\"running\"}", 1.0),
        ("calve_topic_state{topic=\"missing\",state=\"retrying\"}", 1.0),
        ("calve_topic_state{topic=\"missing\",state=\"running\"}", 0.0),
        ("calve_commits_total{table=\"bronze.slow\"}", 0.0),
        ("calve_commits_total{table=\"bronze.events__quarantine\"}", 1.0),
        ("calve_open_files{table=\"bronze.slow\"}", 1.0),
        ("calve_memory_limit_bytes", f64::from(1 << 30)),
    ];
    for (series, wanted) in exactly {
        assert_eq!(value(&metrics, series), Some(wanted), "{series} in\n{metrics}");
    }
    let at_least = [
        ("calve_commits_total{table=\"bronze.events\"}", 2.0),
        ("calve_commit_seconds_count{table=\"bronze.events\"}", 2.0),
        ("calve_commit_conflicts_total{table=\"bronze.events\"}", 1.0),
        ("calve_written_files_total{table=\"bronze.events\"}", 2.0),
        ("calve_written_bytes_total{table=\"bronze.events\"}", 1000.0),
        ("calve_commits_total{table=\"silver.names\"}", 1.0),
        ("calve_refinement_rows_total{model=\"silver.names\"}", 500.0),
        ("calve_memory_used_bytes{part=\"writing\"}", 10_000.0),
        ("calve_lag_seconds{topic=\"slow\"}", 3600.0),
        ("calve_rebalances_total", 1.0),
        ("calve_kafka_errors_total", 1.0),
    ];
    for (series, least) in at_least {
        assert!(value(&metrics, series) >= Some(least), "{series} is less than {least} in\n{metrics}");
    }
    assert_eq!(daemon.terminate(), 0);
}

fn events(partitions: i64, ids: std::ops::Range<i64>) -> Vec<Record> {
    ids.map(|id| Record::new((id % partitions) as i32, event(id))).collect()
}

/// What a command draws where stderr is a terminal, and what comes out at stdout, which is a file.
fn on_a_terminal(project: &Project, arguments: &str) -> (String, String) {
    let out = project.path().join("stdout");
    let command = format!("{} {arguments} > {}", env!("CARGO_BIN_EXE_calve"), out.display());
    let output = Command::new("script")
        .args(["-qec", &command, "/dev/null"])
        .env("TERM", "xterm")
        .env("NO_COLOR", "1")
        .env_remove("CALVE_LOG")
        .current_dir(project.path())
        .output()
        .expect("script, of util-linux, runs");
    let drawn = String::from_utf8_lossy(&output.stdout).into_owned();
    assert!(output.status.success(), "{arguments}: {drawn}");
    (drawn, std::fs::read_to_string(&out).expect("stdout"))
}

#[test]
fn a_terminal_shows_how_far_long_work_is_and_results_stay_whole() {
    let broker = Broker::light();
    broker.create_topic("events", 2, &[]);
    for start in (0..100_000).step_by(20_000) {
        broker.produce("events", &events(2, start..start + 20_000));
    }
    let project = Project::new(&broker, "");
    let drawn_and_result = |arguments: &str, work: &str| {
        let (drawn, out) = on_a_terminal(&project, arguments);
        let is_line = |line: &str| {
            let after = line.split(work).nth(1).unwrap_or_default();
            [" records, ", " MB/s, lag "].iter().all(|part| after.contains(part))
        };
        assert!(drawn.split(['\r', '\n']).any(is_line), "{arguments} shows no progress:\n{drawn}");
        serde_json::from_str::<serde_json::Value>(&out).unwrap_or_else(|error| panic!("{arguments}: {error}\n{out}"));
        drawn
    };
    let drawn = drawn_and_result("-o json run --until-caught-up", "reading ");
    // The log is written above the line, each entry whole.
    let committed = drawn.lines().find(|line| line.contains("committed")).expect("a commit is logged");
    assert!(committed.contains("topic=events") && committed.contains("reason="), "{committed:?}");
    project.write("sql/silver/names.sql", NAMES);
    drawn_and_result("-o json refine run", "refining silver.names ");
    drawn_and_result("-o json verify bronze.events --deep", "comparing bronze.events ");
    let (drawn, _) = on_a_terminal(&project, "-q -o json verify bronze.events --deep");
    assert_eq!(drawn, "", "-q shows nothing");
}

#[test]
fn without_a_terminal_there_is_a_log_line_every_few_seconds_while_there_is_work() {
    let broker = Broker::light();
    broker.create_topic("events", 2, &[]);
    let project = Project::new(&broker, "commit_interval = \"500ms\"\n");
    let daemon = project.start_with(&["--log-format", "json"], &[]);
    let started = Instant::now();
    let mut next = 0;
    let lines = loop {
        broker.produce("events", &events(2, next..next + 100));
        next += 100;
        let log = daemon.log();
        let parsed =
            log.lines().map(|line| serde_json::from_str(line).unwrap_or_else(|_| panic!("{line} is not JSON")));
        let is_progress = |line: &serde_json::Value| line["message"] == "progress";
        let found: Vec<serde_json::Value> = parsed.filter(is_progress).collect();
        if found.len() >= 2 {
            break found;
        }
        assert!(started.elapsed() < Duration::from_secs(60), "no progress in the log:\n{log}");
        std::thread::sleep(Duration::from_millis(200));
    };
    let line = &lines[1];
    assert_eq!(line["work"], "reading", "{line}");
    assert!(line["records"].as_u64() > Some(100) && line["lag"].is_u64() && line["mb_per_second"].is_f64(), "{line}");
    assert_eq!(daemon.terminate(), 0);
}
