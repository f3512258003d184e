//! Spark as others use it on our tables: one process for all tests, a session for each.

use std::io::{BufRead, BufReader, Write};
use std::net::TcpStream;
use std::path::Path;
use std::sync::LazyLock;

use serde_json::{Value, json};

use super::engines::sorted;
use super::parts::Part;

/// Started by the first test that asks; it ends with the test process.
static SPARK: LazyLock<Part> = LazyLock::new(|| Part::start("spark", &[]));

/// A session; its catalogs are its own.
pub struct Spark {
    stream: BufReader<TcpStream>,
}

impl Spark {
    /// A session that knows the SQL catalog `local` of a project.
    pub fn of_project(project: &Path) -> Spark {
        let mut spark = Spark::new();
        let warehouse = project.join("warehouse");
        spark.catalog(
            "local",
            &[
                ("type", "jdbc"),
                ("uri", &format!("jdbc:sqlite:{}/catalog.db", warehouse.display())),
                ("warehouse", &format!("file://{}", warehouse.display())),
                ("jdbc.schema-version", "V1"),
                ("clients", "1"),
            ],
        );
        // SQLite may be taken by the daemon for the moment in which Spark connects.
        let connected = (0..20).any(|_| spark.try_sql("USE local.bronze").is_ok());
        assert!(connected, "Spark does not come to the project's catalog");
        spark
    }

    pub fn new() -> Spark {
        let stream = TcpStream::connect(&SPARK.address).expect("Spark listens");
        Spark { stream: BufReader::new(stream) }
    }

    /// Makes a catalog known. Nothing of it is kept between statements.
    pub fn catalog(&mut self, name: &str, properties: &[(&str, &str)]) {
        let mut configuration = json!({});
        configuration[format!("spark.sql.catalog.{name}")] = "org.apache.iceberg.spark.SparkCatalog".into();
        configuration[format!("spark.sql.catalog.{name}.cache-enabled")] = "false".into();
        for (key, value) in properties {
            configuration[format!("spark.sql.catalog.{name}.{key}")] = (*value).into();
        }
        self.ask(&configuration).expect("the session takes its configuration");
    }

    /// The rows that a statement answers, canonical.
    pub fn sql(&mut self, statement: &str) -> Vec<Value> {
        self.try_sql(statement).unwrap_or_else(|error| panic!("Spark refuses {statement}: {error}"))
    }

    pub fn try_sql(&mut self, statement: &str) -> Result<Vec<Value>, String> {
        self.ask(&statement.into())
    }

    /// All rows of a table, as `engines::rows` gives them.
    pub fn rows(&mut self, table: &str) -> Vec<String> {
        let rows = self.sql(&format!("SELECT * FROM {table}"));
        let mut rows: Vec<String> = rows.into_iter().map(|row| sorted(row).to_string()).collect();
        rows.sort();
        rows
    }

    fn ask(&mut self, request: &Value) -> Result<Vec<Value>, String> {
        let stream = self.stream.get_mut();
        stream.write_all(format!("{request}\n").as_bytes()).expect("Spark is there");
        let mut line = String::new();
        self.stream.read_line(&mut line).expect("Spark answers");
        let mut answer: Value = serde_json::from_str(&line).unwrap_or_else(|error| {
            panic!("Spark answers {line:?} to {request}: {error}; its log is in {}", SPARK.folder().display())
        });
        match answer["error"].take() {
            Value::Null => Ok(serde_json::from_value(answer["rows"].take()).expect("rows")),
            error => Err(error.as_str().unwrap_or_default().to_owned()),
        }
    }
}
