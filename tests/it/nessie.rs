//! Nessie, as strange as a REST catalog gets: it asks a Keycloak who is there, vends keys of a MinIO for each table, keeps a
//! table's newest snapshot only, and does not fence its first one.

use std::collections::{BTreeSet, HashMap};
use std::sync::Arc;
use std::time::Duration;

use calve::catalog::{self, Catalog, Creation, Error};
use calve::commit::create::{Wanted, ensure_table};
use calve::config::CatalogKind;
use iceberg::TableIdent;
use iceberg::spec::UnboundPartitionSpec;
use iceberg::table::Table;

use crate::support::broker::{Broker, Record};
use crate::support::engines;
use crate::support::parts::Part;
use crate::support::project::{Project, damaged, event};
use crate::support::proxy::{Fault, Proxy};
use crate::support::tables::{append, commit_ids, configured, creation, namespace};

/// Tokens live so long: every test outlives several.
const TOKEN_SECONDS: &str = "ttl=4";

pub struct Nessie {
    nessie: Part,
    realm: Part,
    pub minio: Part,
}

impl Nessie {
    /// `ttl=SECONDS`: how long its tokens live.
    pub fn start(token_seconds: &str) -> Nessie {
        let (minio, realm) = (Part::start("minio", &[]), Part::start("keycloak", &[token_seconds]));
        let places = [format!("realm={}", realm.address), format!("s3={}", minio.address)];
        let nessie = Part::start("nessie", &places.each_ref().map(String::as_str));
        Nessie { nessie, realm, minio }
    }

    pub fn properties(&self) -> Vec<(&'static str, String)> {
        self.properties_at(&self.nessie.address)
    }

    /// The properties of its catalog, asked at `uri`.
    fn properties_at(&self, uri: &str) -> Vec<(&'static str, String)> {
        vec![
            ("uri", uri.to_owned()),
            ("warehouse", "lake".to_owned()),
            ("credential", "calve:calve-client-secret".to_owned()),
            ("oauth2-server-uri", format!("{}/protocol/openid-connect/token", self.realm.address)),
            ("scope", "catalog".to_owned()),
            ("calve.trust-mirror", "true".to_owned()),
        ]
    }

    pub async fn open(&self) -> Arc<dyn Catalog> {
        let properties = self.properties();
        let properties: Vec<_> = properties.iter().map(|(key, value)| (*key, value.as_str())).collect();
        catalog::open(&configured("nessie", CatalogKind::Rest, &properties)).await.unwrap()
    }

    /// `catalogs/NAME.toml`.
    fn toml(&self, uri: &str) -> String {
        let lines = self.properties_at(uri);
        let lines = lines.iter().map(|(key, value)| format!("\"{key}\" = \"{value}\"\n"));
        format!("type = \"rest\"\n{}", lines.collect::<String>())
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nessie_behaves_as_far_as_it_goes() {
    let nessie = Nessie::start(TOKEN_SECONDS);
    let catalog = nessie.open().await;
    let (bronze, deep) = (namespace(&["bronze"]), namespace(&["bronze", "eu west"]));
    let ident = TableIdent::new(bronze.clone(), "t".to_owned());
    assert!(matches!(catalog.load(&ident).await, Err(Error::NotFound(_))));
    catalog.create_namespace(&bronze).await.unwrap();
    assert!(matches!(catalog.create_namespace(&bronze).await, Err(Error::AlreadyExists(_))));
    catalog.create_namespace(&deep).await.unwrap();
    let all = catalog.namespaces().await.unwrap();
    assert!(all.contains(&bronze) && all.contains(&deep), "{all:?}");

    // Nessie partitions by no column inside of a struct.
    let nested = Wanted {
        schema: creation().schema,
        partition_spec: creation().partition_spec,
        partitions_may_go: false,
        sort_order: creation().sort_order,
        properties: HashMap::new(),
        mapping: None,
        first_snapshot: true,
    };
    let refused = ensure_table(&catalog, &ident, nested).await.unwrap_err().to_string();
    assert!(refused.contains("partition_by"), "{refused}");
    let plain = || Creation { partition_spec: UnboundPartitionSpec::builder().build(), ..creation() };
    let ident = TableIdent::new(deep.clone(), "naïve table".to_owned());
    let created = catalog.create(&ident, plain()).await.unwrap();
    let again = catalog.create(created.identifier(), plain()).await;
    assert!(matches!(again, Err(Error::AlreadyExists(_))), "{again:?}");
    assert_eq!(catalog.tables(&deep).await.unwrap(), [created.identifier().clone()]);
    let loaded = catalog.load(created.identifier()).await.unwrap();
    assert_eq!(loaded.metadata().uuid(), created.metadata().uuid());
    assert_eq!(loaded.metadata().properties()["calve.mapping-version"], "1");

    // Each written with keys that were vended for this table.
    let (requirements, updates) = append(&loaded, "one").await;
    let one = catalog.commit(&loaded, requirements, updates).await.unwrap();
    assert_eq!(commit_ids(&one), ["one"]);
    let (requirements, updates) = append(&one, "two").await;
    let two = catalog.commit(&one, requirements.clone(), updates.clone()).await.unwrap();
    assert_eq!(commit_ids(&two).first().map(String::as_str), Some("two"));
    let late = catalog.commit(&one, requirements, updates).await;
    assert!(matches!(late, Err(Error::Conflict(_))), "{late:?}");

    // A token that has expired meanwhile is renewed.
    tokio::time::sleep(Duration::from_secs(5)).await;
    let loaded = catalog.load(created.identifier()).await.unwrap();
    assert_eq!(commit_ids(&loaded).first().map(String::as_str), Some("two"));

    // Eight at once onto one head: one of them wins.
    let mut racing = tokio::task::JoinSet::new();
    for writer in 0..8 {
        let (catalog, base) = (catalog.clone(), loaded.clone());
        racing.spawn(async move {
            let (requirements, updates) = append(&base, &format!("racer {writer}")).await;
            (writer, catalog.commit(&base, requirements, updates).await)
        });
    }
    let mut winners = BTreeSet::new();
    while let Some(ended) = racing.join_next().await {
        match ended.unwrap() {
            (writer, Ok(_)) => _ = winners.insert(format!("racer {writer}")),
            (_, Err(Error::Conflict(_))) => {}
            (writer, Err(error)) => panic!("racer {writer}: {error:?}"),
        }
    }
    let head = commit_ids(&catalog.load(loaded.identifier()).await.unwrap());
    assert_eq!(winners.iter().collect::<Vec<_>>(), [&head[0]]);

    catalog.drop_table(created.identifier()).await.unwrap();
    assert!(matches!(catalog.load(created.identifier()).await, Err(Error::NotFound(_))));
}

/// One in fifty is damaged.
pub fn records(partitions: i64, ids: std::ops::Range<i64>) -> Vec<Record> {
    let value = |id| if id % 50 == 7 { damaged(id) } else { event(id) };
    ids.map(|id| Record::new((id % partitions) as i32, value(id))).collect()
}

/// The table that daemons fill, and that of its rejects.
const TABLES: [&str; 2] = ["bronze.events", "bronze.events__quarantine"];

async fn load(catalog: &dyn Catalog, table: &str) -> Table {
    catalog.load(&TableIdent::from_strs(table.split('.')).unwrap()).await.unwrap()
}

/// The tables on this MinIO are the log: DuckDB, told by the catalog where they are, says so, and so does
/// `calve verify`.
pub async fn assert_exactly_once(project: &Project, broker: &Broker, catalog: &dyn Catalog, minio: &Part) {
    let mut places = HashMap::new();
    for table in TABLES {
        places.insert(table, load(catalog, table).await.metadata_location().unwrap().to_owned());
    }
    project.assert_offsets(broker, "events", |table| {
        engines::run("offsets.py", &[&places[table], minio.address.as_str()])
    });
    let (code, out, errors) = project.calve(&["verify", TABLES[0], "--deep"]);
    assert_eq!(code, 0, "{out}\n{errors}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn daemons_that_start_at_once_fill_one_table_in_nessie() {
    let (broker, nessie) = (Broker::light(), Nessie::start(TOKEN_SECONDS));
    broker.create_topic("events", 4, &[]);
    broker.produce("events", &records(4, 0..800));
    let proxy = Proxy::start(&nessie.nessie.address).await;
    let project = Project::with(
        &broker,
        "",
        "commit_interval = \"200ms\"\npartition_by = []\n",
        &nessie.toml(&proxy.url(&nessie.nessie.address)),
    );
    // All of them find no table.
    let mut daemons = vec![project.start(), project.start(), project.start()];
    let rounds = 12;
    for round in 1..rounds {
        broker.produce("events", &records(4, round * 800..(round + 1) * 800));
        match round {
            3 | 6 => proxy.arm("/tables/events HTTP", Fault::LoseAnswer, 2),
            4 => proxy.arm("/tables/events HTTP", Fault::Garble(503), 1),
            5 => daemons.remove(0).kill(),
            7 => daemons.push(project.start()),
            9 => proxy.cut(),
            _ => {}
        }
        tokio::time::sleep(Duration::from_millis(600)).await;
    }
    for daemon in daemons {
        let log = daemon.log();
        assert_eq!(daemon.terminate(), 0, "{log}");
    }
    assert!(proxy.met() >= 2, "the daemons do not come by the proxy");
    proxy.disarm();
    project.catch_up();

    let catalog = nessie.open().await;
    for table in TABLES {
        let snapshots = load(&*catalog, table).await.metadata().snapshots().count();
        assert_eq!(snapshots, 1, "Nessie keeps them all now? so should the other tests");
    }
    assert_exactly_once(&project, &broker, &*catalog, &nessie.minio).await;

    // A field that comes later has its column, whatever numbers Nessie gives.
    project.edit("proto/test/v1/event.proto", "message Event {", "message Event {\n  int64 added = 999;");
    let added = |id: i64| [event(id), vec![0xb8, 0x3e, 7]].concat();
    let ids = rounds * 800..rounds * 800 + 100;
    broker.produce("events", &ids.map(|id| Record::new((id % 4) as i32, added(id))).collect::<Vec<_>>());
    project.catch_up();
    let sql = "SELECT count(*) FROM bronze.events WHERE added = 7";
    let (code, out, errors) = project.calve(&["query", "--format", "csv", sql]);
    assert_eq!((code, out.lines().nth(1)), (0, Some("100")), "{out}\n{errors}");
    let (code, out, errors) = project.calve(&["verify", TABLES[0], "--deep"]);
    assert_eq!(code, 0, "{out}\n{errors}");
}
