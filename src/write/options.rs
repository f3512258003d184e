//! What bounds a writer, and what the table's properties ask of it.

use std::collections::{HashMap, HashSet};
use std::str::FromStr;

use iceberg::spec::SortOrder;
use parquet::basic::{Compression, GzipLevel, ZstdLevel};

use super::layout::Leaf;
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

impl Metrics {
    fn with_bounds(self) -> Metrics {
        match self {
            Metrics::None | Metrics::Counts => Metrics::Truncate(16),
            bounds => bounds,
        }
    }
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
    /// Of columns that no property names.
    pub metrics: Metrics,
    /// So many of these columns have them; all, where a property says which metrics they are.
    pub metrics_columns_max: usize,
    pub metrics_by_column: HashMap<String, Metrics>,
    /// Field ids of the columns that rows are sorted by: without bounds a file would not show what it has of them.
    pub sorted: HashSet<i32>,
}

/// DELTA_* encodings, which every current reader knows, but Iceberg's own vectorized one for Spark only from 1.11
/// (apache/iceberg#15362). Our name: Iceberg has none for this.
const DELTA: &str = "calve.parquet.delta-encodings";
const BLOOM: &str = "write.parquet.bloom-filter-enabled.column.";
const BLOOM_RATE: &str = "write.parquet.bloom-filter-fpp.column.";
const METRICS: &str = "write.metadata.metrics.column.";
const METRICS_DEFAULT: &str = "write.metadata.metrics.default";
const METRICS_COLUMNS_MAX: &str = "write.metadata.metrics.max-inferred-column-defaults";

/// Columns that keep their metrics whatever the limit: by their bounds `calve verify --deep` finds the files that hold
/// a partition's offsets. Without them it would read the whole table for each window of offsets.
const KEPT: [&str; 2] = ["_kafka.partition", "_kafka.offset"];

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
        let default = properties.get(METRICS_DEFAULT).map(|value| metrics(METRICS_DEFAULT, value)).transpose()?;
        let columns_max = parse(properties, METRICS_COLUMNS_MAX, 100)?;
        Ok(Options {
            compression: compression(properties)?,
            file_bytes_target: parse(properties, "write.target-file-size-bytes", 128 << 20)?,
            row_group_bytes: parse(properties, "write.parquet.row-group-size-bytes", 128 << 20)?,
            page_bytes: parse(properties, "write.parquet.page-size-bytes", 1 << 20)?,
            page_rows: parse(properties, "write.parquet.page-row-limit", 20_000)?,
            dictionary_bytes: parse(properties, "write.parquet.dict-size-bytes", 1 << 20)?,
            delta: parse(properties, DELTA, true)?,
            blooms,
            metrics: default.unwrap_or(Metrics::Truncate(16)),
            metrics_columns_max: default.map_or(columns_max, |_| usize::MAX),
            metrics_by_column,
            sorted: HashSet::new(),
        })
    }

    /// Gives bounds to the columns of a sort order, unless a property names them; a bucket's say nothing of its column.
    pub fn sorted_by(mut self, order: &SortOrder) -> Options {
        let fields = order.fields.iter().filter(|field| field.transform.preserves_order());
        self.sorted = fields.map(|field| field.source_id).collect();
        self
    }

    /// The metrics of a file's columns, by leaf.
    pub fn metrics_of(&self, leaves: &[Leaf]) -> Vec<Metrics> {
        let mut counted = Vec::with_capacity(leaves.len());
        count(&leaves.iter().enumerate().collect::<Vec<_>>(), 0, &mut counted);
        let mut modes = vec![Metrics::None; leaves.len()];
        for index in counted.into_iter().take(self.metrics_columns_max) {
            modes[index] = self.metrics;
        }
        for (mode, leaf) in modes.iter_mut().zip(leaves) {
            match self.metrics_by_column.get(&leaf.name) {
                Some(own) => *mode = *own,
                None if self.sorted.contains(&leaf.field_id) => *mode = self.metrics.with_bounds(),
                None if KEPT.contains(&leaf.name.as_str()) => *mode = self.metrics,
                None => {}
            }
        }
        modes
    }
}

/// Lists the leaves of one group, which lies so deep, in the order that Java's `MetricsConfig` counts them in: its own
/// before those of the groups in it.
fn count(leaves: &[(usize, &Leaf)], depth: usize, counted: &mut Vec<usize>) {
    let is_own = |(_, leaf): &(usize, &Leaf)| leaf.parquet_path.len() <= depth + 1;
    let (own, nested): (Vec<_>, Vec<_>) = leaves.iter().copied().partition(is_own);
    counted.extend(own.into_iter().map(|(index, _)| index));
    for group in nested.chunk_by(|(_, one), (_, other)| one.parquet_path[depth] == other.parquet_path[depth]) {
        count(group, depth + 1, counted);
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
    use iceberg::spec::{
        ListType, NestedField, NestedFieldRef, NullOrder, PrimitiveType, Schema, SortDirection, SortField, StructType,
        Transform, Type,
    };

    use super::*;
    use crate::write::layout::Layout;

    fn options(properties: &[(&str, &str)]) -> Result<Options> {
        Options::new(&properties.iter().map(|(key, value)| (key.to_string(), value.to_string())).collect())
    }

    #[test]
    fn properties_are_icebergs() {
        let default = options(&[]).unwrap();
        assert_eq!(default.compression, Compression::ZSTD(ZstdLevel::try_new(1).unwrap()));
        assert_eq!((default.metrics, default.metrics_columns_max), (Metrics::Truncate(16), 100));
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
        assert_eq!((set.metrics, set.metrics_by_column["body"]), (Metrics::Truncate(4), Metrics::Counts));
    }

    /// 150 columns behind a struct, a list and some of `_kafka`.
    fn wide() -> Vec<Leaf> {
        let mut ids = 1..;
        let mut field = |name: &str, of: Type| -> NestedFieldRef {
            NestedField::optional(ids.next().expect("ids never end"), name, of).into()
        };
        let long = || Type::Primitive(PrimitiveType::Long);
        let inner = StructType::new(vec![field("deep", long())]);
        let place = vec![field("a", long()), field("inner", Type::Struct(inner)), field("b", long())];
        let tags = ListType { element_field: field("element", long()) };
        let kafka = ["partition", "offset", "timestamp"].map(|name| field(name, long()));
        let mut columns = vec![
            field("place", Type::Struct(StructType::new(place))),
            field("tags", Type::List(tags)),
            field("_kafka", Type::Struct(StructType::new(kafka.into()))),
        ];
        columns.extend((0..150).map(|number| field(&format!("c{number}"), long())));
        let schema = Schema::builder().with_fields(columns).build().unwrap();
        let arrow = iceberg::arrow::schema_to_arrow_schema(&schema).unwrap();
        Layout::new(&schema, &arrow).unwrap().leaves
    }

    #[test]
    fn the_first_columns_of_a_wide_table_have_metrics_as_in_java() {
        let leaves = wide();
        let measured = |properties: &[(&str, &str)]| -> Vec<String> {
            let modes = options(properties).unwrap().metrics_of(&leaves);
            let measured = leaves.iter().zip(modes).filter(|(_, mode)| *mode != Metrics::None);
            measured.map(|(leaf, _)| leaf.name.clone()).collect()
        };
        let expected = |first: &[&str], columns: usize| -> Vec<String> {
            let first = first.iter().map(|name| name.to_string());
            first.chain((0..columns).map(|number| format!("c{number}"))).collect()
        };
        let limit = |columns| (METRICS_COLUMNS_MAX, columns);
        assert_eq!(measured(&[]), expected(&KEPT, 100));
        assert_eq!(measured(&[limit("0")]), expected(&KEPT, 0));
        let [partition, offset] = KEPT;
        // The order of the file, not the one that columns are counted in.
        for (columns, first) in [
            ("152", vec!["place.a", "place.b", partition, offset]),
            ("153", vec!["place.a", "place.inner.deep", "place.b", partition, offset]),
            ("154", vec!["place.a", "place.inner.deep", "place.b", "tags.element", partition, offset]),
        ] {
            assert_eq!(measured(&[limit(columns)]), expected(&first, 150), "{columns}");
        }
        assert_eq!(measured(&[limit("157")]).len(), leaves.len());

        let own = [("write.metadata.metrics.column.tags.element", "counts"), (METRICS_COLUMNS_MAX, "1")];
        assert_eq!(measured(&own), expected(&["tags.element", partition, offset], 1));
        let own = [("write.metadata.metrics.column._kafka.offset", "none"), (METRICS_COLUMNS_MAX, "1")];
        assert_eq!(measured(&own), expected(&[partition], 1));
        assert_eq!(measured(&[(METRICS_DEFAULT, "counts"), limit("1")]).len(), leaves.len(), "it is not inferred");
        assert_eq!(measured(&[(METRICS_DEFAULT, "none")]), [""; 0]);
    }

    #[test]
    fn columns_of_the_sort_order_have_bounds_unless_a_property_names_them() {
        let leaves = wide();
        let at = |name: &str| leaves.iter().position(|leaf| leaf.name == name).unwrap();
        let field = |name: &str, transform| SortField {
            source_id: leaves[at(name)].field_id,
            transform,
            direction: SortDirection::Ascending,
            null_order: NullOrder::First,
        };
        let fields = vec![
            field("c149", Transform::Identity),
            field("c148", Transform::Bucket(4)),
            field("c147", Transform::Truncate(2)),
        ];
        let order = SortOrder { order_id: 1, fields };
        let own = ("write.metadata.metrics.column.c147", "counts");
        for (properties, expected) in [
            (vec![], [Metrics::Truncate(16), Metrics::None, Metrics::Truncate(16)]),
            (vec![own], [Metrics::Truncate(16), Metrics::None, Metrics::Counts]),
            (vec![(METRICS_DEFAULT, "counts")], [Metrics::Truncate(16), Metrics::Counts, Metrics::Truncate(16)]),
            (vec![(METRICS_DEFAULT, "full")], [Metrics::Full; 3]),
        ] {
            let modes = options(&properties).unwrap().sorted_by(&order).metrics_of(&leaves);
            assert_eq!(["c149", "c148", "c147"].map(|name| modes[at(name)]), expected, "{properties:?}");
        }
    }

    #[test]
    fn a_property_that_cannot_be_honoured_is_an_error_that_names_it() {
        for (key, value) in [
            ("write.parquet.compression-codec", "brotli"),
            ("write.parquet.compression-level", "77"),
            ("write.parquet.page-size-bytes", "1MB"),
            ("write.metadata.metrics.default", "truncate(0)"),
            ("write.metadata.metrics.max-inferred-column-defaults", "-1"),
            ("write.parquet.bloom-filter-enabled.column.a", "yes"),
        ] {
            let error = options(&[(key, value)]).unwrap_err().to_string();
            assert!(error.contains(key) && error.contains(value), "{error}");
        }
    }
}
