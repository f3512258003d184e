//! One catalog, several owners: PyIceberg (SQL, Glue) and Java's JdbcCatalog work on ours and we on theirs.

use std::collections::HashMap;
use std::io::{BufRead, BufReader, Write};
use std::path::PathBuf;
use std::process::{Command, Stdio};

use calve::catalog::{self, Catalog, Error};
use calve::config::CatalogKind;
use iceberg::table::Table;
use iceberg::{TableIdent, TableRequirement, TableUpdate};
use serde_json::Value;

use crate::support::parts::{Part, python, script};
use crate::support::tables::{append, commit_ids, configured, fresh_table, glue_properties, namespace};

/// A catalog that PyIceberg and calve share.
struct Shared {
    _folder: tempfile::TempDir,
    kind: CatalogKind,
    properties: Vec<(&'static str, String)>,
    python: PathBuf,
    /// Of the tests' tables.
    namespace: &'static [&'static str],
}

impl Shared {
    fn sql() -> Shared {
        let folder = tempfile::tempdir().unwrap();
        let uri = format!("sqlite:///{}/catalog.db", folder.path().display());
        let properties = vec![("uri", uri), ("warehouse", format!("file://{}/warehouse", folder.path().display()))];
        Shared { _folder: folder, kind: CatalogKind::Sql, properties, python: python(), namespace: &["eu", "bronze"] }
    }

    fn glue(part: &Part) -> Shared {
        let folder = tempfile::tempdir().unwrap();
        let mut properties = glue_properties(&part.address);
        properties.push(("warehouse", format!("file://{}/warehouse", folder.path().display())));
        let output = Command::new("bash").arg(script("glue")).arg("python").output().expect("bash runs");
        let python = PathBuf::from(String::from_utf8(output.stdout).unwrap().trim());
        Shared { _folder: folder, kind: CatalogKind::Glue, properties, python, namespace: &["bronze"] }
    }

    /// A table's name.
    fn table(&self, name: &str) -> String {
        format!("{}.{name}", self.namespace.join("."))
    }

    async fn calve(&self) -> std::sync::Arc<dyn Catalog> {
        let properties: Vec<_> = self.properties.iter().map(|(key, value)| (*key, value.as_str())).collect();
        catalog::open(&configured("local", self.kind, &properties)).await.unwrap()
    }

    fn command(&self, action: &str, table: &str) -> Command {
        let script = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/engines/catalog.py");
        let mut properties: serde_json::Map<String, Value> =
            self.properties.iter().map(|(key, value)| ((*key).to_owned(), value.as_str().into())).collect();
        properties.insert("type".to_owned(), if self.kind == CatalogKind::Glue { "glue" } else { "sql" }.into());
        let mut command = Command::new(&self.python);
        command.args([script, "local", &Value::Object(properties).to_string(), action, table]);
        command
    }

    fn pyiceberg(&self, action: &str, table: &str) -> String {
        let output = self.command(action, table).output().unwrap();
        assert!(output.status.success(), "{action} {table}: {}", String::from_utf8_lossy(&output.stderr));
        String::from_utf8(output.stdout).unwrap()
    }

    fn show(&self, table: &str) -> Value {
        serde_json::from_str(&self.pyiceberg("show", table)).unwrap()
    }
}

/// A change that leaves data alone, so that what others appended must still be there after it.
fn property(table: &Table, key: &str) -> (Vec<TableRequirement>, Vec<TableUpdate>) {
    let requirements = vec![TableRequirement::UuidMatch { uuid: table.metadata().uuid() }];
    let updates = HashMap::from([(key.to_owned(), "calve".to_owned())]);
    (requirements, vec![TableUpdate::SetProperties { updates }])
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn pyiceberg_works_on_our_catalog() {
    works_on_ours(Shared::sql()).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn we_work_on_pyicebergs_catalog() {
    we_work_on_its(Shared::sql()).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn pyiceberg_and_we_work_on_one_glue() {
    let part = Part::start("glue", &[]);
    we_work_on_its(Shared::glue(&part)).await;
    works_on_ours(Shared { namespace: &["silver"], ..Shared::glue(&part) }).await;
}

async fn works_on_ours(shared: Shared) {
    let catalog = shared.calve().await;
    let bronze = namespace(shared.namespace);
    catalog.create_namespace(&bronze).await.unwrap();
    let table = fresh_table(catalog.as_ref(), &bronze, "orders").await;
    let orders = &shared.table("orders");
    shared.pyiceberg("append", orders);
    let shown = shared.show(orders);
    assert_eq!(shown["ids"], serde_json::json!([4, 5]));
    assert_eq!(shown["uuid"], table.metadata().uuid().to_string());
    assert_eq!(shown["fields"]["_kafka.timestamp"], 6);
    assert_eq!(shown["properties"]["calve.mapping-version"], "1");
    assert_eq!(shown["tables"], serde_json::json!([orders]));
    // We find its commit, and are told when we build on what was before it.
    let (requirements, updates) = append(&table, "late").await;
    let late = catalog.commit(&table, requirements, updates).await;
    assert!(matches!(late, Err(Error::Conflict(_))), "{late:?}");
    let now = catalog.load(table.identifier()).await.unwrap();
    assert_eq!(now.metadata().current_snapshot().unwrap().summary().additional_properties["added-records"], "2");
    // And it is told when it builds on what was before us.
    let mut stale = shared.command("stale", orders).stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().unwrap();
    let mut answers = BufReader::new(stale.stdout.take().unwrap()).lines();
    assert_eq!(answers.next().unwrap().unwrap(), "loaded");
    let (requirements, mut updates) = append(&now, "ours").await;
    updates.extend(property(&now, "touched-by").1);
    catalog.commit(&now, requirements, updates).await.unwrap();
    stale.stdin.take().unwrap().write_all(b"go\n").unwrap();
    assert_eq!(answers.next().unwrap().unwrap(), "refused");
    assert!(stale.wait().unwrap().success());
    let shown = shared.show(orders);
    assert_eq!(shown["properties"]["touched-by"], "calve");
    assert_eq!(shown["ids"], serde_json::json!([4, 5]));
}

async fn we_work_on_its(shared: Shared) {
    let (things, ours) = (&shared.table("things"), &shared.table("ours"));
    // Its SQL tables are of the older schema, without a column for views.
    shared.pyiceberg("create", things);
    let catalog = shared.calve().await;
    let bronze = namespace(shared.namespace);
    assert!(catalog.namespaces().await.unwrap().contains(&bronze));
    let ident = TableIdent::new(bronze.clone(), "things".to_owned());
    assert_eq!(catalog.tables(&bronze).await.unwrap(), std::slice::from_ref(&ident));
    let table = catalog.load(&ident).await.unwrap();
    assert_eq!(table.metadata().properties()["made-by"], "pyiceberg");
    let (requirements, updates) = property(&table, "touched-by");
    catalog.commit(&table, requirements, updates).await.unwrap();
    shared.pyiceberg("append", things);
    let shown = shared.show(things);
    assert_eq!(shown["ids"], serde_json::json!([1, 2, 3, 4, 5]));
    assert_eq!(shown["properties"]["touched-by"], "calve");
    // A table of ours beside its own.
    fresh_table(catalog.as_ref(), &bronze, "ours").await;
    shared.pyiceberg("append", ours);
    assert_eq!(shared.show(ours)["ids"], serde_json::json!([4, 5]));
    catalog.drop_table(&ident).await.unwrap();
    assert_eq!(shared.show(ours)["tables"], serde_json::json!([ours]));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn javas_jdbc_catalog_and_ours_are_one() {
    // Iceberg's REST server keeps its tables in a JdbcCatalog; we go to it both ways.
    let part = Part::start("rest", &[]);
    let java = catalog::open(&configured("rest", CatalogKind::Rest, &[("uri", &part.address)])).await.unwrap();
    let uri = format!("sqlite:///{}/rest.db", part.folder().display());
    let warehouse = format!("file://{}/warehouse", part.folder().display());
    let config = configured("rest_backend", CatalogKind::Sql, &[("uri", &uri), ("warehouse", &warehouse)]);
    let ours = catalog::open(&config).await.unwrap();
    let bronze = namespace(&["bronze"]);
    java.create_namespace(&bronze).await.unwrap();
    assert!(matches!(ours.create_namespace(&bronze).await, Err(Error::AlreadyExists(_))));
    for (maker, other, name) in [(&java, &ours, "made_by_java"), (&ours, &java, "made_by_us")] {
        let made = fresh_table(maker.as_ref(), &bronze, name).await;
        let seen = other.load(made.identifier()).await.unwrap();
        assert_eq!(seen.metadata(), made.metadata());
        let (requirements, updates) = append(&seen, "the other").await;
        other.commit(&seen, requirements, updates).await.unwrap();
        let (requirements, updates) = append(&made, "late").await;
        let late = maker.commit(&made, requirements, updates).await;
        assert!(matches!(late, Err(Error::Conflict(_))), "{late:?}");
        let now = maker.load(made.identifier()).await.unwrap();
        let (requirements, updates) = append(&now, "the maker").await;
        maker.commit(&now, requirements, updates).await.unwrap();
        let seen = other.load(made.identifier()).await.unwrap();
        assert_eq!(commit_ids(&seen), ["the maker", "the other"]);
        assert_eq!(other.tables(&bronze).await.unwrap(), maker.tables(&bronze).await.unwrap());
    }
}
