//! Reading real Parquet files through the provider: evolution at every depth, pruning, statistics.

use std::collections::HashMap;
use std::fs::File;
use std::sync::Arc;

use arrow::array::RecordBatch;
use arrow::datatypes::SchemaRef;
use arrow::util::pretty::pretty_format_batches;
use datafusion::physical_plan::ExecutionPlanProperties;
use datafusion::physical_plan::metrics::MetricsSet;
use datafusion::prelude::{SessionConfig, SessionContext};
use iceberg::io::FileIO;
use iceberg::scan::{FileScanTask, FileScanTaskDeleteFile};
use iceberg::spec::{
    DataContentType, DataFileFormat, FormatVersion, ListType, MapType, NestedField, PrimitiveType, Schema, SortOrder,
    StructType, TableMetadataBuilder, Type, UnboundPartitionSpec,
};
use iceberg::table::Table;
use iceberg::{Runtime, TableIdent};
use parquet::arrow::ArrowWriter;
use parquet::file::properties::WriterProperties;
use tempfile::TempDir;

use super::read::arrow_schema;
use super::{Files, IcebergTable};

fn text(id: i32, name: &str) -> Arc<NestedField> {
    NestedField::optional(id, name, Type::Primitive(PrimitiveType::String)).into()
}

fn number(id: i32, name: &str, primitive: PrimitiveType) -> Arc<NestedField> {
    NestedField::optional(id, name, Type::Primitive(primitive)).into()
}

fn structure(id: i32, name: &str, fields: Vec<Arc<NestedField>>) -> Arc<NestedField> {
    NestedField::optional(id, name, Type::Struct(StructType::new(fields))).into()
}

fn schema(fields: Vec<Arc<NestedField>>) -> Schema {
    Schema::builder().with_fields(fields).build().unwrap()
}

/// A file as a writer of another time left it, its columns under that time's names.
fn file(folder: &TempDir, name: &str, schema: &Schema, json: &str, group_rows: usize) -> FileScanTask {
    let arrow: SchemaRef = arrow_schema(schema).unwrap();
    let batch = arrow::json::ReaderBuilder::new(arrow.clone()).build(json.as_bytes()).unwrap().next().unwrap().unwrap();
    let path = folder.path().join(name);
    let properties = WriterProperties::builder().set_max_row_group_row_count(Some(group_rows)).build();
    let mut writer = ArrowWriter::try_new(File::create(&path).unwrap(), arrow, Some(properties)).unwrap();
    writer.write(&batch).unwrap();
    writer.close().unwrap();
    let bytes = std::fs::metadata(&path).unwrap().len();
    FileScanTask::builder()
        .with_file_size_in_bytes(bytes)
        .with_start(0)
        .with_length(bytes)
        .with_record_count(Some(batch.num_rows() as u64))
        .with_data_file_path(path.to_str().unwrap().to_owned())
        .with_data_file_format(DataFileFormat::Parquet)
        .with_schema(Arc::new(schema.clone()))
        .with_project_field_ids(vec![])
        .with_case_sensitive(true)
        .build()
}

fn table(folder: &TempDir, schema: Schema) -> Table {
    // A new table's ids are assigned anew; those of a schema that is added later are kept.
    let metadata = TableMetadataBuilder::new(
        Schema::builder().build().unwrap(),
        UnboundPartitionSpec::builder().build(),
        SortOrder::unsorted_order(),
        folder.path().to_str().unwrap().to_owned(),
        FormatVersion::V2,
        HashMap::new(),
    )
    .unwrap()
    .add_current_schema(schema)
    .unwrap()
    .build()
    .unwrap()
    .metadata;
    Table::builder()
        .file_io(FileIO::new_with_fs())
        .metadata(metadata)
        .metadata_location("unused")
        .identifier(TableIdent::from_strs(["a", "t"]).unwrap())
        .runtime(Runtime::current())
        .build()
        .unwrap()
}

fn session(table: Table, files: Vec<FileScanTask>) -> SessionContext {
    let session = SessionContext::new_with_config(SessionConfig::new().with_target_partitions(2));
    session.register_table("t", Arc::new(IcebergTable::new(table, Files::Given(files)).unwrap())).unwrap();
    session
}

async fn rows(session: &SessionContext, sql: &str) -> Vec<String> {
    let batches: Vec<RecordBatch> = session.sql(sql).await.unwrap().collect().await.unwrap();
    let table = pretty_format_batches(&batches).unwrap().to_string();
    let lines = table.lines().filter(|line| line.starts_with('|')).skip(1);
    lines.map(|line| line.trim_matches('|').split('|').map(str::trim).collect::<Vec<_>>().join("|")).collect()
}

/// `id`, a struct in a list in a struct, and a map of structs, as they are called at two times.
fn before() -> Schema {
    let item = structure(9, "element", vec![text(10, "sku"), number(11, "count", PrimitiveType::Int)]);
    let list = Type::List(ListType::new(Arc::new(NestedField { required: false, ..item.as_ref().clone() })));
    let value = Type::Struct(StructType::new(vec![text(15, "note")]));
    let map = Type::Map(MapType::new(
        Arc::new(NestedField::map_key_element(13, Type::Primitive(PrimitiveType::String))),
        Arc::new(NestedField::map_value_element(14, value, false)),
    ));
    schema(vec![
        number(1, "id", PrimitiveType::Int),
        text(2, "gone"),
        structure(3, "customer", vec![text(4, "name"), number(5, "age", PrimitiveType::Int)]),
        structure(7, "cart", vec![NestedField::optional(8, "items", list).into()]),
        NestedField::optional(12, "notes", map).into(),
    ])
}

fn after() -> Schema {
    let item =
        structure(9, "element", vec![number(11, "quantity", PrimitiveType::Long), text(10, "sku"), text(20, "colour")]);
    let list = Type::List(ListType::new(Arc::new(NestedField { required: false, ..item.as_ref().clone() })));
    let value = Type::Struct(StructType::new(vec![text(21, "author"), text(15, "text")]));
    let map = Type::Map(MapType::new(
        Arc::new(NestedField::map_key_element(13, Type::Primitive(PrimitiveType::String))),
        Arc::new(NestedField::map_value_element(14, value, false)),
    ));
    schema(vec![
        number(1, "order_id", PrimitiveType::Long),
        // A new column under the name of one that is gone: another id, so not its values.
        text(22, "gone"),
        structure(3, "buyer", vec![text(23, "name"), text(4, "full_name")]),
        structure(7, "cart", vec![NestedField::optional(8, "lines", list).into()]),
        NestedField::optional(12, "notes", map).into(),
        structure(24, "new", vec![text(25, "x")]),
    ])
}

const OLD_ROWS: &str = r#"{"id":1,"gone":"old","customer":{"name":"Ann","age":7},"cart":{"items":[{"sku":"a","count":2},null,{"sku":null,"count":3}]},"notes":{"k":{"note":"n"}}}
{"id":2,"gone":"old","customer":null,"cart":{"items":[]},"notes":{}}
{"id":3,"gone":null,"customer":{"name":null,"age":null},"cart":null,"notes":null}"#;

#[tokio::test]
async fn an_old_file_reads_under_todays_names_at_every_depth() {
    let folder = TempDir::new().unwrap();
    let old = file(&folder, "old.parquet", &before(), OLD_ROWS, 100);
    let new = file(
        &folder,
        "new.parquet",
        &after(),
        r#"{"order_id":9000000000,"gone":"new","buyer":{"name":"n","full_name":"Bob"},"cart":{"lines":[{"quantity":1,"sku":"b","colour":"red"}]},"notes":{"z":{"author":"me","text":"t"}},"new":{"x":"y"}}"#,
        100,
    );
    let session = session(table(&folder, after()), vec![old, new]);
    assert_eq!(
        rows(&session, "SELECT * FROM t ORDER BY order_id").await,
        [
            "1||{name: , full_name: Ann}|{lines: [{quantity: 2, sku: a, colour: }, , {quantity: 3, sku: , colour: }]}|{k: {author: , text: n}}|",
            "2|||{lines: []}|{}|",
            "3||{name: , full_name: }|||",
            "9000000000|new|{name: n, full_name: Bob}|{lines: [{quantity: 1, sku: b, colour: red}]}|{z: {author: me, text: t}}|{x: y}",
        ]
    );
    // One field of a struct, of which the old file has only others: null, but not where the struct itself is.
    assert_eq!(
        rows(&session, "SELECT order_id, buyer IS NULL, buyer['name'] FROM t WHERE order_id < 4 ORDER BY 1").await,
        ["1|false|", "2|true|", "3|false|"]
    );
    assert_eq!(rows(&session, "SELECT count(*), count(gone), sum(order_id) FROM t").await, ["4|1|9000000006"]);
}

#[tokio::test]
async fn row_groups_are_skipped_by_nested_columns_too() {
    let folder = TempDir::new().unwrap();
    let schema = schema(vec![
        number(1, "id", PrimitiveType::Long),
        structure(
            2,
            "_kafka",
            vec![number(3, "offset", PrimitiveType::Long), number(4, "timestamp", PrimitiveType::Timestamptz)],
        ),
        number(5, "amount", PrimitiveType::Decimal { precision: 20, scale: 2 }),
        text(6, "name"),
    ]);
    let json: String = (0..100)
        .map(|n| {
            format!(
                "{{\"id\":{n},\"_kafka\":{{\"offset\":{n},\"timestamp\":\"2026-01-{:02}T00:00:00Z\"}},\"amount\":\"{n}.50\",\"name\":\"n{:03}\"}}\n",
                n / 10 + 1,
                n
            )
        })
        .collect();
    let session = session(table(&folder, schema.clone()), vec![file(&folder, "f.parquet", &schema, &json, 10)]);
    for (filter, rows_kept, rows_read) in [
        ("_kafka.offset >= 95", 5, 10),
        ("_kafka['offset'] BETWEEN 5 AND 12", 8, 20),
        ("_kafka.timestamp = '2026-01-03T00:00:00Z'", 10, 10),
        ("amount < 3.00", 3, 10),
        ("amount < 3", 3, 10),
        ("name LIKE 'n02%'", 10, 10),
        ("name = 'n077' OR id = 3", 2, 20),
        ("id IN (1, 99)", 2, 20),
        ("id IS NULL", 0, 0),
        ("NOT (id > 5)", 6, 10),
        ("id <> 5", 99, 100),
        ("id % 2 = 0 AND id > 89", 5, 10),
    ] {
        let frame = session.sql(&format!("SELECT * FROM t WHERE {filter}")).await.unwrap();
        let plan = frame.create_physical_plan().await.unwrap();
        let batches = datafusion::physical_plan::collect(plan.clone(), session.task_ctx()).await.unwrap();
        let kept: usize = batches.iter().map(RecordBatch::num_rows).sum();
        let mut scan = plan.clone();
        while let Some(child) = scan.children().first().map(|child| (*child).clone()) {
            scan = child;
        }
        let read = scan.metrics().as_ref().and_then(MetricsSet::output_rows).unwrap_or(0);
        assert_eq!((kept, read), (rows_kept, rows_read), "{filter}");
        assert_eq!(scan.output_partitioning().partition_count(), 1);
    }
}

#[tokio::test]
async fn counting_rows_reads_no_file() {
    let folder = TempDir::new().unwrap();
    let mut task = file(&folder, "f.parquet", &before(), OLD_ROWS, 100);
    task.data_file_path = "/nowhere.parquet".to_owned();
    let session = session(table(&folder, before()), vec![task]);
    assert_eq!(rows(&session, "SELECT count(*) FROM t").await, ["3"]);
    let error = session.sql("SELECT id FROM t").await.unwrap().collect().await.unwrap_err();
    assert!(super::one_line(&error).contains("/nowhere.parquet"), "{error}");
}

/// Delete files are other writers': Iceberg's reader applies them to the file as it is, and evolution comes after.
#[tokio::test]
async fn rows_that_strangers_deleted_are_gone_from_an_old_file_too() {
    let folder = TempDir::new().unwrap();
    let old = file(&folder, "old.parquet", &before(), OLD_ROWS, 2);
    let required = |id, name: &str, of| Arc::new(NestedField::required(id, name, Type::Primitive(of)));
    // Field ids and names of position deletes (Iceberg spec, "Position Delete Files").
    let positions = schema(vec![
        required(2_147_483_546, "file_path", PrimitiveType::String),
        required(2_147_483_545, "pos", PrimitiveType::Long),
    ]);
    let json = format!("{{\"file_path\":\"{}\",\"pos\":1}}", old.data_file_path);
    let by_position = file(&folder, "positions.parquet", &positions, &json, 10);
    let equality = schema(vec![number(1, "id", PrimitiveType::Int)]);
    let by_value = file(&folder, "values.parquet", &equality, "{\"id\":3}", 10);
    let delete = |file: &FileScanTask, of: DataContentType, ids: Option<Vec<i32>>| {
        FileScanTaskDeleteFile::builder()
            .with_file_path(file.data_file_path.clone())
            .with_file_size_in_bytes(file.file_size_in_bytes)
            .with_file_type(of)
            .with_partition_spec_id(0)
            .with_equality_ids(ids)
            .build()
    };
    for (deletes, left) in [
        (vec![delete(&by_position, DataContentType::PositionDeletes, None)], vec!["1|Ann", "3|"]),
        (vec![delete(&by_value, DataContentType::EqualityDeletes, Some(vec![1]))], vec!["1|Ann", "2|"]),
        (
            vec![
                delete(&by_position, DataContentType::PositionDeletes, None),
                delete(&by_value, DataContentType::EqualityDeletes, Some(vec![1])),
            ],
            vec!["1|Ann"],
        ),
    ] {
        let task = FileScanTask { deletes, ..old.clone() };
        let session = session(table(&folder, after()), vec![task]);
        assert_eq!(rows(&session, "SELECT order_id, buyer.full_name FROM t ORDER BY 1").await, left);
        assert_eq!(rows(&session, "SELECT count(*) FROM t").await, [left.len().to_string()]);
        assert_eq!(rows(&session, "SELECT count(\"new\".x) FROM t WHERE order_id > 0").await, ["0"]);
    }
}
