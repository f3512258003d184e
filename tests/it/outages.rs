//! The daemon behind a bad network: delays, resets, lost answers and gateways' words between it and catalog, store and
//! broker. It goes on by itself, and afterwards the table is the log.

use std::ops::Range;
use std::time::Duration;

use rand::rngs::StdRng;
use rand::seq::IndexedRandom;
use rand::{Rng, SeedableRng};

use crate::support::broker::{Broker, Record};
use crate::support::parts::Part;
use crate::support::project::{Daemon, Project, damaged, event};
use crate::support::proxy::{Fault, Proxy};

const ROUNDS: usize = 25;
/// Records of a round.
const COUNT: i64 = 300;

fn random() -> StdRng {
    let seed = std::env::var("CALVE_SEED").ok().and_then(|seed| seed.parse().ok()).unwrap_or_else(rand::random);
    println!("CALVE_SEED={seed}");
    StdRng::seed_from_u64(seed)
}

/// One in fifty is damaged.
fn records(ids: Range<i64>) -> Vec<Record> {
    let value = |id| if id % 50 == 7 { damaged(id) } else { event(id) };
    ids.map(|id| Record::new((id % 2) as i32, value(id))).collect()
}

/// Rounds of records that meet faults drawn from these, on requests that contain these words; waits until the daemon
/// has come through by itself. How many records there were.
fn endure(
    broker: &Broker,
    proxy: &Proxy,
    daemon: &Daemon,
    random: &mut StdRng,
    words: &[&str],
    faults: &[Fault],
) -> i64 {
    let mut round = 0;
    // More of them where the daemon hangs often: then it asks for little meanwhile.
    while round < ROUNDS || proxy.met() <= ROUNDS as u32 / 2 {
        assert!(round < 10 * ROUNDS, "only {} requests met a fault", proxy.met());
        let (words, fault) = (*words.choose(random).unwrap(), *faults.choose(random).unwrap());
        proxy.arm(words, fault, random.random_range(1..=2));
        broker.produce("events", &records(round as i64 * COUNT..(round as i64 + 1) * COUNT));
        std::thread::sleep(Duration::from_millis(random.random_range(50..500)));
        if random.random_ratio(1, 6) {
            proxy.cut();
        }
        round += 1;
    }
    proxy.disarm();
    let total = round as i64 * COUNT;
    daemon.wait_for_rows("events", total as u64 * 49 / 50);
    total
}

const STATUSES: [u16; 5] = [429, 500, 502, 503, 504];

fn http_faults() -> Vec<Fault> {
    let mut faults = vec![
        Fault::Reset,
        Fault::LoseAnswer,
        Fault::Stall,
        Fault::Delay(Duration::from_millis(400)),
        Fault::Garble(200),
    ];
    faults.extend(STATUSES.map(Fault::Refuse));
    faults.extend(STATUSES.map(Fault::Garble));
    faults
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_rest_catalog_behind_a_bad_network() {
    let mut random = random();
    let (broker, rest) = (Broker::light(), Part::start("rest", &[]));
    let proxy = Proxy::start(&rest.address).await;
    broker.create_topic("events", 2, &[]);
    let project = Project::new(&broker, "commit_interval = \"100ms\"\n").on_rest(&rest.address);
    let catalog = format!(
        "type = \"rest\"\nuri = \"{}\"\n\"rest.client.socket-timeout-ms\" = \"1500\"\n",
        proxy.url(&rest.address)
    );
    project.write("catalogs/local.toml", &catalog);
    // Making the namespace and the tables meets faults, too: the table may be there although nobody said so.
    let (namespaces, tables, table) =
        ("POST /v1/namespaces ", "POST /v1/namespaces/bronze/tables ", "/v1/namespaces/bronze/tables/events");
    proxy.arm(namespaces, Fault::LoseAnswer, 1);
    proxy.arm(tables, Fault::LoseAnswer, 1);
    let daemon = project.start();
    let (both, commit) = ("POST /v1/transactions/commit ", format!("POST {table} "));
    let load = format!("GET {table}");
    endure(&broker, &proxy, &daemon, &mut random, &[both, both, both, &load, &commit], &http_faults());
    let metrics = daemon.get("/metrics");
    let together = "calve_catalog_requests_total{catalog=\"local\",request=\"POST /v1/{prefix}/transactions/commit\"} ";
    assert!(metrics.contains(together), "rows and rejects were never committed as one:\n{metrics}");
    let unknown =
        metrics.lines().find(|line| line.starts_with("calve_commit_unknown_outcomes_total{table=\"bronze.events\"}"));
    assert!(unknown.is_some_and(|line| !line.ends_with(" 0")), "{metrics}");
    assert_eq!(daemon.terminate(), 0);
    project.assert_exactly_once(&broker, "events");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_s3_store_behind_a_bad_network() {
    let mut random = random();
    let (broker, s3) = (Broker::light(), Part::start("s3", &[]));
    let proxy = Proxy::start(&s3.address).await;
    broker.create_topic("events", 2, &[]);
    let project = Project::new(&broker, "commit_interval = \"100ms\"\n");
    let catalog = format!(
        "type = \"sql\"\nuri = \"sqlite:///warehouse/catalog.db\"\nwarehouse = \"s3://lake/warehouse\"\n\
         \"s3.endpoint\" = \"{}\"\n\"s3.region\" = \"us-east-1\"\n\"s3.access-key-id\" = \"calve-access-key\"\n\
         \"s3.secret-access-key\" = \"calve-secret-key\"\n\"s3.path-style-access\" = \"true\"\n",
        proxy.url(&s3.address).trim_end_matches('/')
    );
    project.write("catalogs/local.toml", &catalog);
    let daemon = project.start();
    let faults: Vec<Fault> = http_faults()
        .into_iter()
        // The store's client waits a minute for an answer, and takes a 200 at its word.
        .filter(|fault| !matches!(fault, Fault::Stall | Fault::Garble(200)))
        .collect();
    let words = ["PUT /lake/warehouse", ".parquet", ".avro", ".metadata.json", "GET /lake/warehouse"];
    let total = endure(&broker, &proxy, &daemon, &mut random, &words, &faults);
    assert_eq!(daemon.terminate(), 0);
    let sql = "SELECT _kafka.partition, count(*), count(DISTINCT _kafka.offset), max(_kafka.offset) FROM bronze.events \
               GROUP BY 1 ORDER BY 1";
    let (code, out, errors) = project.calve(&["query", "--format", "csv", sql]);
    assert_eq!(code, 0, "{errors}");
    // Records with id % 50 = 7 are damaged, and all lie in partition 1.
    let (half, bad) = (total / 2, total / 50);
    let wanted = [format!("0,{half},{half},{}", half - 1), format!("1,{0},{0},{1}", half - bad, half - 1)];
    assert_eq!(out.lines().skip(1).collect::<Vec<_>>(), wanted);
    let (code, out, errors) = project.calve(&["verify", "bronze.events", "--deep"]);
    assert_eq!(code, 0, "{out}\n{errors}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_broker_behind_a_bad_network() {
    let mut random = random();
    let broker = Broker::light();
    let proxy = Proxy::kafka(&broker.bootstrap_servers()).await;
    broker.create_topic("events", 2, &[]);
    let project = Project::new(&broker, "commit_interval = \"100ms\"\n");
    project.edit("calve.toml", &broker.bootstrap_servers(), &proxy.address.to_string());
    let daemon = project.start();
    let faults = [Fault::Reset, Fault::LoseAnswer, Fault::Delay(Duration::from_millis(300))];
    // Every request names its client.
    endure(&broker, &proxy, &daemon, &mut random, &["calve"], &faults);
    assert_eq!(daemon.terminate(), 0);
    project.assert_exactly_once(&broker, "events");
}
