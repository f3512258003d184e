//! Trino: one server for all tests, a catalog for each.

use std::io::Write;
use std::path::Path;
use std::process::{Command, Stdio};
use std::sync::LazyLock;
use std::sync::atomic::{AtomicU32, Ordering};

use serde_json::Value;

use super::engines::{self, sorted};
use super::parts::Part;

/// Started by the first test that asks; it ends with the test process.
static TRINO: LazyLock<Part> = LazyLock::new(|| Part::start("trino", &[]));
static CATALOGS: AtomicU32 = AtomicU32::new(0);

/// All rows of tables, in a catalog with these properties, as `engines::rows` gives them.
pub fn rows_of_all(properties: &[(&str, String)], tables: &[impl AsRef<str>]) -> Vec<Vec<String>> {
    let catalog = format!("c{}", CATALOGS.fetch_add(1, Ordering::Relaxed));
    let properties: Vec<String> = properties.iter().map(|(key, value)| format!("\"{key}\" = '{value}'")).collect();
    let mut statements = vec![format!(
        "CREATE CATALOG {catalog} USING iceberg WITH (\"fs.local.enabled\" = 'true', \"local.location\" = '/', {})",
        properties.join(", ")
    )];
    statements.extend(tables.iter().map(|table| format!("SELECT * FROM {catalog}.{}", table.as_ref())));
    let mut answers = sql(&statements);
    let mut all: Vec<Vec<String>> =
        answers.drain(1..).map(|rows| rows.into_iter().map(|row| sorted(row).to_string()).collect()).collect();
    all.iter_mut().for_each(|rows| rows.sort());
    all
}

/// The properties of a project's SQL catalog.
pub fn of_project(project: &Path) -> Vec<(&'static str, String)> {
    let warehouse = project.join("warehouse");
    vec![
        ("iceberg.catalog.type", "jdbc".to_owned()),
        ("iceberg.jdbc-catalog.driver-class", "org.sqlite.JDBC".to_owned()),
        ("iceberg.jdbc-catalog.connection-url", format!("jdbc:sqlite:{}/catalog.db", warehouse.display())),
        ("iceberg.jdbc-catalog.catalog-name", "local".to_owned()),
        ("iceberg.jdbc-catalog.default-warehouse-dir", format!("file://{}", warehouse.display())),
    ]
}

/// Rows as Trino names their columns: in lower case, but for fields of structs.
pub fn in_its_case(rows: &[String]) -> Vec<String> {
    let lower = |row: &String| {
        let row: serde_json::Map<String, Value> = serde_json::from_str(row).expect("a row");
        sorted(Value::Object(row.into_iter().map(|(key, value)| (key.to_lowercase(), value)).collect())).to_string()
    };
    let mut rows: Vec<String> = rows.iter().map(lower).collect();
    rows.sort();
    rows
}

/// What each statement answers.
pub fn sql(statements: &[String]) -> Vec<Vec<Value>> {
    let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/engines/trino.py");
    let mut process = Command::new(engines::python())
        .arg(script)
        .arg(&TRINO.address)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .expect("python runs");
    let lines: String = statements.iter().map(|sql| format!("{}\n", Value::from(sql.as_str()))).collect();
    process.stdin.take().expect("it is piped").write_all(lines.as_bytes()).expect("the script reads");
    let output = process.wait_with_output().expect("the script ends");
    assert!(output.status.success(), "Trino: {}", String::from_utf8_lossy(&output.stderr));
    let text = String::from_utf8(output.stdout).expect("UTF-8");
    text.lines().map(|line| serde_json::from_str(line).expect("an array of rows")).collect()
}
