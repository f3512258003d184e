//! The writer against the Parquet files and manifest entries that come out of it.

use std::collections::{BTreeSet, HashSet};
use std::sync::Arc;

use arrow::array::{ArrayRef, AsArray, Float32Array, Float64Array, Int64Array, RecordBatch, StringArray};
use arrow::compute::concat_batches;
use arrow::datatypes::{DataType, Field, Int64Type, Schema as ArrowSchema};
use iceberg::spec::{DataFile, Datum, Literal, PrimitiveType, Transform};
use parquet::arrow::arrow_reader::ParquetRecordBatchReaderBuilder;
use proptest::prelude::*;
use serde_json::{Value, json};

use super::{Limits, TableWriter, discard, fixtures};
use crate::error::Verdict;

fn local(file: &DataFile) -> &str {
    file.file_path().strip_prefix("file://").unwrap()
}

fn read(file: &DataFile) -> RecordBatch {
    let bytes = std::fs::File::open(local(file)).unwrap();
    let reader = ParquetRecordBatchReaderBuilder::try_new(bytes).unwrap();
    let schema = reader.schema().clone();
    let batches: Vec<_> = reader.build().unwrap().map(|batch| batch.unwrap()).collect();
    concat_batches(&schema, &batches).unwrap()
}

fn ids(batch: &RecordBatch) -> Vec<i64> {
    batch.column(0).as_primitive::<Int64Type>().values().to_vec()
}

fn json_rows(batch: &RecordBatch) -> Vec<Value> {
    let mut writer = arrow::json::ArrayWriter::new(Vec::new());
    writer.write(batch).unwrap();
    writer.finish().unwrap();
    serde_json::from_slice(&writer.into_inner()).unwrap()
}

/// Rows with an id, a time `step` microseconds apart, and some text; everything else null.
fn events(schema: &arrow::datatypes::SchemaRef, from: i64, count: i64, step: i64) -> RecordBatch {
    let rows: Vec<Value> = (from..from + count)
        .map(
            |id| json!({"id": id, "name": format!("{:016x}", id.wrapping_mul(0x1e37_79b9_7f4a_7c15)), "at": id * step}),
        )
        .collect();
    fixtures::batch(schema, &rows)
}

#[tokio::test]
async fn every_type_comes_back_and_is_measured() {
    let (_folder, table) = fixtures::table(&[], &[]);
    let schema = fixtures::arrow_schema(&table);
    let rows = vec![
        json!({
            "id": 1, "name": "a name that is a good deal longer than sixty-four bytes, as names sometimes are",
            "flag": true, "small": -5, "weight": -2.5, "ratio": 0.5,
            "amount": "18446744073709551615", "price": "-1.29", "day": "2026-11-22", "at": "2026-11-22T10:00:00.000001Z",
            "blob": "00ff00ff00ff00ff00ff00ff00ff00ff00ff", "place": {"city": "Bern", "score": 1.5},
            "points": [{"x": 1.0, "label": "zz"}, {"x": 2.0, "label": "b"}], "attributes": {"k": 1, "l": 2},
        }),
        json!({
            "id": 2, "name": "", "flag": false, "small": 7, "weight": 0.0, "ratio": -0.0,
            "amount": "0", "price": "0.01", "day": "1969-12-31", "at": "0001-01-01T00:00:00Z",
            "blob": "", "place": null, "points": [], "attributes": {},
        }),
        json!({"id": 3, "place": {"city": null, "score": null}}),
    ];
    let mut batch = fixtures::batch(&schema, &rows);
    // JSON has no NaN.
    let mut columns = batch.columns().to_vec();
    columns[4] = Arc::new(Float32Array::from(vec![Some(f32::NAN), Some(0.0), None]));
    columns[5] = Arc::new(Float64Array::from(vec![Some(f64::NAN), Some(f64::NAN), None]));
    batch = RecordBatch::try_new(schema.clone(), columns).unwrap();

    let mut writer = TableWriter::new(&table, Limits::default()).unwrap();
    writer.write(batch.clone()).await.unwrap();
    let staged = writer.finish().await.unwrap();
    let [file] = staged.files.as_slice() else { panic!("one file, not {}", staged.files.len()) };
    assert_eq!(json_rows(&read(file)), json_rows(&batch));

    assert_eq!(file.record_count(), 3);
    assert_eq!(file.file_size_in_bytes(), std::fs::metadata(local(file)).unwrap().len());
    assert_eq!(file.split_offsets(), Some(&[4][..]), "the first row group follows the magic number");
    assert_eq!(file.sort_order_id(), Some(0));
    let leaves: BTreeSet<i32> = (1..=11).chain([15, 16, 18, 19, 20, 21]).collect();
    assert_eq!(file.value_counts().keys().copied().collect::<BTreeSet<i32>>(), leaves);
    assert_eq!(file.column_sizes().keys().copied().collect::<BTreeSet<i32>>(), leaves);
    assert!(file.column_sizes().values().all(|size| *size > 0));
    let counts = |id| (file.value_counts()[&id], file.null_value_counts()[&id]);
    assert_eq!(counts(1), (3, 0));
    assert_eq!(counts(2), (3, 1));
    assert_eq!(counts(15), (3, 2), "null under a null parent, and null by itself");
    assert_eq!(counts(18), (4, 2), "two elements, an empty list and a null one");
    let nans = file.nan_value_counts();
    assert_eq!(nans.keys().copied().collect::<BTreeSet<i32>>(), BTreeSet::from([5, 6, 16, 18]));
    assert_eq!((nans[&5], nans[&6], nans[&16], nans[&18]), (1, 2, 0, 0));

    let bounds = |id: i32| {
        let bytes = |bound: Option<&Datum>| bound.map(|bound| bound.to_bytes().unwrap().into_vec());
        (bytes(file.lower_bounds().get(&id)), bytes(file.upper_bounds().get(&id)))
    };
    let both = |low: &[u8], high: &[u8]| (Some(low.to_vec()), Some(high.to_vec()));
    assert_eq!(bounds(1), both(&1i64.to_le_bytes(), &3i64.to_le_bytes()));
    assert_eq!(bounds(2), both(b"", b"a name that is b"), "cut to 16 code points, the last incremented");
    assert_eq!(bounds(3), both(&[0], &[1]));
    assert_eq!(bounds(4), both(&(-5i32).to_le_bytes(), &7i32.to_le_bytes()));
    assert_eq!(bounds(5), both(&(-0.0f32).to_le_bytes(), &0.0f32.to_le_bytes()), "zero bounds have both signs inside");
    assert_eq!(bounds(6), (None, None), "only NaN: no bounds");
    assert_eq!(bounds(7), both(&[0], &[0, 255, 255, 255, 255, 255, 255, 255, 255]));
    assert_eq!(bounds(8), both(&[0xff, 0x7f], &[1]), "-129 and 1, minimal two's complement");
    assert_eq!(bounds(9), both(&(-1i32).to_le_bytes(), &20_779i32.to_le_bytes()));
    assert_eq!(bounds(10), both(&(-62_135_596_800_000_000i64).to_le_bytes(), &1_795_341_600_000_001i64.to_le_bytes()));
    let mut cut = [0, 255].repeat(8);
    cut[14] = 1;
    cut.truncate(15);
    assert_eq!(bounds(11), both(b"", &cut));
    assert_eq!(bounds(15), both(b"Bern", b"Bern"));
    for repeated in [18, 19, 20, 21] {
        assert_eq!(bounds(repeated), (None, None), "no bounds below lists and maps");
    }
}

#[tokio::test]
async fn the_file_carries_field_ids_page_index_and_zstd() {
    let (_folder, table) = fixtures::table(&[], &[]);
    let mut writer = TableWriter::new(&table, Limits::default()).unwrap();
    writer.write(events(&fixtures::arrow_schema(&table), 0, 50_000, 1)).await.unwrap();
    let staged = writer.finish().await.unwrap();
    let file = std::fs::File::open(local(&staged.files[0])).unwrap();
    let metadata = parquet::file::metadata::ParquetMetaDataReader::new()
        .with_page_index_policy(parquet::file::metadata::PageIndexPolicy::Required)
        .parse_and_finish(&file)
        .unwrap();
    assert!(metadata.column_index().is_some() && metadata.offset_index().is_some());
    assert!(metadata.offset_index().unwrap()[0][0].page_locations().len() > 1);
    let root = metadata.file_metadata().schema_descr().root_schema();
    let field_ids: Vec<i32> = root.get_fields().iter().map(|field| field.get_basic_info().id()).collect();
    assert_eq!(field_ids, (1..=14).collect::<Vec<i32>>());
    for column in metadata.row_group(0).columns() {
        assert!(matches!(column.compression(), parquet::basic::Compression::ZSTD(_)), "{}", column.column_path());
    }
    let keys = metadata.file_metadata().key_value_metadata();
    assert!(keys.is_none_or(|keys| keys.iter().all(|entry| entry.key != "ARROW:schema")));
}

#[tokio::test]
async fn files_roll_at_their_target_and_lose_nothing() {
    check_rolling(Some(100_000), "1").await;
    check_rolling(None, "100000").await;
}

/// The caller's target, and the table's, which only counts where there is no other.
async fn check_rolling(target: Option<u64>, property: &str) {
    let properties = [("write.parquet.row-group-size-bytes", "20000"), ("write.target-file-size-bytes", property)];
    let (_folder, table) = fixtures::table(&[], &properties);
    let limits = Limits { file_size_bytes_target: target, ..Limits::default() };
    let mut writer = TableWriter::new(&table, limits).unwrap();
    let schema = fixtures::arrow_schema(&table);
    for batch in 0..100 {
        writer.write(events(&schema, batch * 1_000, 1_000, 977)).await.unwrap();
    }
    let staged = writer.finish().await.unwrap();
    assert!(staged.files.len() > 2, "{} files", staged.files.len());
    let mut seen = Vec::new();
    for file in &staged.files[..staged.files.len() - 1] {
        assert!((100_000..160_000).contains(&file.file_size_in_bytes()), "{}", file.file_size_in_bytes());
        assert!(file.split_offsets().unwrap().len() > 3);
        assert!(file.split_offsets().unwrap().is_sorted());
    }
    for file in &staged.files {
        let rows = ids(&read(file));
        assert_eq!(rows.len() as u64, file.record_count());
        assert_eq!(file.lower_bounds()[&1], Datum::long(rows[0]));
        assert_eq!(file.upper_bounds()[&1], Datum::long(rows[rows.len() - 1]));
        seen.extend(rows);
    }
    seen.sort();
    assert_eq!(seen, (0..100_000).collect::<Vec<i64>>());
    assert_eq!(staged.rows(), 100_000);
}

#[tokio::test]
async fn more_partitions_than_open_files_close_the_oldest() {
    let day = 86_400_000_000;
    let (_folder, table) = fixtures::table(&[("at", Transform::Day), ("name", Transform::Bucket(2))], &[]);
    let limits = Limits { open_files_max: 4, ..Limits::default() };
    let mut writer = TableWriter::new(&table, limits).unwrap();
    let schema = fixtures::arrow_schema(&table);
    for batch in 0..5 {
        writer.write(events(&schema, batch * 100, 100, day / 10)).await.unwrap();
        assert!(writer.open_files() <= 4);
    }
    let staged = writer.finish().await.unwrap();
    let mut seen = Vec::new();
    let mut partitions = HashSet::new();
    for file in &staged.files {
        let rows = ids(&read(file));
        let Some(Literal::Primitive(iceberg::spec::PrimitiveLiteral::Int(days))) = file.partition()[0] else {
            panic!("{:?}", file.partition());
        };
        assert!(rows.iter().all(|id| id * (day / 10) / day == i64::from(days)), "{rows:?} are not of day {days}");
        let date = chrono::DateTime::from_timestamp(i64::from(days) * 86_400, 0).unwrap().format("%Y-%m-%d");
        assert!(file.file_path().contains(&format!("/data/at_day={date}/name_bucket=")), "{}", file.file_path());
        partitions.insert((days, file.partition()[1].clone()));
        seen.extend(rows);
    }
    seen.sort();
    assert_eq!(seen, (0..500).collect::<Vec<i64>>());
    assert_eq!(partitions.len(), 100);
}

#[tokio::test]
async fn buffered_bytes_stay_within_their_budget() {
    let (_folder, table) = fixtures::table(&[("id", Transform::Bucket(8))], &[]);
    let limits = Limits { buffered_bytes_max: 1_000_000, ..Limits::default() };
    let mut writer = TableWriter::new(&table, limits).unwrap();
    let schema = fixtures::arrow_schema(&table);
    let mut peak = 0;
    for batch in 0..40 {
        writer.write(events(&schema, batch * 1_000, 1_000, 1)).await.unwrap();
        peak = peak.max(writer.buffered_bytes());
    }
    assert!(peak > 500_000 && peak <= 1_000_000, "{peak}");
    assert_eq!(writer.open_files(), 8, "row groups were put early, no file was closed");
    assert_eq!(writer.finish().await.unwrap().rows(), 40_000);
}

#[tokio::test]
async fn nothing_stays_after_abort_or_discard() {
    let (folder, table) = fixtures::table(&[("id", Transform::Truncate(10))], &[]);
    let files = || {
        let mut found = 0;
        let mut folders = vec![folder.path().to_path_buf()];
        while let Some(next) = folders.pop() {
            for entry in std::fs::read_dir(next).unwrap() {
                let path = entry.unwrap().path();
                if path.is_dir() { folders.push(path) } else { found += 1 }
            }
        }
        found
    };
    let schema = fixtures::arrow_schema(&table);
    let mut writer = TableWriter::new(&table, Limits { open_files_max: 2, ..Limits::default() }).unwrap();
    writer.write(events(&schema, 0, 100, 1)).await.unwrap();
    assert!(files() >= 8);
    writer.abort().await;
    assert_eq!(files(), 0);

    let mut writer = TableWriter::new(&table, Limits::default()).unwrap();
    writer.write(events(&schema, 0, 100, 1)).await.unwrap();
    let staged = writer.finish().await.unwrap();
    assert_eq!(files(), 10);
    discard(&table, staged).await;
    assert_eq!(files(), 0);

    let staged = TableWriter::new(&table, Limits::default()).unwrap().finish().await.unwrap();
    assert!(staged.files.is_empty() && files() == 0, "no rows, no files");
}

#[tokio::test]
async fn string_views_and_names_of_other_engines_are_taken() {
    let (_folder, table) = fixtures::table(&[("name", Transform::Identity)], &[]);
    let schema = fixtures::arrow_schema(&table);
    let batch = events(&schema, 0, 3, 1);
    let mut fields = schema.fields().to_vec();
    let mut columns = batch.columns().to_vec();
    columns[1] = arrow::compute::cast(&columns[1], &DataType::Utf8View).unwrap();
    fields[1] = Arc::new(Field::new("name", DataType::Utf8View, true));
    let mut writer = TableWriter::new(&table, Limits::default()).unwrap();
    writer.write(RecordBatch::try_new(Arc::new(ArrowSchema::new(fields)), columns).unwrap()).await.unwrap();
    assert_eq!(writer.finish().await.unwrap().files.len(), 3);
}

#[tokio::test]
async fn a_batch_of_another_schema_halts() {
    let (_folder, table) = fixtures::table(&[], &[]);
    let mut writer = TableWriter::new(&table, Limits::default()).unwrap();
    let batch = RecordBatch::try_from_iter([("id", Arc::new(Int64Array::from(vec![1])) as ArrayRef)]).unwrap();
    assert_eq!(writer.write(batch).await.unwrap_err().verdict, Verdict::Halt);
}

#[tokio::test]
async fn metrics_modes_are_the_tables() {
    let properties = [
        ("write.metadata.metrics.default", "truncate(3)"),
        ("write.metadata.metrics.column.id", "none"),
        ("write.metadata.metrics.column.small", "counts"),
        ("write.metadata.metrics.column.place.city", "full"),
    ];
    let (_folder, table) = fixtures::table(&[], &properties);
    let city = "a".repeat(70);
    let row = json!({"id": 1, "small": 2, "name": "abcdef", "place": {"city": city}});
    let mut writer = TableWriter::new(&table, Limits::default()).unwrap();
    writer.write(fixtures::batch(&fixtures::arrow_schema(&table), &[row])).await.unwrap();
    let file = writer.finish().await.unwrap().files.remove(0);
    assert!(!file.value_counts().contains_key(&1) && !file.lower_bounds().contains_key(&1));
    assert!(file.value_counts().contains_key(&4) && !file.lower_bounds().contains_key(&4));
    assert_eq!((&file.lower_bounds()[&2], &file.upper_bounds()[&2]), (&Datum::string("abc"), &Datum::string("abd")));
    assert_eq!(file.upper_bounds()[&15], Datum::string(city));
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(48))]

    /// Bounds hold every value, and are no longer than sixteen code points.
    #[test]
    fn string_bounds_hold_all_values(values in proptest::collection::vec(".{0,40}|[\u{10fffe}\u{10ffff}]{0,30}|[~\u{7f}\u{d7ff}]{10,40}", 1..30)) {
        let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
        runtime.block_on(async {
            let (_folder, table) = fixtures::table(&[], &[("write.parquet.row-group-size-bytes", "1000")]);
            let schema = fixtures::arrow_schema(&table);
            let mut columns: Vec<ArrayRef> =
                schema.fields().iter().map(|field| arrow::array::new_null_array(field.data_type(), values.len())).collect();
            columns[1] = Arc::new(StringArray::from(values.clone()));
            let mut writer = TableWriter::new(&table, Limits::default()).unwrap();
            writer.write(RecordBatch::try_new(schema, columns).unwrap()).await.unwrap();
            let file = writer.finish().await.unwrap().files.remove(0);
            let text = |datum: Option<&Datum>| datum.map(|datum| {
                assert_eq!(datum.data_type(), &PrimitiveType::String);
                String::from_utf8(datum.to_bytes().unwrap().into_vec()).unwrap()
            });
            let (low, high) = (text(file.lower_bounds().get(&2)), text(file.upper_bounds().get(&2)));
            let low = low.expect("strings always have a lower bound");
            assert!(low.chars().count() <= 16);
            assert!(values.iter().all(|value| low <= *value));
            match high {
                Some(high) => {
                    assert!(high.chars().count() <= 16);
                    assert!(values.iter().all(|value| *value <= high));
                }
                None => {
                    let largest = values.iter().max().unwrap();
                    assert!(largest.chars().take(16).all(|c| c == '\u{10ffff}'), "{largest:?} has an upper bound");
                }
            }
        });
    }
}
