//! Files against those of parquet's own Arrow writer: the same rows, and the same said of them.

use std::slice::from_ref;
use std::sync::Arc;

use arrow::array::*;
use arrow::buffer::{BooleanBuffer, Buffer, NullBuffer, OffsetBuffer, ScalarBuffer};
use arrow::compute::{cast, concat_batches};
use arrow::datatypes::{DataType, Field, Fields, Schema, SchemaRef, TimeUnit};
use bytes::Bytes;
use parquet::arrow::ArrowWriter;
use parquet::arrow::arrow_reader::{ArrowReaderOptions, ParquetRecordBatchReaderBuilder};
use parquet::basic::{Compression, Encoding, GzipLevel, ZstdLevel};
use parquet::file::metadata::{PageIndexPolicy, ParquetMetaData};
use parquet::file::properties::{WriterProperties, WriterPropertiesBuilder};
use proptest::prelude::*;
use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};

use super::Writer;

fn ours(batches: &[RecordBatch], properties: WriterProperties) -> Bytes {
    let mut writer = Writer::new(batches[0].schema(), properties).unwrap();
    for batch in batches {
        writer.write(batch).unwrap();
    }
    writer.finish().unwrap();
    writer.take().concat().into()
}

fn theirs(batches: &[RecordBatch], properties: WriterProperties) -> Bytes {
    let mut writer = ArrowWriter::try_new(Vec::new(), batches[0].schema(), Some(properties)).unwrap();
    batches.iter().for_each(|batch| writer.write(batch).unwrap());
    Bytes::from(writer.into_inner().unwrap())
}

/// The rows, in a schema's types, and the metadata.
fn read(file: &Bytes, schema: &SchemaRef) -> (RecordBatch, ParquetMetaData) {
    let options = ArrowReaderOptions::new().with_page_index_policy(PageIndexPolicy::Optional);
    let reader = ParquetRecordBatchReaderBuilder::try_new_with_options(file.clone(), options).unwrap();
    let metadata = reader.metadata().as_ref().clone();
    let batches: Vec<RecordBatch> = reader.build().unwrap().map(|batch| batch.unwrap()).collect();
    let batch = concat_batches(&batches[0].schema(), &batches).unwrap();
    let columns = schema.fields().iter().zip(batch.columns());
    let columns = columns.map(|(field, column)| cast(column, field.data_type()).unwrap()).collect();
    (RecordBatch::try_new(schema.clone(), columns).unwrap(), metadata)
}

fn nulls(length: usize, rng: &mut StdRng) -> Option<NullBuffer> {
    let share = [0.0, 0.1, 0.5, 1.0][rng.random_range(0..4)];
    rng.random_bool(0.8).then(|| (0..length).map(|_| !rng.random_bool(share)).collect())
}

fn text(rng: &mut StdRng) -> String {
    let letters = ["a", "b", "é", "\u{10ffff}", "zz"];
    let length = [0, 1, 3, 9, 90][rng.random_range(0..5)];
    (0..length).map(|_| letters[rng.random_range(0..letters.len())]).collect()
}

/// Values of a type; those that are null, or below what is null, are any values too.
fn array(field: &Field, length: usize, rng: &mut StdRng) -> ArrayRef {
    let nulls = if field.is_nullable() { nulls(length, rng) } else { None };
    let few = rng.random_bool(0.5);
    let number = |rng: &mut StdRng| if few { rng.random_range(-2..3) } else { rng.random::<i64>() };
    let longs = |rng: &mut StdRng| (0..length).map(|_| number(rng)).collect::<ScalarBuffer<i64>>();
    let cast_to = |array: ArrayRef| cast(&array, field.data_type()).unwrap();
    match field.data_type() {
        DataType::Boolean => Arc::new(BooleanArray::new(BooleanBuffer::collect_bool(length, |_| rng.random()), nulls)),
        DataType::Int32 => Arc::new(Int32Array::new((0..length).map(|_| number(rng) as i32).collect(), nulls)),
        DataType::Int64 => Arc::new(Int64Array::new(longs(rng), nulls)),
        DataType::Timestamp(..) => cast_to(Arc::new(Int64Array::new(longs(rng), nulls))),
        DataType::Float64 => {
            let values = [f64::NAN, -0.0, 0.0, 1.5, f64::INFINITY, -3.0];
            let most = rng.random_range(1..=values.len());
            Arc::new(Float64Array::new((0..length).map(|_| values[rng.random_range(0..most)]).collect(), nulls))
        }
        DataType::Float32 => cast_to(Arc::new(Int64Array::new(longs(rng), nulls))),
        DataType::Decimal128(precision, scale) => {
            let most = 10i128.pow(u32::from(*precision)) - 1;
            let values = (0..length).map(|_| i128::from(number(rng)) * rng.random::<u32>() as i128 % most).collect();
            let array = Decimal128Array::new(values, nulls);
            Arc::new(array.with_precision_and_scale(*precision, *scale).unwrap())
        }
        DataType::Utf8 | DataType::LargeUtf8 | DataType::Utf8View => {
            let texts: Vec<String> = (0..length).map(|_| text(rng)).collect();
            let offsets = OffsetBuffer::from_lengths(texts.iter().map(String::len));
            cast_to(Arc::new(StringArray::new(offsets, Buffer::from(texts.concat().into_bytes()), nulls)))
        }
        DataType::Binary => {
            let texts: Vec<Vec<u8>> = (0..length).map(|_| vec![rng.random(); rng.random_range(0..80)]).collect();
            let offsets = OffsetBuffer::from_lengths(texts.iter().map(Vec::len));
            Arc::new(BinaryArray::new(offsets, Buffer::from(texts.concat()), nulls))
        }
        DataType::FixedSizeBinary(width) => {
            let bytes: Vec<u8> = (0..length * *width as usize).map(|_| rng.random()).collect();
            Arc::new(FixedSizeBinaryArray::new(*width, Buffer::from(bytes), nulls))
        }
        DataType::Struct(fields) => {
            let columns = fields.iter().map(|field| array(field, length, rng)).collect();
            Arc::new(StructArray::new(fields.clone(), columns, nulls))
        }
        DataType::List(element) => {
            let offsets = OffsetBuffer::from_lengths((0..length).map(|_| rng.random_range(0..4)));
            let values = array(element, offsets[length] as usize, rng);
            Arc::new(ListArray::new(element.clone(), offsets, values, nulls))
        }
        DataType::Map(entries, _) => {
            let offsets = OffsetBuffer::from_lengths((0..length).map(|_| rng.random_range(0..3)));
            let pairs = array(entries, offsets[length] as usize, rng).as_struct().clone();
            Arc::new(MapArray::new(entries.clone(), offsets, pairs, nulls, false))
        }
        other => panic!("no values of {other}"),
    }
}

fn schema() -> SchemaRef {
    let field = |name: &str, data_type: DataType| Field::new(name, data_type, true);
    let list = |data_type: DataType| DataType::List(Arc::new(Field::new("element", data_type, true)));
    let inner = Fields::from(vec![
        Field::new("required", DataType::Int32, false),
        field("text", DataType::Utf8),
        field(
            "deeper",
            DataType::Struct(vec![field("ratio", DataType::Float64), field("flags", list(DataType::Boolean))].into()),
        ),
    ]);
    let pair = Fields::from(vec![Field::new("key", DataType::Utf8, false), field("value", DataType::Int64)]);
    let map = DataType::Map(Arc::new(Field::new("key_value", DataType::Struct(pair), false)), false);
    Arc::new(Schema::new(vec![
        Field::new("id", DataType::Int64, false),
        field("number", DataType::Int32),
        field("clock", DataType::Timestamp(TimeUnit::Microsecond, Some("UTC".into()))),
        field("weight", DataType::Float32),
        field("small", DataType::Decimal128(7, 2)),
        field("middle", DataType::Decimal128(15, 0)),
        field("large", DataType::Decimal128(33, 4)),
        field("view", DataType::Utf8View),
        field("long", DataType::LargeUtf8),
        field("blob", DataType::Binary),
        field("uuid", DataType::FixedSizeBinary(16)),
        field("place", DataType::Struct(inner.clone())),
        field("places", list(DataType::Struct(inner))),
        field("grid", list(list(list(DataType::Utf8)))),
        Field::new("required", DataType::List(Arc::new(Field::new("element", DataType::Int64, false))), false),
        field("attributes", map),
    ]))
}

/// What both files say of their columns, but for what depends on how they are encoded.
fn assert_same_metadata(ours: &ParquetMetaData, theirs: &ParquetMetaData) {
    assert_eq!(ours.file_metadata().schema_descr(), theirs.file_metadata().schema_descr());
    assert_eq!(ours.num_row_groups(), theirs.num_row_groups());
    for (group, (ours_group, theirs_group)) in ours.row_groups().iter().zip(theirs.row_groups()).enumerate() {
        assert_eq!(ours_group.num_rows(), theirs_group.num_rows());
        for (index, (a, b)) in ours_group.columns().iter().zip(theirs_group.columns()).enumerate() {
            let column = a.column_path().string();
            assert_eq!((a.num_values(), a.compression()), (b.num_values(), b.compression()), "{column}");
            assert_eq!(a.statistics(), b.statistics(), "{column}");
            assert_eq!(a.unencoded_byte_array_data_bytes(), b.unencoded_byte_array_data_bytes(), "{column}");
            assert_eq!(a.definition_level_histogram(), b.definition_level_histogram(), "{column}");
            assert_eq!(a.repetition_level_histogram(), b.repetition_level_histogram(), "{column}");
            // Below lists the Arrow writer takes a page for one of nulls by the count of its rows.
            if a.column_descr().max_rep_level() == 0 {
                let index = |metadata: &ParquetMetaData| metadata.column_index().unwrap()[group][index].clone();
                assert_eq!(index(ours), index(theirs), "{column}");
            }
            let pages = |metadata: &ParquetMetaData| {
                let index = &metadata.offset_index().unwrap()[group][index];
                let rows: Vec<i64> = index.page_locations().iter().map(|page| page.first_row_index).collect();
                (rows, index.unencoded_byte_array_data_bytes().cloned())
            };
            assert_eq!(pages(ours), pages(theirs), "{column}");
        }
    }
}

fn properties(dictionary: bool, delta: bool) -> WriterPropertiesBuilder {
    let mut builder = WriterProperties::builder()
        .set_compression(Compression::ZSTD(ZstdLevel::try_new(1).unwrap()))
        .set_dictionary_enabled(dictionary)
        .set_coerce_types(true)
        .set_statistics_truncate_length(Some(128))
        // The Arrow writer looks at its pages' rows after so many.
        .set_write_batch_size(1);
    if delta {
        for column in ["id", "number", "clock", "middle", "required.list.element", "attributes.key_value.value"] {
            builder = builder.set_column_encoding(column.into(), Encoding::DELTA_BINARY_PACKED);
        }
        let parts = |path: &str| path.split('.').map(str::to_string).collect::<Vec<_>>();
        for column in ["view", "long", "blob", "place.text", "places.list.element.text"] {
            builder = builder.set_column_encoding(parts(column).into(), Encoding::DELTA_LENGTH_BYTE_ARRAY);
        }
    }
    builder
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn rows_and_metadata_are_those_of_the_arrow_writer(
        seed: u64,
        rows in proptest::collection::vec(1usize..300, 1..4),
        page_rows in 5usize..400,
        dictionary: bool,
        delta: bool,
    ) {
        let mut rng = StdRng::seed_from_u64(seed);
        let schema = schema();
        let batches: Vec<RecordBatch> = rows
            .iter()
            .map(|rows| {
                let columns = schema.fields().iter().map(|field| array(field, rows + 7, &mut rng)).collect();
                RecordBatch::try_new(schema.clone(), columns).unwrap().slice(rng.random_range(0..8), *rows)
            })
            .collect();
        let properties = properties(dictionary, delta).set_data_page_row_count_limit(page_rows).build();
        let (ours, our_metadata) = read(&ours(&batches, properties.clone()), &schema);
        let (theirs, their_metadata) = read(&theirs(&batches, properties), &schema);
        prop_assert_eq!(ours.num_rows(), rows.iter().sum::<usize>());
        for (index, field) in schema.fields().iter().enumerate() {
            prop_assert!(ours.column(index) == theirs.column(index), "{} differs", field.name());
        }
        assert_same_metadata(&our_metadata, &their_metadata);
    }
}

fn texts(rows: usize, text: impl Fn(usize) -> String) -> RecordBatch {
    let array: StringArray = (0..rows).map(|row| Some(text(row))).collect();
    RecordBatch::try_from_iter([("text", Arc::new(array) as ArrayRef)]).unwrap()
}

#[test]
fn pages_end_at_their_bytes_and_dictionaries_at_theirs() {
    let batch = texts(5000, |row| format!("{row:0100}"));
    let limits = WriterProperties::builder().set_data_page_size_limit(20_000).set_dictionary_page_size_limit(50_000);
    let file = ours(&[batch.clone(), batch.clone()], limits.build());
    let (read, metadata) = read(&file, &batch.schema());
    assert!(read.slice(0, 5000) == batch && read.slice(5000, 5000) == batch);
    let chunk = metadata.row_group(0).column(0);
    assert!(chunk.dictionary_page_offset().is_some());
    assert_eq!(chunk.encodings().collect::<Vec<_>>(), [Encoding::PLAIN, Encoding::RLE, Encoding::RLE_DICTIONARY]);
    let pages = metadata.offset_index().unwrap()[0][0].page_locations();
    assert!(pages.iter().all(|page| page.compressed_page_size < 21_000), "{pages:?}");
    let large = texts(3, |_| "x".repeat(50_000));
    let (_, metadata) = self::read(
        &ours(from_ref(&large), properties(false, false).set_data_page_size_limit(20_000).build()),
        &large.schema(),
    );
    assert_eq!(metadata.offset_index().unwrap()[0][0].page_locations().len(), 3, "a value each");
}

#[test]
fn every_codec_and_bloom_filters_are_read() {
    let batch = texts(1000, |row| format!("{}", row % 321));
    for codec in [
        Compression::UNCOMPRESSED,
        Compression::SNAPPY,
        Compression::GZIP(GzipLevel::try_new(6).unwrap()),
        Compression::LZ4_RAW,
        Compression::ZSTD(ZstdLevel::default()),
    ] {
        let file = ours(
            from_ref(&batch),
            properties(true, true).set_compression(codec).set_bloom_filter_enabled(true).build(),
        );
        let (read, metadata) = read(&file, &batch.schema());
        assert!(read == batch, "{codec}");
        assert_eq!(metadata.row_group(0).column(0).compression(), codec);
        let bloom = ParquetRecordBatchReaderBuilder::try_new(file).unwrap().get_row_group_column_bloom_filter(0, 0);
        let bloom = bloom.unwrap().unwrap();
        assert!((0..321).all(|value| bloom.check(value.to_string().as_str())) && !bloom.check("none"));
    }
    let error =
        Writer::new(batch.schema(), properties(true, true).set_compression(Compression::LZ4).build()).err().unwrap();
    assert!(error.to_string().contains("LZ4"), "{error}");
}

#[test]
fn row_groups_end_at_their_bytes_and_free_their_memory() {
    let batch = texts(1000, |row| format!("{row:0100}"));
    let properties =
        properties(false, false).set_max_row_group_bytes(Some(150_000)).set_compression(Compression::UNCOMPRESSED);
    let mut writer = Writer::new(batch.schema(), properties.build()).unwrap();
    let mut largest = 0;
    for _ in 0..10 {
        writer.write(&batch).unwrap();
        largest = largest.max(writer.memory_bytes());
    }
    assert!((100_000..150_000).contains(&largest), "{largest}");
    let metadata = writer.finish().unwrap();
    let rows: Vec<i64> = metadata.row_groups().iter().map(|group| group.num_rows()).collect();
    assert_eq!((rows.len(), rows.iter().sum::<i64>()), (7, 10_000));
    assert!(metadata.row_groups().iter().all(|group| group.total_byte_size() < 152_000));
    assert_eq!(writer.memory_bytes(), 0);
}
