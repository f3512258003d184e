//! What bounds a writer, and what the table's properties ask of it.

use std::collections::HashMap;
use std::str::FromStr;

use parquet::basic::{Compression, GzipLevel, ZstdLevel};

use crate::error::{Error, Result};

/// The bounds of one [`TableWriter`](super::TableWriter).
#[derive(Clone, Copy, Debug)]
pub struct Limits {
    /// A file is closed once its compressed size reaches this; none is what the table's `write.target-file-size-bytes`
    /// says, or 128 MiB.
    pub file_size_bytes_target: Option<u64>,
    /// A row group is put once its encoded size reaches this; the table's `write.parquet.row-group-size-bytes` may
    /// make it smaller.
    pub row_group_bytes_max: u64,
    /// Bytes of all open row groups together; above, the largest is put early.
    pub buffered_bytes_max: u64,
    /// Files open at a time; one more partition closes the least recently used.
    pub open_files_max: usize,
}

impl Default for Limits {
    fn default() -> Self {
        Limits {
            file_size_bytes_target: None,
            row_group_bytes_max: 64 << 20,
            buffered_bytes_max: 128 << 20,
            open_files_max: 64,
        }
    }
}

/// Which metrics of a column go to the manifest (`write.metadata.metrics.*`).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Metrics {
    None,
    Counts,
    /// Bounds of strings and binaries cut to this many code points or bytes.
    Truncate(usize),
    Full,
}

/// A bloom filter that a property asks for.
#[derive(Clone, Debug, PartialEq)]
pub struct Bloom {
    /// The column's dotted name.
    pub column: String,
    pub false_positive_rate: f64,
}

/// The table properties that a writer honours, read once.
#[derive(Clone, Debug)]
pub struct Options {
    pub compression: Compression,
    pub file_bytes_target: u64,
    pub row_group_bytes: u64,
    pub page_bytes: usize,
    pub page_rows: usize,
    pub dictionary_bytes: usize,
    /// Columns may be encoded as differences.
    pub delta: bool,
    pub blooms: Vec<Bloom>,
    pub metrics: Metrics,
    pub metrics_by_column: HashMap<String, Metrics>,
}

/// DELTA_* encodings, which every current reader knows, but Iceberg's own vectorized one for Spark only from 1.11
/// (apache/iceberg#15362). Our name: Iceberg has none for this.
const DELTA: &str = "calve.parquet.delta-encodings";
const BLOOM: &str = "write.parquet.bloom-filter-enabled.column.";
const BLOOM_RATE: &str = "write.parquet.bloom-filter-fpp.column.";
const METRICS: &str = "write.metadata.metrics.column.";

impl Options {
    pub fn new(properties: &HashMap<String, String>) -> Result<Options> {
        let mut blooms = Vec::new();
        let mut metrics_by_column = HashMap::new();
        for (key, value) in properties {
            if let Some(column) = key.strip_prefix(BLOOM) {
                if parse::<bool>(properties, key, false)? {
                    let rate = parse(properties, &format!("{BLOOM_RATE}{column}"), 0.01)?;
                    if !(rate > 0.0 && rate < 1.0) {
                        return Err(invalid(&format!("{BLOOM_RATE}{column}"), &rate.to_string(), "between 0 and 1"));
                    }
                    blooms.push(Bloom { column: column.to_string(), false_positive_rate: rate });
                }
            } else if let Some(column) = key.strip_prefix(METRICS) {
                metrics_by_column.insert(column.to_string(), metrics(key, value)?);
            }
        }
        let default = "write.metadata.metrics.default";
        Ok(Options {
            compression: compression(properties)?,
            file_bytes_target: parse(properties, "write.target-file-size-bytes", 128 << 20)?,
            row_group_bytes: parse(properties, "write.parquet.row-group-size-bytes", 128 << 20)?,
            page_bytes: parse(properties, "write.parquet.page-size-bytes", 1 << 20)?,
            page_rows: parse(properties, "write.parquet.page-row-limit", 20_000)?,
            dictionary_bytes: parse(properties, "write.parquet.dict-size-bytes", 1 << 20)?,
            delta: parse(properties, DELTA, true)?,
            blooms,
            metrics: properties.get(default).map_or(Ok(Metrics::Truncate(16)), |value| metrics(default, value))?,
            metrics_by_column,
        })
    }

    /// The metrics of the column with this dotted name.
    pub fn metrics_of(&self, column: &str) -> Metrics {
        self.metrics_by_column.get(column).copied().unwrap_or(self.metrics)
    }
}

fn compression(properties: &HashMap<String, String>) -> Result<Compression> {
    let (key, level_key) = ("write.parquet.compression-codec", "write.parquet.compression-level");
    let codec = properties.get(key).map_or("zstd", String::as_str).to_ascii_lowercase();
    let level = |default: u32| parse::<u32>(properties, level_key, default);
    match codec.as_str() {
        "zstd" => {
            let level = level(1)?;
            let level = ZstdLevel::try_new(level.try_into().unwrap_or(i32::MAX))
                .map_err(|_| invalid(level_key, &level.to_string(), "1 to 22 for zstd"))?;
            Ok(Compression::ZSTD(level))
        }
        "gzip" => {
            let level = level(6)?;
            let level =
                GzipLevel::try_new(level).map_err(|_| invalid(level_key, &level.to_string(), "0 to 9 for gzip"))?;
            Ok(Compression::GZIP(level))
        }
        "snappy" => Ok(Compression::SNAPPY),
        "lz4" | "lz4_raw" => Ok(Compression::LZ4_RAW),
        "uncompressed" | "none" => Ok(Compression::UNCOMPRESSED),
        _ => Err(invalid(key, &codec, "zstd, gzip, snappy, lz4 or uncompressed")),
    }
}

fn metrics(key: &str, value: &str) -> Result<Metrics> {
    let value = value.trim().to_ascii_lowercase();
    let length = value.strip_prefix("truncate(").and_then(|rest| rest.strip_suffix(')'));
    match (value.as_str(), length.map(|length| length.trim().parse())) {
        ("none", _) => Ok(Metrics::None),
        ("counts", _) => Ok(Metrics::Counts),
        ("full", _) => Ok(Metrics::Full),
        (_, Some(Ok(length))) if length > 0 => Ok(Metrics::Truncate(length)),
        _ => Err(invalid(key, &value, "none, counts, truncate(N) or full")),
    }
}

fn parse<T: FromStr>(properties: &HashMap<String, String>, key: &str, default: T) -> Result<T> {
    match properties.get(key) {
        None => Ok(default),
        Some(value) => value.trim().parse().map_err(|_| {
            let expected = if std::any::type_name::<T>() == "bool" { "true or false" } else { "a positive number" };
            invalid(key, value, expected)
        }),
    }
}

fn invalid(key: &str, value: &str, expected: &str) -> Error {
    Error::halt(format!("cannot write Parquet: table property {key} is \"{value}\"; it must be {expected}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn options(properties: &[(&str, &str)]) -> Result<Options> {
        Options::new(&properties.iter().map(|(key, value)| (key.to_string(), value.to_string())).collect())
    }

    #[test]
    fn properties_are_icebergs() {
        let default = options(&[]).unwrap();
        assert_eq!(default.compression, Compression::ZSTD(ZstdLevel::try_new(1).unwrap()));
        assert_eq!(default.metrics_of("any"), Metrics::Truncate(16));
        let set = options(&[
            ("write.parquet.compression-codec", "GZIP"),
            ("write.parquet.compression-level", "9"),
            ("write.parquet.row-group-size-bytes", "1000"),
            ("write.parquet.bloom-filter-enabled.column.user.id", "true"),
            ("write.metadata.metrics.default", "truncate(4)"),
            ("write.metadata.metrics.column.body", "counts"),
        ])
        .unwrap();
        assert_eq!(set.compression, Compression::GZIP(GzipLevel::try_new(9).unwrap()));
        assert_eq!(set.row_group_bytes, 1000);
        assert_eq!(set.blooms, [Bloom { column: "user.id".into(), false_positive_rate: 0.01 }]);
        assert_eq!((set.metrics_of("x"), set.metrics_of("body")), (Metrics::Truncate(4), Metrics::Counts));
    }

    #[test]
    fn a_property_that_cannot_be_honoured_is_an_error_that_names_it() {
        for (key, value) in [
            ("write.parquet.compression-codec", "brotli"),
            ("write.parquet.compression-level", "77"),
            ("write.parquet.page-size-bytes", "1MB"),
            ("write.metadata.metrics.default", "truncate(0)"),
            ("write.parquet.bloom-filter-enabled.column.a", "yes"),
        ] {
            let error = options(&[(key, value)]).unwrap_err().to_string();
            assert!(error.contains(key) && error.contains(value), "{error}");
        }
    }
}
