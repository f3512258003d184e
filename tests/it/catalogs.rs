//! One behaviour for every catalog: what a committer relies on, asked of each of them.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::Arc;
use std::time::Duration;

use calve::catalog::{self, Catalog, Error, TableChange};
use calve::config::CatalogKind;
use iceberg::spec::{NestedField, PrimitiveType, Schema, Type};
use iceberg::table::Table;
use iceberg::{NamespaceIdent, TableIdent, TableRequirement, TableUpdate};

use crate::support::parts::Part;
use crate::support::tables::{append, commit_ids, configured, creation, fresh_table, glue_properties, namespace};

/// All that a catalog promises, in a namespace of its own.
pub async fn behaves(catalog: Arc<dyn Catalog>) {
    behaves_with(catalog, &["bronze", "eu west"], "naïve table").await;
}

/// `deep` is a namespace and `odd` a table's name that the catalog must take as well.
async fn behaves_with(catalog: Arc<dyn Catalog>, deep: &[&str], odd: &str) {
    let bronze = namespace(&["bronze"]);
    names(catalog.as_ref(), &bronze, deep, odd).await;
    creates(catalog.as_ref(), &bronze).await;
    commits_and_conflicts(catalog.as_ref(), &bronze).await;
    evolves_and_appends_at_once(catalog.as_ref(), &bronze).await;
    keeps_a_metadata_log(catalog.as_ref(), &bronze).await;
    commits_together(catalog.as_ref(), &bronze).await;
    makes_with_a_snapshot(catalog.as_ref(), &bronze).await;
    races(catalog, &bronze).await;
}

async fn names(catalog: &dyn Catalog, bronze: &NamespaceIdent, deep: &[&str], odd: &str) {
    assert!(matches!(catalog.tables(bronze).await, Err(Error::NotFound(_))));
    let ident = TableIdent::new(bronze.clone(), "t".to_owned());
    assert!(matches!(catalog.load(&ident).await, Err(Error::NotFound(_))));
    let homeless = catalog.create(&ident, creation()).await;
    assert!(matches!(homeless, Err(Error::NotFound(_))), "{homeless:?}");
    assert!(matches!(catalog.drop_table(&ident).await, Err(Error::NotFound(_))));
    catalog.create_namespace(bronze).await.unwrap();
    assert!(matches!(catalog.create_namespace(bronze).await, Err(Error::AlreadyExists(_))));
    assert_eq!(catalog.tables(bronze).await.unwrap(), []);
    let deep = namespace(deep);
    catalog.create_namespace(&deep).await.unwrap();
    let all = catalog.namespaces().await.unwrap();
    assert!(all.contains(bronze) && all.contains(&deep), "{all:?}");
    let table = fresh_table(catalog, &deep, odd).await;
    assert_eq!(catalog.tables(&deep).await.unwrap(), [table.identifier().clone()]);
    assert_eq!(catalog.load(table.identifier()).await.unwrap().metadata().uuid(), table.metadata().uuid());
    catalog.drop_table(table.identifier()).await.unwrap();
    assert!(matches!(catalog.load(table.identifier()).await, Err(Error::NotFound(_))));
}

async fn creates(catalog: &dyn Catalog, bronze: &NamespaceIdent) {
    let created = fresh_table(catalog, bronze, "orders").await;
    let again = catalog.create(created.identifier(), creation()).await;
    assert!(matches!(again, Err(Error::AlreadyExists(_))));
    let loaded = catalog.load(created.identifier()).await.unwrap();
    assert_eq!(loaded.metadata(), created.metadata());
    let schema = loaded.metadata().current_schema();
    for (name, id) in [("id", 1), ("name", 2), ("_kafka", 3), ("_raw", 4), ("_kafka.timestamp", 6)] {
        assert_eq!(schema.field_id_by_name(name), Some(id), "{name}");
    }
    assert_eq!(schema.field_by_id(1).unwrap().doc.as_deref(), Some("the order's number"));
    assert_eq!(loaded.metadata().default_partition_spec().fields()[0].source_id, 6);
    assert_eq!(loaded.metadata().properties()["calve.mapping-version"], "1");
    assert_eq!(loaded.metadata().current_snapshot_id(), None);
}

async fn commits_and_conflicts(catalog: &dyn Catalog, bronze: &NamespaceIdent) {
    let base = fresh_table(catalog, bronze, "fenced").await;
    let (requirements, updates) = append(&base, "one").await;
    let after = catalog.commit(&base, requirements, updates).await.unwrap();
    assert_eq!(commit_ids(&after), ["one"]);
    assert_ne!(after.metadata_location(), base.metadata_location());
    // The same base again: whoever is late finds the table moved.
    let (requirements, updates) = append(&base, "late").await;
    let late = catalog.commit(&base, requirements, updates).await;
    assert!(matches!(late, Err(Error::Conflict(_))), "{late:?}");
    let loaded = catalog.load(base.identifier()).await.unwrap();
    assert_eq!(commit_ids(&loaded), ["one"]);
    let (requirements, updates) = append(&loaded, "two").await;
    let after = catalog.commit(&loaded, requirements, updates).await.unwrap();
    assert_eq!(commit_ids(&after), ["two", "one"]);
    // Dropped and made again under the same name is another table.
    catalog.drop_table(base.identifier()).await.unwrap();
    let (requirements, updates) = append(&after, "ghost").await;
    let ghost = catalog.commit(&after, requirements.clone(), updates.clone()).await;
    assert!(matches!(ghost, Err(Error::Conflict(_) | Error::NotFound(_))), "{ghost:?}");
    let remade = fresh_table(catalog, bronze, "fenced").await;
    let ghost = catalog.commit(&after, requirements, updates).await;
    assert!(matches!(ghost, Err(Error::Conflict(_))), "{ghost:?}");
    assert_eq!(commit_ids(&catalog.load(remade.identifier()).await.unwrap()), Vec::<String>::new());
}

async fn evolves_and_appends_at_once(catalog: &dyn Catalog, bronze: &NamespaceIdent) {
    let base = fresh_table(catalog, bronze, "evolving").await;
    let schema = base.metadata().current_schema();
    let next_id = base.metadata().last_column_id() + 1;
    let mut fields = schema.as_struct().fields().to_vec();
    fields.push(NestedField::optional(next_id, "added", Type::Primitive(PrimitiveType::Double)).into());
    let wider = Schema::builder().with_schema_id(1).with_fields(fields).build().unwrap();
    let (requirements, appended) = append(&base, "wider").await;
    let mut updates = vec![
        TableUpdate::AddSchema { schema: wider },
        TableUpdate::SetCurrentSchema { schema_id: -1 },
        TableUpdate::SetProperties { updates: HashMap::from([("calve.columns".to_owned(), "{}".to_owned())]) },
    ];
    updates.extend(appended);
    catalog.commit(&base, requirements, updates).await.unwrap();
    let loaded = catalog.load(base.identifier()).await.unwrap();
    assert_eq!(loaded.metadata().current_schema().field_id_by_name("added"), Some(next_id));
    assert_eq!(loaded.metadata().properties()["calve.columns"], "{}");
    assert_eq!(commit_ids(&loaded), ["wider"]);
}

/// Rows and rejects of a batch as one change, where the catalog has such a thing.
async fn commits_together(catalog: &dyn Catalog, bronze: &NamespaceIdent) {
    if !catalog.commits_together() {
        return;
    }
    async fn changes<'a>(bases: [&'a Table; 2], id: &str) -> Vec<TableChange<'a>> {
        let mut changes = Vec::new();
        for base in bases {
            let (requirements, updates) = append(base, id).await;
            changes.push(TableChange { base, requirements, updates });
        }
        changes
    }
    let (rejects, rows) =
        (fresh_table(catalog, bronze, "pair_rejects").await, fresh_table(catalog, bronze, "pair").await);
    let after = catalog.commit_together(changes([&rejects, &rows], "both").await).await.unwrap();
    assert_eq!(after.iter().map(Table::identifier).collect::<Vec<_>>(), [rejects.identifier(), rows.identifier()]);
    for table in &after {
        assert_eq!(commit_ids(table), ["both"]);
        assert_eq!(commit_ids(&catalog.load(table.identifier()).await.unwrap()), ["both"]);
    }
    // One of them was changed meanwhile: so is neither. (A REST server that says no may have done the half of it.)
    for bases in [[&after[0], &rows], [&rejects, &after[1]]] {
        let late = catalog.commit_together(changes(bases, "late").await).await;
        assert!(matches!(late, Err(Error::Conflict(_) | Error::Unknown(_))), "{late:?}");
        for table in &after {
            assert_eq!(commit_ids(&catalog.load(table.identifier()).await.unwrap()), ["both"]);
        }
    }
}

/// A table that comes with its first snapshot, where the catalog has such a thing: of two who make it, one does.
async fn makes_with_a_snapshot(catalog: &dyn Catalog, bronze: &NamespaceIdent) {
    let ident = TableIdent::new(bronze.clone(), "staged".to_owned());
    let Some(staged) = catalog.stage(&ident, &creation()).await.unwrap() else { return };
    let other = catalog.stage(&ident, &creation()).await.unwrap().unwrap();
    assert!(matches!(catalog.load(&ident).await, Err(Error::NotFound(_))), "staged is not made");
    let first = async |staged: &Table, id: &str| {
        let (_, updates) = append(staged, id).await;
        catalog.commit(staged, vec![TableRequirement::NotExist], updates).await
    };
    let made = first(&staged, "one").await.unwrap();
    let late = first(&other, "late").await;
    assert!(matches!(late, Err(Error::AlreadyExists(_))), "{late:?}");
    let loaded = catalog.load(&ident).await.unwrap();
    assert_eq!(loaded.metadata().uuid(), made.metadata().uuid());
    assert_eq!(commit_ids(&loaded), ["one"]);
    let plain = fresh_table(catalog, bronze, "not_staged").await;
    let (staged, plain) = (loaded.metadata(), plain.metadata());
    assert_eq!(staged.current_schema().as_struct(), plain.current_schema().as_struct());
    assert_eq!(staged.default_partition_spec().fields(), plain.default_partition_spec().fields());
    let mut properties = staged.properties().clone();
    // Iceberg's own server says so of tables that it only thinks up.
    properties.remove("created-at");
    assert_eq!(properties, *plain.properties());
    assert_eq!(staged.format_version(), plain.format_version());
}

async fn keeps_a_metadata_log(catalog: &dyn Catalog, bronze: &NamespaceIdent) {
    let mut wanted = creation();
    wanted.properties.insert("write.metadata.previous-versions-max".to_owned(), "2".to_owned());
    wanted.properties.insert("write.metadata.delete-after-commit.enabled".to_owned(), "true".to_owned());
    let ident = TableIdent::new(bronze.clone(), "logged".to_owned());
    let mut table = catalog.create(&ident, wanted).await.unwrap();
    let mut locations = vec![table.metadata_location().unwrap().to_owned()];
    for round in 0..4 {
        let (requirements, updates) = append(&table, &round.to_string()).await;
        table = catalog.commit(&table, requirements, updates).await.unwrap();
        locations.push(table.metadata_location().unwrap().to_owned());
    }
    let logged: Vec<_> = table.metadata().metadata_log().iter().map(|log| log.metadata_file.clone()).collect();
    assert_eq!(logged, locations[2..4]);
    assert!(table.file_io().exists(&locations[3]).await.unwrap());
    // In the background; within a bounded time.
    for waited in 0.. {
        let mut left = 0;
        for old in &locations[..2] {
            left += u32::from(table.file_io().exists(old).await.unwrap());
        }
        if left == 0 {
            break;
        }
        assert!(waited < 100, "old metadata files stay");
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
}

/// Eight writers, each with its appends: every one wins in its turn, none is lost, none comes twice.
async fn races(catalog: Arc<dyn Catalog>, bronze: &NamespaceIdent) {
    const WRITERS: usize = 8;
    const APPENDS: usize = 3;
    let table = fresh_table(catalog.as_ref(), bronze, "raced").await;
    let mut writers = tokio::task::JoinSet::new();
    for writer in 0..WRITERS {
        let (catalog, ident) = (catalog.clone(), table.identifier().clone());
        writers.spawn(async move {
            let mut lost = 0;
            for round in 0..APPENDS {
                loop {
                    let base = catalog.load(&ident).await.unwrap();
                    let (requirements, updates) = append(&base, &format!("{writer}/{round}")).await;
                    match catalog.commit(&base, requirements, updates).await {
                        Ok(_) => break,
                        Err(Error::Conflict(_) | Error::Unavailable(_)) => lost += 1,
                        Err(error) => panic!("{error}"),
                    }
                    assert!(lost < 1000, "writer {writer} never wins");
                    tokio::time::sleep(Duration::from_millis(rand::random_range(1..50))).await;
                }
            }
        });
    }
    while let Some(writer) = writers.join_next().await {
        writer.unwrap();
    }
    let ids = commit_ids(&catalog.load(table.identifier()).await.unwrap());
    let distinct: BTreeSet<_> = ids.iter().collect();
    assert_eq!((ids.len(), distinct.len()), (WRITERS * APPENDS, WRITERS * APPENDS), "{ids:?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn sqlite_behaves() {
    let folder = tempfile::tempdir().unwrap();
    // A folder that is not there yet, with characters that a URL would take for its own.
    let root = folder.path().join("a b#1%20?");
    let uri = format!("sqlite:///{}/catalog.db", root.display());
    let warehouse = root.join("warehouse");
    let config = configured("local", CatalogKind::Sql, &[("uri", &uri), ("warehouse", warehouse.to_str().unwrap())]);
    behaves(catalog::open(&config).await.unwrap()).await;
    // Opened again, by another process as it were, everything is still there.
    let again = catalog::open(&config).await.unwrap();
    assert_eq!(again.tables(&namespace(&["bronze"])).await.unwrap().len(), 7);
    let leftovers: BTreeMap<_, _> = walk(&root).into_iter().filter(|(name, _)| name.ends_with(".tmp")).collect();
    assert!(leftovers.is_empty(), "{leftovers:?}");
}

/// Name → size of every file below a folder.
fn walk(folder: &std::path::Path) -> BTreeMap<String, u64> {
    let mut files = BTreeMap::new();
    for entry in std::fs::read_dir(folder).unwrap() {
        let entry = entry.unwrap();
        if entry.file_type().unwrap().is_dir() {
            files.extend(walk(&entry.path()));
        } else {
            files.insert(entry.path().display().to_string(), entry.metadata().unwrap().len());
        }
    }
    files
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn postgres_behaves() {
    let postgres = Part::start("postgres", &[]);
    let folder = tempfile::tempdir().unwrap();
    let warehouse = format!("file://{}", folder.path().display());
    let config = configured("lake", CatalogKind::Sql, &[("uri", &postgres.address), ("warehouse", &warehouse)]);
    behaves(catalog::open(&config).await.unwrap()).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn rest_behaves() {
    let rest = Part::start("rest", &[]);
    // A slash at the end must not matter.
    let uri = format!("{}/", rest.address);
    let config = configured("rest", CatalogKind::Rest, &[("uri", &uri)]);
    behaves(catalog::open(&config).await.unwrap()).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn glue_behaves() {
    let glue = Part::start("glue", &[]);
    let folder = tempfile::tempdir().unwrap();
    let warehouse = folder.path().display().to_string();
    let mut properties = glue_properties(&glue.address);
    properties.push(("warehouse", warehouse));
    let mut properties: Vec<_> = properties.iter().map(|(key, value)| (*key, value.as_str())).collect();
    let catalog = catalog::open(&configured("glue", CatalogKind::Glue, &properties)).await.unwrap();
    behaves_with(catalog.clone(), &["eu_west"], "t_1").await;
    // Names that Glue would fold, or Athena not read, are refused before they are written.
    for (space, name) in [(&["bronze", "deep"][..], "t"), (&["bronze"][..], "Orders"), (&["eu-west"][..], "t")] {
        let ident = TableIdent::new(namespace(space), name.to_owned());
        assert!(matches!(catalog.create(&ident, creation()).await, Err(Error::Refused(_))), "{ident}");
    }
    // What Glue keeps beside the pointer, as its console and Athena's lists show it.
    let table = TableIdent::new(namespace(&["bronze"]), "evolving".to_owned());
    let now = catalog.load(&table).await.unwrap();
    let entry = glue_table(&glue.address, "bronze", "evolving").await;
    let (parameters, columns) = (&entry["Parameters"], &entry["StorageDescriptor"]["Columns"]);
    assert_eq!(entry["TableType"], "EXTERNAL_TABLE");
    assert_eq!(parameters["table_type"], "ICEBERG");
    assert_eq!(parameters["metadata_location"].as_str(), now.metadata_location());
    assert_eq!(parameters["previous_metadata_location"], now.metadata().metadata_log()[0].metadata_file);
    let shown: Vec<_> =
        columns.as_array().unwrap().iter().map(|column| format!("{} {}", column["Name"], column["Type"])).collect();
    let kafka = "struct<partition:int,timestamp:timestamp>";
    let wanted = ["id bigint", "name string", &format!("_kafka {kafka}"), "_raw binary", "added double"];
    assert_eq!(shown.iter().map(|column| column.replace('"', "")).collect::<Vec<_>>(), wanted);
    assert_eq!(columns[0]["Comment"], "the order's number");
    assert_eq!(columns[4]["Parameters"]["iceberg.field.current"], "true");
    // Without old versions, of which Glue keeps a limited number; with them where they are wanted.
    assert_eq!(versions(&glue.address, "raced").await, 1);
    properties.push(("glue.skip-archive", "false"));
    let keeping = catalog::open(&configured("glue", CatalogKind::Glue, &properties)).await.unwrap();
    let (requirements, updates) = append(&now, "kept").await;
    keeping.commit(&now, requirements, updates).await.unwrap();
    assert_eq!(versions(&glue.address, "evolving").await, 2);
}

/// What Glue itself answers, asked without us.
async fn glue_asked(address: &str, action: &str, body: serde_json::Value) -> serde_json::Value {
    let request = reqwest::Client::new().post(address).header("x-amz-target", format!("AWSGlue.{action}"));
    let request =
        request.header("authorization", "AWS4-HMAC-SHA256 Credential=k/20261122/us-east-1/glue/aws4_request, ");
    let answer =
        request.header("content-type", "application/x-amz-json-1.1").body(body.to_string()).send().await.unwrap();
    serde_json::from_slice(&answer.bytes().await.unwrap()).unwrap()
}

async fn glue_table(address: &str, database: &str, name: &str) -> serde_json::Value {
    glue_asked(address, "GetTable", serde_json::json!({ "DatabaseName": database, "Name": name })).await["Table"].take()
}

async fn versions(address: &str, name: &str) -> usize {
    let body = serde_json::json!({ "DatabaseName": "bronze", "TableName": name });
    glue_asked(address, "GetTableVersions", body).await["TableVersions"].as_array().unwrap().len()
}
