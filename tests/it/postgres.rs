//! A catalog in Postgres and its tables on S3: daemons lose the answers of their commits, one of them is killed, and
//! afterwards the tables are the log.

use std::time::{Duration, Instant};

use calve::catalog;
use calve::config::CatalogKind;

use crate::nessie::{assert_exactly_once, records};
use crate::support::broker::Broker;
use crate::support::parts::Part;
use crate::support::project::{Daemon, Project};
use crate::support::proxy::{Fault, Proxy};
use crate::support::tables::configured;

const PARTITIONS: i64 = 3;
/// Records of a round.
const COUNT: i64 = 300;

/// Of a catalog in the database at `uri`, its tables on the MinIO at `s3`.
fn properties<'a>(uri: &'a str, s3: &'a str) -> [(&'static str, &'a str); 7] {
    [
        ("uri", uri),
        ("warehouse", "s3://lake/warehouse"),
        ("s3.endpoint", s3),
        ("s3.region", "us-east-1"),
        ("s3.path-style-access", "true"),
        ("s3.access-key-id", "calve-access-key"),
        ("s3.secret-access-key", "calve-secret-key"),
    ]
}

/// `catalogs/NAME.toml`.
fn toml(properties: &[(&str, &str)]) -> String {
    let lines = properties.iter().map(|(key, value)| format!("\"{key}\" = \"{value}\"\n"));
    format!("type = \"sql\"\n{}", lines.collect::<String>())
}

fn wait_until_assigned(daemon: &Daemon) {
    // One that was killed keeps its partitions until its session ends.
    daemon.wait_for("partitions assigned", Duration::from_secs(60));
}

/// The daemons lose answers of commits; records are produced until they have.
async fn lose_answers(proxy: &Proxy, mut produce: impl FnMut()) {
    // A batch with rejects is a transaction of two swaps: it has happened when COMMIT's answer is lost, and has not
    // when a swap's is. A batch without rejects is a single swap, which has happened.
    for words in ["COMMIT", ".metadata.json"] {
        proxy.arm(words, Fault::LoseAnswer, 2);
        let deadline = Instant::now() + Duration::from_secs(60);
        while !proxy.spent() {
            assert!(Instant::now() < deadline, "no daemon sends {words:?} by the proxy");
            produce();
            tokio::time::sleep(Duration::from_millis(300)).await;
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn two_daemons_fill_one_table_of_a_catalog_in_postgres() {
    let (broker, postgres, minio) = (Broker::light(), Part::start("postgres", &[]), Part::start("minio", &[]));
    broker.create_topic("events", PARTITIONS as i32, &[]);
    let proxy = Proxy::start(&postgres.address).await;
    let by_proxy = toml(&properties(&proxy.url(&postgres.address), &minio.address));
    let project = Project::with(&broker, "", "commit_interval = \"200ms\"\n", &by_proxy);
    let mut next = 0;
    let mut produce = || {
        broker.produce("events", &records(PARTITIONS, next..next + COUNT));
        next += COUNT;
    };
    produce();
    // Both of them find no table.
    let mut daemons = vec![project.start(), project.start()];
    daemons.iter().for_each(wait_until_assigned);
    lose_answers(&proxy, &mut produce).await;

    // At some moment of the commit of these.
    produce();
    tokio::time::sleep(Duration::from_millis(rand::random_range(0..400))).await;
    daemons.remove(0).kill();
    produce();
    daemons.push(project.start());
    wait_until_assigned(&daemons[1]);
    proxy.cut();
    lose_answers(&proxy, &mut produce).await;

    produce();
    for daemon in daemons {
        let log = daemon.log();
        assert_eq!(daemon.terminate(), 0, "{log}");
    }
    project.catch_up();
    let direct = configured("local", CatalogKind::Sql, &properties(&postgres.address, &minio.address));
    let catalog = catalog::open(&direct).await.unwrap();
    assert_exactly_once(&project, &broker, &*catalog, &minio).await;
}
