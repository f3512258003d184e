//! Topics into tables in the catalogs and stores of clouds, through the daemon; and what it says when a store refuses.

use std::path::Path;
use std::process::Command;
use std::time::Duration;

use crate::support::broker::{Broker, Record};
use crate::support::gcs::Uploads;
use crate::support::parts::Part;
use crate::support::project::{Project, damaged, event};

/// One in fifty is damaged.
fn records(partitions: i64, ids: std::ops::Range<i64>) -> Vec<Record> {
    let value = |id| if id % 50 == 7 { damaged(id) } else { event(id) };
    ids.map(|id| Record::new((id % partitions) as i32, value(id))).collect()
}

#[test]
fn two_daemons_fill_one_table_in_glue() {
    let (broker, glue) = (Broker::light(), Part::start("glue", &[]));
    broker.create_topic("events", 4, &[]);
    let catalog = format!(
        "type = \"glue\"\nwarehouse = \"warehouse\"\n\"glue.endpoint\" = \"{}\"\n\"glue.region\" = \"us-east-1\"\n",
        glue.address
    );
    let project = Project::with(&broker, "", "commit_interval = \"100ms\"\n", &catalog);
    // The chain of AWS's credentials finds them where AWS's own tools do.
    project.write("aws/credentials", "[elsewhere]\naws_access_key_id = k\naws_secret_access_key = s\n");
    let file = project.path().join("aws/credentials").display().to_string();
    let environment = [("AWS_SHARED_CREDENTIALS_FILE", file.as_str()), ("AWS_PROFILE", "elsewhere")];
    let daemons = [project.start_with(&[], &environment), project.start_with(&[], &environment)];
    let rounds = 10;
    for round in 0..rounds {
        broker.produce("events", &records(4, round * 400..(round + 1) * 400));
        std::thread::sleep(Duration::from_millis(200));
    }
    let log = || daemons.each_ref().map(|daemon| daemon.log()).join("\n-- the other --\n");
    let committed = || daemons.each_ref().map(|daemon| rows(&daemon.get("/status"))).iter().sum::<u64>();
    let good = (rounds * 400 * 49 / 50) as u64;
    for waited in 0.. {
        if committed() >= good {
            break;
        }
        assert!(waited < 600, "only {} of {good} rows\n{}", committed(), log());
        std::thread::sleep(Duration::from_millis(100));
    }
    for daemon in daemons {
        assert_eq!(daemon.terminate(), 0);
    }
    // `calve verify` asks the catalog, so it needs the credentials too.
    project.write(
        "catalogs/local.toml",
        &format!("{catalog}\"glue.access-key-id\" = \"k\"\n\"glue.secret-access-key\" = \"s\"\n"),
    );
    project.assert_exactly_once(&broker, "events");
}

fn rows(status: &str) -> u64 {
    let status: serde_json::Value = serde_json::from_str(status).unwrap();
    status["topics"]["events"]["rows"].as_u64().unwrap_or_default()
}

/// A catalog on this store.
fn on(warehouse: &str, properties: &str) -> String {
    format!("type = \"sql\"\nuri = \"sqlite:///warehouse/catalog.db\"\nwarehouse = \"{warehouse}\"\n{properties}\n")
}

const AZURE_KEY: &str = "Eby8vdM02xNOcqFlqUwJPLlmEtlCDXJ1OUzFT50uSRZ6IFsuFq2UVErCz4I6tq/K1SZFPTOtr/KBHBeksoGMGw==";

/// Two runs into a table on a store, laid out for object stores, its metadata elsewhere.
fn a_topic_fills_a_table(broker: &Broker, warehouse: &str, metadata: &str, properties: &str) {
    broker.create_topic("events", 2, &[]);
    broker.produce("events", &records(2, 0..3000));
    let keys = format!(
        "[topics.events.properties]\n\"write.object-storage.enabled\" = \"true\"\n\
         \"write.metadata.path\" = \"{metadata}\"\n"
    );
    let project = Project::with(broker, &keys, "", &on(warehouse, properties));
    project.catch_up();
    broker.produce("events", &records(2, 3000..4000));
    project.catch_up();
    let sql = "SELECT count(*), count(DISTINCT (_kafka.partition * 100000 + _kafka.offset)) FROM bronze.events";
    let (code, out, errors) = project.calve(&["query", "--format", "csv", sql]);
    assert_eq!((code, out.lines().nth(1)), (0, Some("3920,3920")), "{out}{errors}");
    let (code, out, errors) = project.calve(&["verify", "bronze.events", "--deep"]);
    assert_eq!(code, 0, "{out}\n{errors}");
}

#[test]
fn a_topic_fills_a_table_in_azure() {
    let (broker, azure) = (Broker::light(), Part::start("azurite", &[]));
    let connection = format!(
        "\"adls.connection-string\" = \"DefaultEndpointsProtocol=http;AccountName=devstoreaccount1;AccountKey={AZURE_KEY};BlobEndpoint={};\"",
        azure.address
    );
    let metadata = "abfss://lake@devstoreaccount1.dfs.core.windows.net/meta/events";
    a_topic_fills_a_table(&broker, "abfss://lake/warehouse", metadata, &connection);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_topic_fills_a_table_in_google() {
    let (broker, google) = (Broker::light(), Part::start("gcs", &[]));
    let uploads = Uploads::start(&google.address).await;
    let nobody = format!("\"gcs.service.host\" = \"{}\"\n\"gcs.no-auth\" = \"true\"", uploads.address);
    a_topic_fills_a_table(&broker, "gs://lake/warehouse", "gs://lake/meta/events", &nobody);
    assert_eq!(uploads.unfinished(), 0);
}

#[test]
fn what_a_store_refuses_halts_in_one_line_that_says_what_to_do() {
    let (broker, s3, azure) = (Broker::light(), Part::start("s3", &[]), Part::start("azurite", &[]));
    broker.create_topic("events", 1, &[]);
    broker.produce("events", &records(1, 0..10));
    let s3 = |id: &str, secret: &str| {
        format!(
            "\"s3.endpoint\" = \"{}\"\n\"s3.region\" = \"us-east-1\"\n\"s3.access-key-id\" = \"{id}\"\n\
             \"s3.secret-access-key\" = \"{secret}\"\n",
            s3.address
        )
    };
    let azure = |key: &str| {
        format!(
            "\"adls.account-name\" = \"devstoreaccount1\"\n\"adls.account-key\" = \"{key}\"\n\"adls.endpoint\" = \"{}\"\n",
            azure.address
        )
    };
    for (warehouse, properties, words) in [
        ("s3://no-such-bucket/w", s3("calve-access-key", "calve-secret-key"), "there is no such bucket: make it"),
        ("s3://lake/w", s3("calve-access-key", "planted-secret"), "check the keys"),
        ("s3://lake/w", s3("somebody", "planted-secret"), "check the keys"),
        ("abfss://nowhere/w", azure(AZURE_KEY), "there is no such bucket: make it"),
        ("abfss://lake/w", azure("cGxhbnRlZC1zZWNyZXQ="), "check the keys"),
    ] {
        let project = Project::with(&broker, "", "", &on(warehouse, &properties));
        let (code, out, log) = project.calve(&["run", "--until-caught-up"]);
        assert_ne!(code, 0, "{warehouse}: {out}");
        let line = log.lines().find(|line| line.contains(words));
        assert!(line.is_some(), "{warehouse}: no {words:?} in {log}");
        assert!(!log.contains("planted-secret") && !log.contains("cGxhbnRlZC1zZWNyZXQ="), "{log}");
    }
}

/// A file system of its own of so many bytes; gone when dropped.
struct Disk<'a>(&'a Path);

impl Disk<'_> {
    fn mount(folder: &Path, bytes: u64) -> Disk<'_> {
        std::fs::create_dir_all(folder).unwrap();
        let size = format!("size={bytes}");
        let mounted =
            Command::new("mount").args(["-t", "tmpfs", "-o", &size, "calve-test"]).arg(folder).output().unwrap();
        let errors = String::from_utf8_lossy(&mounted.stderr);
        assert!(mounted.status.success(), "a small disk can only be made by root: {errors}");
        Disk(folder)
    }
}

impl Drop for Disk<'_> {
    fn drop(&mut self) {
        let _ = Command::new("umount").arg("-l").arg(self.0).status();
    }
}

#[test]
fn a_full_disk_is_waited_out() {
    let broker = Broker::light();
    broker.create_topic("events", 1, &[]);
    let project = Project::new(&broker, "commit_interval = \"100ms\"\n");
    let warehouse = project.path().join("warehouse");
    let _disk = Disk::mount(&warehouse, 16 << 20);
    broker.produce("events", &records(1, 0..100));
    project.catch_up();
    // Somebody else's file takes all the room but what the catalog's database needs for itself.
    std::fs::write(warehouse.join("big"), vec![7; 20 << 20]).expect_err("the disk is small");
    broker.produce("events", &records(1, 100..5000));
    let daemon = project.start();
    daemon.wait_for("the disk is full: make room", Duration::from_secs(60));
    std::fs::remove_file(warehouse.join("big")).unwrap();
    daemon.wait_for_rows("events", 4900 * 49 / 50);
    assert_eq!(daemon.terminate(), 0);
    project.assert_exactly_once(&broker, "events");
}
