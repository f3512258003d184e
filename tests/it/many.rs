//! Many daemons with one configuration on one topic and one table, and what a commit asks of catalog and store.

use std::time::{Duration, Instant};

use crate::support::broker::{Broker, Record};
use crate::support::parts::Part;
use crate::support::project::{Daemon, Project, event};
use crate::support::proxy::Proxy;

/// The sum of all series of a metric, over all daemons.
fn sum(daemons: &[Daemon], name: &str) -> f64 {
    let of = |daemon: &Daemon| -> f64 {
        let text = daemon.get("/metrics");
        let is_of_name = |line: &&str| line.strip_prefix(name).is_some_and(|rest| rest.starts_with([' ', '{']));
        text.lines().filter(is_of_name).map(|line| line.rsplit(' ').next().unwrap().parse::<f64>().unwrap()).sum()
    };
    daemons.iter().map(of).sum()
}

/// Waits until the group has shared out its partitions, and does so no more.
fn wait_until_shared(daemons: &[Daemon]) {
    daemons.iter().for_each(|daemon| daemon.wait_for("partitions assigned", Duration::from_secs(60)));
    let deadline = Instant::now() + Duration::from_secs(60);
    let mut last = (sum(daemons, "calve_rebalances_total"), Instant::now());
    while last.1.elapsed() < Duration::from_secs(3) {
        assert!(Instant::now() < deadline, "the group does not settle");
        std::thread::sleep(Duration::from_millis(100));
        let now = sum(daemons, "calve_rebalances_total");
        if now != last.0 {
            last = (now, Instant::now());
        }
    }
}

#[test]
fn four_daemons_meet_rarely_on_one_table_and_throw_nothing_away() {
    const PARTITIONS: i64 = 8;
    let broker = Broker::light();
    broker.create_topic("events", PARTITIONS as i32, &[]);
    // Well above what a commit takes, even of a debug build beside other tests: they meet by chance, not by need.
    let project = Project::new(&broker, "commit_interval = \"2s\"\n");
    let mut next = 0;
    let mut produce = || {
        let records = (next..next + 80).map(|id| Record::new((id % PARTITIONS) as i32, event(id)));
        broker.produce("events", &records.collect::<Vec<_>>());
        next += 80;
    };
    let daemons: Vec<Daemon> = (0..4).map(|_| project.start()).collect();
    produce();
    wait_until_shared(&daemons);
    let names = ["calve_commits_total", "calve_commit_conflicts_total", "calve_discarded_batches_total"];
    let before = names.map(|name| sum(&daemons, name));
    let until = Instant::now() + Duration::from_secs(20);
    while Instant::now() < until {
        produce();
        std::thread::sleep(Duration::from_millis(50));
    }
    let after = names.map(|name| sum(&daemons, name));
    let [commits, conflicts, discarded] = std::array::from_fn(|at| after[at] - before[at]);
    println!("{commits} commits, {conflicts} conflicts, {discarded} thrown away");
    assert!(commits > 20.0, "{commits} commits");
    assert!(conflicts < commits / 2.0, "{conflicts} conflicts in {commits} commits");
    assert_eq!(discarded, 0.0, "batches that were thrown away without a rebalance");
    // Whoever met another wrote its metadata again, and no data.
    let written: f64 = daemons
        .iter()
        .map(|daemon| {
            let text = daemon.get("/metrics");
            let line = "calve_written_files_total{table=\"bronze.events\"} ";
            text.lines().find_map(|of| of.strip_prefix(line)).unwrap().parse::<f64>().unwrap()
        })
        .sum();
    daemons.into_iter().for_each(|daemon| assert_eq!(daemon.terminate(), 0));
    let data = files(&project.path().join("warehouse/bronze/events/data"));
    assert!(data as f64 >= written, "{data} data files, {written} committed before the end");
    project.catch_up();
    project.assert_exactly_once(&broker, "events");
    let metadata = project.metadata("bronze.events");
    let live = crate::support::engines::run("offsets.py", &["--files", &metadata]);
    assert_eq!(files(&project.path().join("warehouse/bronze/events/data")), live.trim().parse::<usize>().unwrap());
}

/// Parquet files below a folder.
fn files(folder: &std::path::Path) -> usize {
    let entries = std::fs::read_dir(folder).into_iter().flatten().map(|entry| entry.unwrap().path());
    entries
        .map(
            |path| {
                if path.is_dir() { files(&path) } else { usize::from(path.extension().is_some_and(|e| e == "parquet")) }
            },
        )
        .sum()
}

/// A data file, a manifest, a manifest list, and one word to the catalog: more a commit does not cost, whatever the
/// catalog's server itself writes.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_commit_costs_three_puts_and_one_request() {
    const COMMITS: u64 = 40;
    let (broker, s3) = (Broker::light(), Part::start("s3", &[]));
    broker.create_topic("events", 1, &[]);
    let endpoint = format!("s3.endpoint={}", s3.address);
    let rest = [
        "warehouse=s3://lake/warehouse",
        "io-impl=org.apache.iceberg.aws.s3.S3FileIO",
        &endpoint,
        "s3.path-style-access=true",
        "s3.access-key-id=calve-access-key",
        "s3.secret-access-key=calve-secret-key",
        "client.region=us-east-1",
    ];
    let rest = Part::start("rest", &rest);
    let (catalog, store) = (Proxy::start(&rest.address).await, Proxy::start(&s3.address).await);
    let text = format!(
        "type = \"rest\"\nuri = \"{}\"\n\"s3.endpoint\" = \"{}\"\n\"s3.region\" = \"us-east-1\"\n\
         \"s3.path-style-access\" = \"true\"\n\"s3.access-key-id\" = \"calve-access-key\"\n\
         \"s3.secret-access-key\" = \"calve-secret-key\"\n",
        catalog.url(&rest.address),
        store.url(&s3.address).trim_end_matches('/')
    );
    let project = Project::with(&broker, "", "commit_interval = \"1ms\"\n", &text);
    let daemon = project.start();
    let one = |id: u64| {
        broker.produce("events", &[Record::new(0, event(id as i64))]);
        daemon.wait_for_rows("events", id + 1);
    };
    (0..5).for_each(one);
    let requests = |proxy: &Proxy, method| proxy.requests().get(method).copied().unwrap_or(0);
    let count = || {
        [
            requests(&catalog, "POST"),
            requests(&catalog, "GET") + requests(&catalog, "HEAD"),
            requests(&store, "PUT"),
            requests(&store, "POST"),
            requests(&store, "GET") + requests(&store, "HEAD"),
        ]
    };
    let before = count();
    (5..5 + COMMITS).for_each(one);
    let after = count();
    let cost: [u64; 5] = std::array::from_fn(|at| after[at] - before[at]);
    println!(
        "{COMMITS} commits: catalog POST {}, GET {}; store PUT {}, POST {}, GET and HEAD {}",
        cost[0], cost[1], cost[2], cost[3], cost[4]
    );
    assert_eq!(cost[0], COMMITS, "one request to the catalog a commit");
    assert_eq!(cost[2], 3 * COMMITS, "a data file, a manifest, a manifest list");
    // Once a minute the table is looked at; what expired is read before it is deleted.
    assert!(cost[1] <= 2, "{} loads of the table", cost[1]);
    assert_eq!(daemon.terminate(), 0);
}
