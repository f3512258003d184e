//! A closed file's entry for the manifest (Iceberg spec, "Manifests", `data_file`).
//!
//! Counts are Parquet's: every leaf has one value for each row it is optional in, and for each element or empty list
//! it is repeated in, as Java and PyIceberg count them. Bounds are given for leaves that lie in structs only, never for
//! those below lists and maps.

use std::collections::HashMap;

use iceberg::spec::{DataContentType, DataFile, DataFileBuilder, DataFileFormat, PrimitiveType, Struct};
use parquet::file::metadata::ParquetMetaData;

use super::bounds::Range;
use super::layout::Layout;
use super::options::{Metrics, Options};
use crate::error::{Error, Result};

/// What a file is, beside its contents.
#[derive(Debug)]
pub struct Place {
    pub path: String,
    pub size_bytes: u64,
    pub partition: Struct,
    pub partition_spec_id: i32,
    /// The order that all of its rows lie in; 0 is the unsorted one, which is the log's.
    pub sort_order_id: i32,
}

/// `nans` are by leaf.
pub fn data_file(
    parquet: &ParquetMetaData,
    layout: &Layout,
    nans: &[u64],
    options: &Options,
    place: Place,
) -> Result<DataFile> {
    let mut sizes = HashMap::new();
    let mut values = HashMap::new();
    let mut nulls = HashMap::new();
    let mut nan_counts = HashMap::new();
    let mut lower = HashMap::new();
    let mut upper = HashMap::new();
    let modes = options.metrics_of(&layout.leaves);
    for (index, (leaf, mode)) in layout.leaves.iter().zip(modes).enumerate() {
        let chunks = || parquet.row_groups().iter().filter_map(|group| group.columns().get(index));
        let id = leaf.field_id;
        let sum = |count: fn(&parquet::file::metadata::ColumnChunkMetaData) -> i64| -> u64 {
            chunks().map(|chunk| count(chunk).max(0) as u64).sum()
        };
        sizes.insert(id, sum(|chunk| chunk.compressed_size()));
        if mode == Metrics::None {
            continue;
        }
        values.insert(id, sum(|chunk| chunk.num_values()));
        if let Some(count) = chunks().map(|chunk| chunk.statistics()?.null_count_opt()).sum::<Option<u64>>() {
            nulls.insert(id, count);
        }
        if matches!(leaf.primitive, PrimitiveType::Float | PrimitiveType::Double) {
            nan_counts.insert(id, nans[index]);
        }
        if leaf.repeated || mode == Metrics::Counts {
            continue;
        }
        let mut range = Range::default();
        for statistics in chunks().filter_map(|chunk| chunk.statistics()) {
            range.add(statistics, &leaf.primitive);
        }
        let length = if let Metrics::Truncate(length) = mode { Some(length) } else { None };
        let (low, high) = range.bounds(&leaf.primitive, length);
        lower.extend(low.map(|low| (id, low)));
        upper.extend(high.map(|high| (id, high)));
    }
    DataFileBuilder::default()
        .content(DataContentType::Data)
        .file_format(DataFileFormat::Parquet)
        .file_path(place.path.clone())
        .file_size_in_bytes(place.size_bytes)
        .record_count(parquet.file_metadata().num_rows().max(0) as u64)
        .partition(place.partition)
        .partition_spec_id(place.partition_spec_id)
        .column_sizes(sizes)
        .value_counts(values)
        .null_value_counts(nulls)
        .nan_value_counts(nan_counts)
        .lower_bounds(lower)
        .upper_bounds(upper)
        .split_offsets(Some(split_offsets(parquet)))
        .sort_order_id(place.sort_order_id)
        .build()
        .map_err(|error| Error::halt(format!("cannot describe data file {}: {error}", place.path)))
}

/// Where each row group begins: its first page, of the dictionary where there is one.
fn split_offsets(parquet: &ParquetMetaData) -> Vec<i64> {
    parquet
        .row_groups()
        .iter()
        .filter_map(|group| {
            let first = group.columns().first()?;
            let data = first.data_page_offset();
            Some(first.dictionary_page_offset().map_or(data, |dictionary| dictionary.min(data)))
        })
        .collect()
}
