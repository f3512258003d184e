//! Arrow to Parquet: calve's choice of encodings against arrow-rs' defaults, both with zstd-1 and page statistics.
//!
//! Input is what the shredder makes of the producers' messages, `_kafka` and `_raw` included. Both files are read back
//! and compared to it before any timing.

use std::collections::HashMap;
use std::hint::black_box;

use arrow::array::RecordBatch;
use arrow::compute::{cast, concat_batches};
use bytes::Bytes;
use parquet::arrow::ArrowWriter;
use parquet::arrow::arrow_reader::ParquetRecordBatchReaderBuilder;
use parquet::basic::{Compression, ZstdLevel};
use parquet::file::properties::WriterProperties;

use crate::batch::RawBatch;
use crate::corpus::{self, SCHEMAS};
use crate::layout::Layout;
use crate::measure::{Speeds, cpu};
use crate::options::{Limits, Options};
use crate::schema::mapping::Mapping;
use crate::shred::{self, Shredder};
use crate::write::Writer;
use crate::{encoding, sample};

/// Bytes of Protobuf in one file.
const FILE_BYTES: usize = 48 << 20;
const ROUNDS: usize = 7;

/// A file by calve.
fn ours(batches: &[RecordBatch], layout: &Layout, properties: WriterProperties) -> Vec<u8> {
    let mut writer = Writer::new(layout.arrow.clone(), properties).expect("a writer");
    for batch in batches {
        writer.write(batch).expect("rows are encoded");
    }
    writer.finish().expect("the file is closed");
    writer.take().concat()
}

/// A file by arrow-rs.
fn theirs(batches: &[RecordBatch], properties: WriterProperties) -> Vec<u8> {
    let mut writer = ArrowWriter::try_new(Vec::new(), batches[0].schema(), Some(properties)).expect("a writer");
    batches.iter().for_each(|batch| writer.write(batch).expect("rows are encoded"));
    writer.into_inner().expect("the file is closed")
}

fn assert_same(file: Vec<u8>, batches: &[RecordBatch]) {
    let reader = ParquetRecordBatchReaderBuilder::try_new(Bytes::from(file)).expect("a Parquet file");
    let read: Vec<RecordBatch> = reader.build().expect("a reader").map(|batch| batch.expect("rows")).collect();
    let schema = batches[0].schema();
    let read = concat_batches(&read[0].schema(), &read).expect("one schema");
    let written = concat_batches(&schema, batches).expect("one schema");
    for (read, written) in read.columns().iter().zip(written.columns()) {
        // Calve's files have no Arrow schema to say in which of Arrow's types they were written.
        let read = cast(read, written.data_type()).expect("the same values");
        assert!(&read == written, "what is read is what was written");
    }
}

/// Batches as the shredder makes them of so many bytes of messages.
fn batches(mapping: &Mapping, records: &[Vec<u8>]) -> Vec<RecordBatch> {
    let mut shredder = Shredder::new(mapping, shred::Options::default()).expect("the mapping can be shredded");
    let shred = |batch: &RawBatch| {
        assert!(shredder.append(batch).is_empty());
        shredder.take().expect("the schema fits")
    };
    corpus::batches(records).iter().flat_map(shred).collect()
}

/// Encodes again and again, for a profiler.
pub fn alone(name: &str, rounds: usize) {
    let (_, message) = SCHEMAS.into_iter().find(|(known, _)| *known == name).expect("a schema of the corpus");
    let pool = corpus::pool();
    let mapping = corpus::mapping(&pool, message);
    let batches = batches(&mapping, &corpus::records(&pool, name, message, FILE_BYTES));
    let layout = Layout::new(&mapping.iceberg, &mapping.arrow).expect("the mapping's own schemas agree");
    let options = Options::new(&Default::default()).expect("the defaults are valid");
    for _ in 0..rounds {
        let samples = sample::samples(&batches[0]);
        black_box(ours(&batches, &layout, encoding::properties(&layout, &options, &Limits::default(), &samples)));
    }
}

pub fn run(only: &[String]) {
    let pool = corpus::pool();
    let options = ["true", "false"].map(|delta| {
        let properties = HashMap::from([("calve.parquet.delta-encodings".to_string(), delta.to_string())]);
        Options::new(&properties).expect("a property that there is")
    });
    let zstd = Compression::ZSTD(ZstdLevel::try_new(1).expect("a level of zstd"));
    println!(
        "{:14} {:>17}  {:>17}  {:>17}  times      bytes of a row, share",
        "MB/s of input", "calve", "without deltas", "arrow-rs"
    );
    for (name, message) in SCHEMAS {
        if !(only.is_empty() && matches!(name, "event" | "flat")) && !only.iter().any(|wanted| wanted == name) {
            continue;
        }
        let mapping = corpus::mapping(&pool, message);
        let records = corpus::records(&pool, name, message, FILE_BYTES);
        let bytes: usize = records.iter().map(Vec::len).sum();
        let batches = batches(&mapping, &records);
        let layout = Layout::new(&mapping.iceberg, &mapping.arrow).expect("the mapping's own schemas agree");
        // Choosing the encodings counts as calve's time.
        let calve = |options: &Options| {
            let samples = sample::samples(&batches[0]);
            ours(&batches, &layout, encoding::properties(&layout, options, &Limits::default(), &samples))
        };
        let arrow_rs = || theirs(&batches, WriterProperties::builder().set_compression(zstd).build());
        let contestants: [&dyn Fn() -> Vec<u8>; 3] = [&|| calve(&options[0]), &|| calve(&options[1]), &arrow_rs];
        let sizes = contestants.map(|encode| {
            let file = encode();
            let size = file.len();
            assert_same(file, &batches);
            size as f64 / records.len() as f64
        });
        let mut speeds: [Speeds; 3] = Default::default();
        for _ in 0..ROUNDS {
            for (speeds, encode) in speeds.iter_mut().zip(contestants) {
                let start = cpu();
                black_box(encode());
                speeds.add(bytes, start);
            }
        }
        let [calve, plain, arrow_rs] = &speeds;
        let times = [calve, plain].map(|speeds| speeds.median() / arrow_rs.median());
        println!(
            "{name:14} {calve:>17}  {plain:>17}  {arrow_rs:>17}  {:.2} {:.2}  {:.1} {:.1} {:.1}  {:.3} {:.3}",
            times[0],
            times[1],
            sizes[0],
            sizes[1],
            sizes[2],
            sizes[0] / sizes[2],
            sizes[1] / sizes[2]
        );
    }
}

/// The encodings that calve chooses for a schema's columns, and what each column takes.
pub fn explain(name: &str) {
    let (_, message) = SCHEMAS.into_iter().find(|(known, _)| *known == name).expect("a schema of the corpus");
    let pool = corpus::pool();
    let mapping = corpus::mapping(&pool, message);
    let records = corpus::records(&pool, name, message, FILE_BYTES);
    let batches = batches(&mapping, &records);
    let layout = Layout::new(&mapping.iceberg, &mapping.arrow).expect("the mapping's own schemas agree");
    let options = Options::new(&Default::default()).expect("the defaults are valid");
    let zstd = Compression::ZSTD(ZstdLevel::try_new(1).expect("a level of zstd"));
    let samples = sample::samples(&batches[0]);
    let files = [
        ours(&batches, &layout, encoding::properties(&layout, &options, &Limits::default(), &samples)),
        theirs(&batches, WriterProperties::builder().set_compression(zstd).build()),
    ];
    let [ours, theirs] = files.map(|file| {
        let reader = ParquetRecordBatchReaderBuilder::try_new(Bytes::from(file)).expect("a Parquet file");
        let group = reader.metadata().row_group(0).clone();
        assert_eq!(group.num_rows() as usize, records.len(), "one row group");
        group.columns().to_vec()
    });
    println!("{:32} {:>9} {:>9}  sample", "bits of a row", "calve", "arrow-rs");
    for ((ours, theirs), sample) in ours.iter().zip(&theirs).zip(&samples) {
        let bits = |size: i64| 8.0 * size as f64 / records.len() as f64;
        println!(
            "{:32} {:9.2} {:9.2}  {:?} {sample:.1?}",
            ours.column_path().string(),
            bits(ours.compressed_size()),
            bits(theirs.compressed_size()),
            ours.encodings().collect::<Vec<_>>(),
        );
    }
}
