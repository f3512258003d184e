//! What a user reads when something is down, gone, forbidden, full or wrong: one line that says what, where, why and what
//! to do, in the log and in the status. And when it is mended the daemon, or the next one, goes on with nothing lost.

use std::process::Command;
use std::time::{Duration, Instant};

use serde_json::{Value, json};

use crate::support::broker::{Broker, Record};
use crate::support::lake::{Lake, ident};
use crate::support::parts::Part;
use crate::support::project::{Daemon, Project, damaged, event};
use crate::support::proxy::{Fault, Proxy};

const FOR_GOOD: u32 = u32::MAX;

fn records(ids: std::ops::Range<i64>) -> Vec<Record> {
    let value = |id| if id % 50 == 7 { damaged(id) } else { event(id) };
    ids.map(|id| Record::new((id % 2) as i32, value(id))).collect()
}

fn status(daemon: &Daemon) -> Value {
    serde_json::from_str::<Value>(&daemon.get("/status")).unwrap()["topics"]["events"].clone()
}

/// Waits until the topic is in this state for a reason that has all of these words; it is one line and no debug print.
fn wait_for_reason(daemon: &Daemon, state: &str, words: &[&str]) -> String {
    let deadline = Instant::now() + Duration::from_secs(60);
    loop {
        let status = status(daemon);
        let reason = status["reason"].as_str().unwrap_or_default().to_owned();
        if status["state"] == state && words.iter().all(|word| reason.contains(word)) {
            assert!(!reason.contains('\n') && !reason.contains(" { ") && !reason.contains("Error("), "{reason}");
            return reason;
        }
        assert!(Instant::now() < deadline, "not {state} for {words:?}: {status}\n{}", daemon.log());
        std::thread::sleep(Duration::from_millis(50));
    }
}

fn metric(daemon: &Daemon, series: &str) -> f64 {
    let metrics = daemon.get("/metrics");
    let line = metrics.lines().find_map(|line| line.strip_prefix(series)?.strip_prefix(' '));
    line.unwrap_or_else(|| panic!("no {series}:\n{metrics}")).parse().unwrap()
}

/// Waits until the daemon has caught up by itself.
fn wait_until_caught_up(daemon: &Daemon) {
    let deadline = Instant::now() + Duration::from_secs(60);
    loop {
        let status = status(daemon);
        if status["state"] == "running" && status["lag_records"] == 0 {
            return;
        }
        assert!(Instant::now() < deadline, "{status}\n{}", daemon.log());
        std::thread::sleep(Duration::from_millis(50));
    }
}

fn on_rest(broker: &Broker, rest: &Part, proxy: &Proxy, more: &str) -> Project {
    let project = Project::new(broker, "commit_interval = \"100ms\"\n").on_rest(&rest.address);
    let uri = proxy.url(&rest.address);
    project.write("catalogs/local.toml", &format!("type = \"rest\"\nuri = \"{uri}\"\n{more}"));
    project
}

fn on_s3(broker: &Broker, endpoint: &str, secret: &str, bucket: &str) -> Project {
    let project = Project::new(broker, "commit_interval = \"100ms\"\n");
    let catalog = format!(
        "type = \"sql\"\nuri = \"sqlite:///warehouse/catalog.db\"\nwarehouse = \"s3://{bucket}/warehouse\"\n\
         \"s3.endpoint\" = \"{}\"\n\"s3.region\" = \"us-east-1\"\n\"s3.access-key-id\" = \"calve-access-key\"\n\
         \"s3.secret-access-key\" = \"{secret}\"\n\"s3.path-style-access\" = \"true\"\n",
        endpoint.trim_end_matches('/')
    );
    project.write("catalogs/local.toml", &catalog);
    project
}

/// What a run that cannot succeed says of the topic: its one line on stdout, which the log has too.
fn why_halted(project: &Project, words: &[&str]) -> String {
    let (code, out, log) = project.calve(&["-o", "json", "run", "--until-caught-up"]);
    assert_eq!(code, 1, "{out}\n{log}");
    let ended: Value = serde_json::from_str(&out).unwrap();
    let why = ended["halted"]["events"].as_str().unwrap_or_default().to_owned();
    assert!(words.iter().all(|word| why.contains(word)), "{words:?} are not all in {why:?}");
    assert!(!why.contains('\n') && !why.contains(" { "), "{why}");
    assert!(log.lines().any(|line| line.contains(&why) && line.contains("topic=\"events\"")), "{log}");
    why
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_catalog_that_is_down_is_waited_for_with_what_is_staged() {
    let (broker, rest) = (Broker::light(), Part::start("rest", &[]));
    let proxy = Proxy::start(&rest.address).await;
    broker.create_topic("events", 2, &[]);
    let project = on_rest(&broker, &rest, &proxy, "");
    // For `calve status`, which asks there.
    let port = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
    project.edit("calve.toml", "127.0.0.1:0", &format!("127.0.0.1:{port}"));
    broker.produce("events", &records(0..1000));
    let daemon = project.start();
    wait_until_caught_up(&daemon);

    proxy.arm(" HTTP/1.1", Fault::Refuse(503), FOR_GOOD);
    broker.produce("events", &records(1000..2000));
    let reason = wait_for_reason(&daemon, "retrying", &["table bronze.events", "503"]);
    println!("{reason}");
    let staged = status(&daemon);
    assert!(staged["lag_records"].as_u64() > Some(0), "what is staged is not in the table: {staged}");
    assert_eq!(daemon.get("/readyz"), "ready\nretrying: events\n");
    let (_, out, _) = project.calve(&["status"]);
    assert!(out.contains("retrying") && out.contains("503"), "{out}");
    // The log grows on, and so does the lag.
    broker.produce("events", &records(2000..3000));
    let deadline = Instant::now() + Duration::from_secs(30);
    while metric(&daemon, "calve_lag_records{topic=\"events\"}") != 2000.0 {
        assert!(Instant::now() < deadline, "{}", status(&daemon));
        std::thread::sleep(Duration::from_millis(200));
    }
    assert!(metric(&daemon, "calve_lag_seconds{topic=\"events\"}") > 0.5);

    proxy.disarm();
    wait_until_caught_up(&daemon);
    assert_eq!(metric(&daemon, "calve_read_records_total{topic=\"events\"}"), 3000.0, "nothing was read again");
    assert_eq!(metric(&daemon, "calve_discarded_batches_total{topic=\"events\"}"), 0.0);

    // One that takes the request and says nothing is waited for just as visibly, long before the client gives up.
    proxy.arm("POST /v1/transactions/commit ", Fault::Stall, 1);
    broker.produce("events", &records(3000..3100));
    wait_for_reason(&daemon, "retrying", &["no answer", "for 10 s"]);
    proxy.cut();
    wait_until_caught_up(&daemon);
    assert_eq!(daemon.get("/readyz"), "ready\n");
    assert_eq!(daemon.terminate(), 0);
    project.assert_exactly_once(&broker, "events");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_table_that_is_dropped_halts_its_topic_and_the_next_start_makes_it_anew() {
    let broker = Broker::light();
    broker.create_topic("events", 2, &[]);
    let project = Project::new(&broker, "commit_interval = \"100ms\"\n");
    broker.produce("events", &records(0..500));
    let daemon = project.start();
    wait_until_caught_up(&daemon);
    let lake = Lake::of_project(project.path()).await;
    lake.catalog.drop_table(&ident("bronze.events")).await.unwrap();
    lake.catalog.drop_table(&ident("bronze.events__quarantine")).await.unwrap();
    broker.produce("events", &records(500..1000));
    let words = ["table bronze.events", "catalog local", "dropped", "start calve again"];
    wait_for_reason(&daemon, "halted", &words);
    assert_eq!(daemon.get("/readyz"), "ready\nhalted: events\n");
    // Of a halted topic, too, the lag is what it is.
    broker.produce("events", &records(1000..2000));
    let deadline = Instant::now() + Duration::from_secs(30);
    while metric(&daemon, "calve_lag_records{topic=\"events\"}") != 1500.0 {
        assert!(Instant::now() < deadline, "{}", status(&daemon));
        std::thread::sleep(Duration::from_millis(200));
    }
    assert_eq!(daemon.terminate(), 1);
    std::fs::remove_dir_all(project.path().join("warehouse/bronze")).unwrap();
    project.catch_up();
    project.assert_exactly_once(&broker, "events");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_namespace_that_may_not_be_made_is_named() {
    let (broker, rest) = (Broker::light(), Part::start("rest", &[]));
    let proxy = Proxy::start(&rest.address).await;
    broker.create_topic("events", 2, &[]);
    broker.produce("events", &records(0..100));
    let project = on_rest(&broker, &rest, &proxy, "");
    let denied = r#"{"error":{"message":"principal may not CREATE_NAMESPACE","type":"ForbiddenException","code":403}}"#;
    proxy.arm("POST /v1/namespaces ", Fault::Say(403, denied), FOR_GOOD);
    let words = ["table bronze.events", "namespace bronze", "may not CREATE_NAMESPACE", "catalog local", "grant"];
    why_halted(&project, &words);
    proxy.disarm();
    project.catch_up();
    project.assert_exactly_once(&broker, "events");
}

/// What Glue answers where Lake Formation has not granted this.
fn not_granted(what: &str) -> Fault {
    let message = format!("Insufficient Lake Formation permission(s): Required {what}");
    Fault::Say(400, json!({ "__type": "AccessDeniedException", "Message": message }).to_string().leak())
}

fn on_glue(broker: &Broker, glue: &Part, proxy: &Proxy) -> Project {
    let catalog = format!(
        "type = \"glue\"\nwarehouse = \"warehouse\"\n\"glue.endpoint\" = \"{}\"\n\"glue.region\" = \"us-east-1\"\n\
         \"glue.access-key-id\" = \"k\"\n\"glue.secret-access-key\" = \"s\"\n",
        proxy.url(&glue.address)
    );
    Project::with(broker, "", "commit_interval = \"100ms\"\n", &catalog)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_lake_formation_denies_is_said_with_what_to_grant() {
    let (broker, glue) = (Broker::light(), Part::start("glue", &[]));
    let proxy = Proxy::start(&glue.address).await;
    broker.create_topic("events", 2, &[]);
    broker.produce("events", &records(0..100));
    let project = on_glue(&broker, &glue, &proxy);
    let grant = "grant this permission to calve's role in Lake Formation";
    for (action, lacking, step) in [
        ("GetTable", "Describe on events", "loading table bronze.events"),
        ("CreateDatabase", "Create Database on Catalog", "creating its namespace in catalog local failed"),
        ("CreateTable", "Create Table on bronze", "creating it in catalog local failed"),
    ] {
        proxy.arm(&format!("AWSGlue.{action}\r\n"), not_granted(lacking), FOR_GOOD);
        let lacking = format!("Insufficient Lake Formation permission(s): Required {lacking}; {grant}");
        println!("{}", why_halted(&project, &["table bronze.events", "catalog local", step, action, &lacking]));
        proxy.disarm();
    }
    let daemon = project.start();
    wait_until_caught_up(&daemon);

    // One table's grant is withdrawn: its rejects are committed, its rows are not.
    proxy.arm("\"Name\":\"events\",", not_granted("Alter on events"), FOR_GOOD);
    broker.produce("events", &records(100..200));
    let lacking = format!("Insufficient Lake Formation permission(s): Required Alter on events; {grant}");
    let refused = "table bronze.events: catalog local does not take the commit";
    let words = [refused, "UpdateTable", &lacking, "start calve again"];
    println!("{}", wait_for_reason(&daemon, "halted", &words));
    assert_eq!(daemon.get("/readyz"), "ready\nhalted: events\n");
    assert_eq!(daemon.terminate(), 1);
    why_halted(&project, &words);
    proxy.disarm();
    project.catch_up();
    project.assert_exactly_once(&broker, "events");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_database_that_is_there_takes_tables_of_who_may_not_make_databases() {
    let (broker, glue) = (Broker::light(), Part::start("glue", &[]));
    let proxy = Proxy::start(&glue.address).await;
    broker.create_topic("events", 2, &[]);
    let good: Vec<Record> = (0..100).map(|id| Record::new((id % 2) as i32, event(id))).collect();
    broker.produce("events", &good);
    let project = on_glue(&broker, &glue, &proxy);
    project.catch_up();
    // AWS asks what the caller may do before it looks whether the database is there. The first rejects want a table.
    proxy.arm("AWSGlue.CreateDatabase\r\n", not_granted("Create Database on Catalog"), FOR_GOOD);
    broker.produce("events", &records(100..200));
    project.catch_up();
    project.assert_exactly_once(&broker, "events");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn credentials_that_are_wrong_or_expire_are_said_to_be() {
    let (broker, rest) = (Broker::light(), Part::start("rest", &["token=right"]));
    let proxy = Proxy::start(&rest.address).await;
    broker.create_topic("events", 2, &[]);
    broker.produce("events", &records(0..100));
    let project = on_rest(&broker, &rest, &proxy, "token = \"wr0ng-token\"\n");
    let why = why_halted(&project, &["topic events", "catalog local", "401", "catalogs/local.toml"]);
    assert!(!why.contains("wr0ng-token"), "{why}");

    // A token that expires while the daemon runs.
    project.edit("catalogs/local.toml", "wr0ng-token", "right");
    let daemon = project.start();
    wait_until_caught_up(&daemon);
    let expired = r#"{"error":{"message":"token expired at noon","type":"NotAuthorizedException","code":401}}"#;
    proxy.arm(" HTTP/1.1", Fault::Say(401, expired), FOR_GOOD);
    broker.produce("events", &records(100..300));
    wait_for_reason(&daemon, "halted", &["table bronze.events", "401", "token expired at noon", "credentials"]);
    assert_eq!(daemon.terminate(), 1);
    proxy.disarm();
    project.edit("catalogs/local.toml", &proxy.url(&rest.address), &rest.address);
    project.catch_up();
    let (code, out, errors) = project.calve(&["verify", "bronze.events", "--deep"]);
    assert_eq!(code, 0, "{out}\n{errors}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_store_with_other_keys_no_bucket_or_another_clock_is_said_to_be() {
    let (broker, s3) = (Broker::light(), Part::start("s3", &[]));
    broker.create_topic("events", 2, &[]);
    broker.produce("events", &records(0..100));
    let wrong = on_s3(&broker, &s3.address, "wr0ng-secret", "lake");
    let why = why_halted(&wrong, &["table bronze.events", "s3://lake/warehouse"]);
    assert!(!why.contains("wr0ng-secret"), "{why}");
    let missing = on_s3(&broker, &s3.address, "calve-secret-key", "pond");
    why_halted(&missing, &["table bronze.events", "pond"]);

    let proxy = Proxy::start(&s3.address).await;
    let project = on_s3(&broker, &proxy.url(&s3.address), "calve-secret-key", "lake");
    let daemon = project.start();
    wait_until_caught_up(&daemon);
    let skewed = "<?xml version=\"1.0\" encoding=\"UTF-8\"?><Error><Code>RequestTimeTooSkewed</Code><Message>The \
                  difference between the request time and the current time is too large.</Message></Error>";
    proxy.arm("PUT /lake", Fault::Say(403, skewed), FOR_GOOD);
    broker.produce("events", &records(100..300));
    let deadline = Instant::now() + Duration::from_secs(60);
    let halted = loop {
        let status = status(&daemon);
        let reason = status["reason"].as_str().unwrap_or_default().to_owned();
        if reason.contains("s3://lake/warehouse/bronze/events") && reason.contains("time") {
            println!("{status}");
            break status["state"] == "halted";
        }
        assert!(Instant::now() < deadline, "{status}\n{}", daemon.log());
        std::thread::sleep(Duration::from_millis(50));
    };
    // Somebody sets the clock.
    proxy.disarm();
    if halted {
        assert_eq!(daemon.terminate(), 1);
        project.catch_up();
    } else {
        wait_until_caught_up(&daemon);
        assert_eq!(daemon.terminate(), 0);
    }
    let (code, out, errors) = project.calve(&["verify", "bronze.events", "--deep"]);
    assert_eq!(code, 0, "{out}\n{errors}");
}

#[test]
fn a_disk_that_is_full_is_waited_for() {
    let broker = Broker::light();
    broker.create_topic("events", 2, &[]);
    let project = Project::new(&broker, "commit_interval = \"100ms\"\n");
    // A file system of a megabyte that only the daemon sees, and whoever enters its namespace.
    let warehouse = project.path().join("warehouse");
    std::fs::create_dir_all(&warehouse).unwrap();
    let warehouse = warehouse.to_str().unwrap();
    let script = format!("mount -t tmpfs -o size=1m none {warehouse} && exec \"$0\" run");
    broker.produce("events", &records(0..100));
    let daemon = project.start_by(&["unshare", "-rm", "sh", "-c", &script]);
    wait_until_caught_up(&daemon);
    let inside = |command: &str| {
        let pid = daemon.pid().to_string();
        let entered = Command::new("nsenter").args(["-t", &pid, "-U", "-m", "sh", "-c", command]).output();
        entered.expect("nsenter, of util-linux, runs")
    };
    // Full but for what a catalog in SQLite needs to be read.
    inside(&format!("head -c 2m /dev/zero > {warehouse}/filler"));
    broker.produce("events", &records(100..1000));
    wait_for_reason(&daemon, "retrying", &["No space left", "bronze"]);
    let dropped = status(&daemon);
    assert!(dropped["lag_records"].as_u64() > Some(0), "what was dropped is to be read again: {dropped}");
    assert!(inside(&format!("rm {warehouse}/filler")).status.success());
    wait_until_caught_up(&daemon);
    let copied = inside(&format!("tar -cf - -C {warehouse} ."));
    assert_eq!(daemon.terminate(), 0);
    let archive = project.path().join("warehouse.tar");
    std::fs::write(&archive, copied.stdout).unwrap();
    let unpacked = Command::new("tar").args(["-xf", archive.to_str().unwrap(), "-C", warehouse]).status().unwrap();
    assert!(unpacked.success());
    project.assert_exactly_once(&broker, "events");
}
