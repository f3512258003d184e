//! What calve writes, DuckDB, PyIceberg, Spark and Trino read: value by value, with true metrics, and with the same answers when a
//! filter lets them skip files.

use std::collections::{BTreeMap, HashMap};
use std::fs::File;
use std::path::Path;
use std::sync::Arc;

use arrow::array::RecordBatch;
use arrow::datatypes::SchemaRef as ArrowSchemaRef;
use calve::batch::OffsetRange;
use calve::catalog::{self, Catalog};
use calve::commit::create::{Wanted, ensure_table};
use calve::commit::{Append, Committer, Outcome};
use calve::config::{self, CatalogKind};
use calve::schema::partition;
use calve::write::{Limits, TableWriter};
use iceberg::TableIdent;
use iceberg::spec::{ListType, MapType, NestedField, PrimitiveType, Schema, SortOrder, StructType, Type};
use parquet::basic::Encoding;
use parquet::file::metadata::ParquetMetaDataReader;
use rand::rngs::StdRng;
use rand::seq::IndexedRandom;
use rand::{Rng, SeedableRng};
use serde_json::{Value, json};
use uuid::Uuid;

use crate::nessie::Nessie;
use crate::support::engines;
use crate::support::parts::Part;
use crate::support::spark::Spark;
use crate::support::tables::{configured, glue_properties};
use crate::support::trino;

/// Hands out field ids in the order in which catalogs assign them: a level before the levels below it.
struct Ids(i32);

impl Ids {
    fn fields(&mut self, columns: Vec<(&str, Kind)>) -> Vec<Arc<NestedField>> {
        let first = self.0;
        self.0 += columns.len() as i32;
        let ids = first..;
        ids.zip(columns).map(|(id, (name, kind))| NestedField::optional(id, name, self.kind(kind)).into()).collect()
    }

    fn next(&mut self) -> i32 {
        self.0 += 1;
        self.0 - 1
    }

    fn kind(&mut self, kind: Kind) -> Type {
        match kind {
            Kind::Leaf(primitive) => Type::Primitive(primitive),
            Kind::Struct(columns) => Type::Struct(StructType::new(self.fields(columns))),
            Kind::List(element) => {
                let id = self.next();
                Type::List(ListType::new(NestedField::list_element(id, self.kind(*element), false).into()))
            }
            Kind::Map(key, value) => {
                let (key_id, value_id) = (self.next(), self.next());
                Type::Map(MapType::new(
                    NestedField::map_key_element(key_id, Type::Primitive(key)).into(),
                    NestedField::map_value_element(value_id, self.kind(*value), false).into(),
                ))
            }
        }
    }
}

enum Kind {
    Leaf(PrimitiveType),
    Struct(Vec<(&'static str, Kind)>),
    List(Box<Kind>),
    Map(PrimitiveType, Box<Kind>),
}

/// Every kind of column that a mapping makes, nested as Protobuf nests.
fn schema() -> Schema {
    use Kind::{Leaf, List, Map, Struct};
    use PrimitiveType::{Binary, Boolean, Date, Decimal, Double, Float, Int, Long, String, Timestamptz};
    let text = || Leaf(String);
    let geo = Struct(vec![("lat", Leaf(Double)), ("tags", List(Box::new(text())))]);
    let place = Struct(vec![("city", text()), ("score", Leaf(Float)), ("geo", geo)]);
    let point = Struct(vec![("x", Leaf(Double)), ("label", text()), ("parts", List(Box::new(Leaf(Long))))]);
    let note = Struct(vec![("text", text()), ("at", Leaf(Timestamptz))]);
    let columns = vec![
        ("id", Leaf(Long)),
        ("name", text()),
        ("flag", Leaf(Boolean)),
        ("small", Leaf(Int)),
        ("ratio", Leaf(Float)),
        ("weight", Leaf(Double)),
        ("amount", Leaf(Decimal { precision: 20, scale: 0 })),
        ("price", Leaf(Decimal { precision: 9, scale: 2 })),
        ("day", Leaf(Date)),
        ("at", Leaf(Timestamptz)),
        ("blob", Leaf(Binary)),
        ("token", text()),
        ("place", place),
        ("points", List(Box::new(point))),
        ("attributes", Map(String, Box::new(Leaf(Long)))),
        ("notes", Map(Int, Box::new(note))),
    ];
    let fields = Ids(1).fields(columns);
    Schema::builder().with_fields(fields).build().expect("a valid schema")
}

const NAMES: [&str; 12] = [
    "",
    "a",
    "x=y&z",
    "a/b c%+ü~*",
    "100%25",
    "日本語 \u{1f980}",
    "tab\tand\nline",
    "nul\0inside",
    "exactly sixteen!",
    "a common beginning, then the first of two ends that come after more than sixty-four bytes",
    "a common beginning, then the second of two ends that come after more than sixty-four bytes",
    "\u{10ffff}\u{10ffff}\u{10ffff}\u{10ffff}\u{10ffff}\u{10ffff}\u{10ffff}\u{10ffff}\u{10ffff}\u{10ffff}\u{10ffff}\u{10ffff}\u{10ffff}\u{10ffff}\u{10ffff}\u{10ffff}\u{10ffff}",
];
const DOUBLES: [&str; 8] = ["NaN", "inf", "-inf", "-0.0", "0.0", "1e308", "5e-324", "0.1"];
const TIMES: [i64; 10] = [
    0,
    -1,
    -86_400_000_001,
    -86_400_500_000,
    1_795_341_600_000_001,
    1_795_345_199_999_999,
    1_795_345_200_000_000,
    -62_135_596_800_000_000,
    253_402_300_799_999_999,
    1_700_000_000_000_000,
];

/// A value in nine of ten cases.
fn maybe(random: &mut StdRng, value: impl FnOnce(&mut StdRng) -> Value) -> Value {
    if random.random_ratio(1, 10) { Value::Null } else { value(random) }
}

fn text(random: &mut StdRng) -> Value {
    NAMES.choose(random).copied().into()
}

fn double(random: &mut StdRng) -> Value {
    if random.random_bool(0.5) { json!(random.random_range(-1e6..1e6)) } else { DOUBLES.choose(random).copied().into() }
}

fn time(random: &mut StdRng) -> Value {
    TIMES.choose(random).copied().into()
}

fn list(random: &mut StdRng, element: impl Fn(&mut StdRng) -> Value) -> Value {
    let length = random.random_range(0..4);
    (0..length).map(|_| element(random)).collect()
}

fn row(random: &mut StdRng, id: i64) -> Value {
    let hex = |random: &mut StdRng| {
        let length = random.random_range(0..24);
        let bytes = (0..length).map(|_| if random.random_bool(0.3) { 0xff } else { random.random::<u8>() });
        Value::from(bytes.map(|byte| format!("{byte:02x}")).collect::<String>())
    };
    json!({
        "id": id,
        "name": maybe(random, text),
        "flag": maybe(random, |random| random.random_bool(0.5).into()),
        "small": maybe(random, |random| random.random::<i32>().into()),
        "ratio": maybe(random, |random| if random.random_bool(0.5) { random.random::<f32>().into() } else { ["NaN", "-0.0", "inf"].choose(random).copied().into() }),
        "weight": maybe(random, double),
        "amount": maybe(random, |random| if random.random_bool(0.1) { u64::MAX.to_string().into() } else { random.random_range(0..5_000u64).to_string().into() }),
        "price": maybe(random, |random| ["-0.05", "9999999.99", "-9999999.99", "0.00", "1.29"].choose(random).copied().into()),
        "day": maybe(random, |random| [-719_162, -1, 0, 20_779, 2_932_896].choose(random).copied().into()),
        "at": maybe(random, time),
        "blob": maybe(random, hex),
        "token": maybe(random, |random| format!("{:016x}", random.random::<u64>()).into()),
        "place": maybe(random, |random| json!({
            "city": maybe(random, text),
            "score": maybe(random, |random| random.random::<f32>().into()),
            "geo": maybe(random, |random| json!({"lat": maybe(random, double), "tags": list(random, text)})),
        })),
        "points": maybe(random, |random| list(random, |random| json!({
            "x": maybe(random, double),
            "label": maybe(random, text),
            "parts": list(random, |random| random.random::<i64>().into()),
        }))),
        "attributes": maybe(random, |random| {
            let keys: BTreeMap<&str, i64> = (0..random.random_range(0..4)).map(|_| (*NAMES.choose(random).unwrap(), random.random())).collect();
            json!(keys)
        }),
        "notes": maybe(random, |random| {
            let keys: BTreeMap<i32, Value> = (0..random.random_range(0..3))
                .map(|_| (random.random(), json!({"text": maybe(random, text), "at": maybe(random, time)})))
                .collect();
            json!(keys)
        }),
    })
}

fn batch(schema: &ArrowSchemaRef, rows: &[Value]) -> RecordBatch {
    let mut decoder = arrow::json::ReaderBuilder::new(schema.clone()).build_decoder().expect("a decoder");
    decoder.serialize(rows).expect("rows of the schema");
    decoder.flush().expect("rows of the schema").expect("some rows")
}

async fn local_catalog(folder: &Path) -> Arc<dyn Catalog> {
    let properties = [
        ("uri", format!("sqlite://{}/catalog.db", folder.display())),
        ("warehouse", format!("file://{}/warehouse", folder.display())),
    ];
    let properties = properties.into_iter().map(|(key, value)| (key.to_string(), value)).collect();
    let config = config::Catalog { name: "local".to_string(), kind: CatalogKind::Sql, properties };
    catalog::open(&config).await.expect("an embedded catalog")
}

/// Writes three commits of random rows; returns them and where the table's metadata lies.
async fn write(folder: &Path, partition_by: &[&str], seed: u64) -> (Vec<RecordBatch>, String) {
    write_to(local_catalog(folder).await, "corpus", partition_by, seed).await
}

async fn write_to(
    catalog: Arc<dyn Catalog>,
    table: &str,
    partition_by: &[&str],
    seed: u64,
) -> (Vec<RecordBatch>, String) {
    let ident = TableIdent::from_strs(["bronze", table]).unwrap();
    let fields: Vec<String> = partition_by.iter().map(|field| field.to_string()).collect();
    let partition_spec = partition::parse(&fields, &schema()).expect("a partition spec");
    let properties = HashMap::from([("write.parquet.row-group-size-bytes".to_string(), "20000".to_string())]);
    let sort_order = SortOrder::unsorted_order();
    let wanted = Wanted {
        schema: schema(),
        partition_spec,
        partitions_may_go: false,
        sort_order,
        properties,
        mapping: None,
        first_snapshot: false,
    };
    ensure_table(&catalog, &ident, wanted).await.expect("a new table");
    let mut committer = Committer::open(catalog, &ident).await.expect("the new table");
    committer.starts("corpus", &[0]).await.expect("a ledger");

    let mut random = StdRng::seed_from_u64(seed);
    let mut written = Vec::new();
    for commit in 0..3i64 {
        let table = committer.table().clone();
        let arrow = iceberg::arrow::schema_to_arrow_schema(table.metadata().current_schema()).expect("arrow types");
        let rows: Vec<Value> = (commit * 120..(commit + 1) * 120).map(|id| row(&mut random, id)).collect();
        let rows = batch(&Arc::new(arrow), &rows);
        let limits = Limits { file_size_bytes_target: Some(30_000), open_files_max: 5, ..Limits::default() };
        let mut writer = TableWriter::new(&table, limits).expect("a writer");
        writer.write(rows.slice(0, 60)).await.expect("rows are written");
        writer.write(rows.slice(60, 60)).await.expect("rows are written");
        let staged = writer.finish().await.expect("files are closed");
        assert_eq!(staged.rows(), 120);
        let append = Append {
            commit_id: Uuid::now_v7(),
            rows: staged.rows(),
            files: staged.files,
            spec_id: table.metadata().default_partition_spec_id(),
            topic: "corpus".to_string(),
            topic_id: None,
            cluster_id: None,
            ranges: BTreeMap::from([(0, OffsetRange { from: commit * 120, to: (commit + 1) * 120 })]),
            rejects: 0,
            schema: None,
            written: None,
            late: false,
            summary: BTreeMap::new(),
        };
        let outcome = committer.commit(&append).await.expect("a commit");
        assert!(matches!(outcome, Outcome::Committed { .. }), "{outcome:?}");
        written.push(rows);
    }
    let metadata = committer.table().metadata_location().expect("a committed table").to_string();
    committer.close().await;
    (written, metadata)
}

/// The encodings of each column's pages in the Parquet files below a folder.
fn encodings(folder: &Path) -> HashMap<String, Vec<Encoding>> {
    let mut encodings: HashMap<String, Vec<Encoding>> = HashMap::new();
    let mut folders = vec![folder.to_path_buf()];
    while let Some(folder) = folders.pop() {
        for entry in std::fs::read_dir(folder).expect("a folder").map(|entry| entry.expect("an entry").path()) {
            if entry.is_dir() {
                folders.push(entry);
            } else if entry.extension().is_some_and(|extension| extension == "parquet") {
                let file = File::open(&entry).expect("a data file");
                let metadata = ParquetMetaDataReader::new().parse_and_finish(&file).expect("a footer");
                for column in metadata.row_groups().iter().flat_map(|group| group.columns()) {
                    encodings.entry(column.column_path().string()).or_default().extend(column.encodings());
                }
            }
        }
    }
    encodings
}

async fn check(partition_by: &[&str]) {
    let seed = rand::random();
    println!("seed {seed}, partitioned by {partition_by:?}");
    let folder = tempfile::tempdir().expect("a temp folder");
    let (written, metadata) = write(folder.path(), partition_by, seed).await;
    // What the engines read below is stored in every way that the writer knows.
    let encodings = encodings(&folder.path().join("warehouse"));
    for (column, encoding) in [
        ("id", Encoding::DELTA_BINARY_PACKED),
        ("small", Encoding::PLAIN),
        ("name", Encoding::RLE_DICTIONARY),
        ("token", Encoding::DELTA_LENGTH_BYTE_ARRAY),
    ] {
        assert!(encodings[column].contains(&encoding), "{column} is stored as {:?}", encodings[column]);
    }

    let rows = engines::canonical_rows(&written);
    engines::assert_same_rows("duckdb", &engines::rows("duckdb", &metadata), &rows);
    // PyIceberg 0.11 reads a null list or map of structs as an empty one.
    let rows = forget_null(&rows, &["points", "notes"]);
    engines::assert_same_rows("pyiceberg", &forget_null(&engines::rows("pyiceberg", &metadata), &[]), &rows);

    for (command, done) in [("metrics", "bounds"), ("filters", "files_pruned")] {
        let output = engines::run("readback.py", &[command, &metadata]);
        let result: Value = serde_json::from_str(&output).expect("a result");
        let differences = result["differences"].as_array().expect("a list");
        assert!(differences.is_empty(), "{command} differ, seed {seed}: {differences:#?}");
        assert!(result[done].as_u64() > Some(0), "{command} looked at nothing: {result}");
    }
}

/// The rows with null written as an empty list in the given columns.
fn forget_null(rows: &[String], columns: &[&str]) -> Vec<String> {
    let forget = |row: &String| {
        let mut row: Value = serde_json::from_str(row).expect("a canonical row");
        for column in columns.iter().filter(|column| row[**column].is_null()).copied().collect::<Vec<_>>() {
            row[column] = json!([]);
        }
        row.to_string()
    };
    let mut rows: Vec<String> = rows.iter().map(forget).collect();
    rows.sort();
    rows
}

#[tokio::test(flavor = "multi_thread")]
async fn an_unpartitioned_table_reads_back() {
    check(&[]).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn partitions_named_by_any_string_read_back() {
    check(&["name"]).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn partitions_by_nested_leaves_read_back() {
    check(&["bucket[4](place.city)", "truncate[2](place.city)"]).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn partitions_by_time_read_back() {
    check(&["day(at)", "year(day)"]).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn partitions_by_hour_and_month_read_back() {
    check(&["hour(at)", "month(day)"]).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn partitions_by_numbers_read_back() {
    check(&["truncate[1000](amount)", "bucket[3](price)", "flag"]).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn partitions_by_values_of_other_types_read_back() {
    check(&["price", "day", "bucket[2](blob)"]).await;
}

/// Tables and their partitions, of several kinds.
type Tables<'a> = &'a [(&'a str, &'a [&'a str])];

const TABLES: Tables = &[
    ("plain", &[]),
    ("by_name", &["name"]),
    ("by_time", &["day(at)", "year(day)"]),
    ("by_place", &["bucket[4](place.city)", "truncate[2](place.city)"]),
];

/// Written through a catalog, as others read them through it.
async fn read_back_through(
    catalog: Arc<dyn Catalog>,
    tables: Tables<'_>,
    spark_properties: &[(&str, &str)],
    trino_properties: &[(&str, &str)],
) {
    let seed = rand::random();
    println!("seed {seed}");
    let mut all = Vec::new();
    for (table, partition_by) in tables {
        let (written, _) = write_to(catalog.clone(), table, partition_by, seed).await;
        all.push((format!("bronze.{table}"), engines::canonical_rows(&written)));
    }
    let tables: Vec<&str> = all.iter().map(|(table, _)| table.as_str()).collect();
    let mut spark = Spark::new();
    spark.catalog("lake", spark_properties);
    let by_spark: Vec<_> = tables.iter().map(|table| spark.rows(&format!("lake.{table}"))).collect();
    let properties: Vec<_> = trino_properties.iter().map(|(key, value)| (*key, (*value).to_owned())).collect();
    let by_trino = trino::rows_of_all(&properties, &tables);
    for (((table, written), spark), trino) in all.iter().zip(by_spark).zip(by_trino) {
        engines::assert_same_rows(&format!("spark, {table}, seed {seed}:"), &spark, written);
        engines::assert_same_rows(&format!("trino, {table}, seed {seed}:"), &trino, &trino::in_its_case(written));
    }
}

const REGION: &str = "us-east-1";
const KEYS: [&str; 2] = ["calve-access-key", "calve-secret-key"];

#[tokio::test(flavor = "multi_thread")]
async fn tables_of_a_rest_catalog_read_back_in_spark_and_trino() {
    let rest = Part::start("rest", &[]);
    let catalog = catalog::open(&configured("local", CatalogKind::Rest, &[("uri", &rest.address)])).await.unwrap();
    let trino = [("iceberg.catalog.type", "rest"), ("iceberg.rest-catalog.uri", &rest.address)];
    read_back_through(catalog, TABLES, &[("type", "rest"), ("uri", &rest.address)], &trino).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn tables_on_s3_read_back_in_spark_and_trino() {
    let s3 = Part::start("s3", &[]);
    let [key, secret] = KEYS;
    let store = [
        ("s3.endpoint", s3.address.as_str()),
        ("s3.path-style-access", "true"),
        ("s3.access-key-id", key),
        ("s3.secret-access-key", secret),
        ("client.region", REGION),
    ];
    let server = store.map(|(key, value)| format!("{key}={value}"));
    let mut server: Vec<&str> = server.iter().map(String::as_str).collect();
    server.extend(["warehouse=s3://lake/warehouse", "io-impl=org.apache.iceberg.aws.s3.S3FileIO"]);
    let rest = Part::start("rest", &server);
    let uri = ("uri", rest.address.as_str());
    let ours = [&store[..4], &[uri, ("s3.region", REGION)]].concat();
    let catalog = catalog::open(&configured("local", CatalogKind::Rest, &ours)).await.unwrap();
    let io = ("io-impl", "org.apache.iceberg.aws.s3.S3FileIO");
    let spark = [&store[..], &[uri, io, ("type", "rest")]].concat();
    let trino = [
        ("iceberg.catalog.type", "rest"),
        ("iceberg.rest-catalog.uri", &rest.address),
        ("fs.s3.enabled", "true"),
        ("s3.endpoint", &s3.address),
        ("s3.path-style-access", "true"),
        ("s3.aws-access-key", key),
        ("s3.aws-secret-key", secret),
        ("s3.region", REGION),
    ];
    read_back_through(catalog, TABLES, &spark, &trino).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn tables_of_glue_read_back_in_spark_and_trino() {
    let glue = Part::start("glue", &[]);
    let folder = tempfile::tempdir().unwrap();
    let warehouse = format!("file://{}", folder.path().display());
    let mut ours = glue_properties(&glue.address);
    ours.push(("warehouse", warehouse.clone()));
    let ours: Vec<_> = ours.iter().map(|(key, value)| (*key, value.as_str())).collect();
    let catalog = catalog::open(&configured("glue", CatalogKind::Glue, &ours)).await.unwrap();
    let spark = [
        ("type", "glue"),
        ("glue.endpoint", &glue.address),
        ("client.region", REGION),
        ("io-impl", "org.apache.iceberg.hadoop.HadoopFileIO"),
        ("warehouse", &warehouse),
    ];
    let trino = [
        ("iceberg.catalog.type", "glue"),
        ("hive.metastore.glue.endpoint-url", &glue.address),
        ("hive.metastore.glue.region", REGION),
        ("hive.metastore.glue.aws-access-key", "k"),
        ("hive.metastore.glue.aws-secret-key", "s"),
        ("hive.metastore.glue.default-warehouse-dir", &warehouse),
    ];
    read_back_through(catalog, TABLES, &spark, &trino).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn tables_of_postgres_read_back_in_spark_and_trino() {
    // Rows of such a catalog hold its name, so everyone has to call it by the one that Spark knows it by.
    const NAME: &str = "lake";
    let postgres = Part::start("postgres", &[]);
    let folder = tempfile::tempdir().unwrap();
    let warehouse = format!("file://{}", folder.path().display());
    let ours = configured(NAME, CatalogKind::Sql, &[("uri", &postgres.address), ("warehouse", &warehouse)]);
    let catalog = catalog::open(&ours).await.unwrap();
    // JDBC takes no user in the address.
    let (user, place) = postgres.address.strip_prefix("postgresql://").unwrap().split_once('@').unwrap();
    let uri = format!("jdbc:postgresql://{place}");
    let spark = [
        ("type", "jdbc"),
        ("uri", uri.as_str()),
        ("jdbc.user", user),
        ("jdbc.schema-version", "V1"),
        ("warehouse", &warehouse),
    ];
    let trino = [
        ("iceberg.catalog.type", "jdbc"),
        ("iceberg.jdbc-catalog.driver-class", "org.postgresql.Driver"),
        ("iceberg.jdbc-catalog.connection-url", uri.as_str()),
        ("iceberg.jdbc-catalog.connection-user", user),
        ("iceberg.jdbc-catalog.catalog-name", NAME),
        ("iceberg.jdbc-catalog.default-warehouse-dir", &warehouse),
    ];
    read_back_through(catalog, TABLES, &spark, &trino).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn tables_of_nessie_read_back_in_spark_and_trino() {
    // Longer than a test: how others renew their tokens is not looked at here.
    let nessie = Nessie::start("ttl=600");
    let ours = nessie.properties();
    let said = |name: &str| ours.iter().find(|(key, _)| *key == name).map(|(_, value)| value.as_str()).unwrap();
    let (credential, server, scope) = (said("credential"), said("oauth2-server-uri"), said("scope"));
    let spark = [
        ("type", "rest"),
        ("uri", said("uri")),
        ("warehouse", said("warehouse")),
        ("rest.auth.type", "oauth2"),
        ("credential", credential),
        ("oauth2-server-uri", server),
        ("scope", scope),
        ("header.X-Iceberg-Access-Delegation", "vended-credentials"),
        ("io-impl", "org.apache.iceberg.aws.s3.S3FileIO"),
        ("client.region", REGION),
    ];
    let trino = [
        ("iceberg.catalog.type", "rest"),
        ("iceberg.rest-catalog.uri", said("uri")),
        ("iceberg.rest-catalog.warehouse", said("warehouse")),
        ("iceberg.rest-catalog.security", "OAUTH2"),
        ("iceberg.rest-catalog.oauth2.credential", credential),
        ("iceberg.rest-catalog.oauth2.server-uri", server),
        ("iceberg.rest-catalog.oauth2.scope", scope),
        ("iceberg.rest-catalog.vended-credentials-enabled", "true"),
        ("fs.s3.enabled", "true"),
        ("s3.endpoint", &nessie.minio.address),
        ("s3.path-style-access", "true"),
        ("s3.region", REGION),
    ];
    // It partitions by no column inside of a struct.
    read_back_through(nessie.open().await, &TABLES[..3], &spark, &trino).await;
}
