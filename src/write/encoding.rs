//! How each column is encoded in Parquet.
//!
//! What pays depends on the values, so the first batch is looked at ([`super::sample`]). A dictionary is the smallest
//! form of words that repeat and the slowest one of values that do not: each is looked up, and all are stored in the end.
//! Clocks, offsets and counters are packed as differences to the value before, strings as their lengths and then all of
//! their bytes, which leaves zstd less to do than lengths in between. Numbers that look random stay as they are.

use iceberg::spec::PrimitiveType;
use parquet::basic::Encoding;
use parquet::file::properties::{EnabledStatistics, WriterProperties};
use parquet::schema::types::ColumnPath;

use super::layout::Layout;
use super::options::{Limits, Options};
use super::sample::{GROUP_VALUES, Sample};

/// Bytes of a value that Parquet's statistics keep. At four bytes a code point at most, twice the sixteen code points
/// of Iceberg's bounds always fit, so that shortening here never touches them.
const STATISTICS_BYTES: usize = 128;

/// Of what another form takes, a dictionary must not need more: it costs more time.
const DICTIONARY_SHARE: f64 = 0.75;

/// Of a value's bits, differences must not need more, for the same reason.
const DELTA_SHARE: f64 = 0.9;

/// What zstd leaves of text, about.
const TEXT_LEFT: f64 = 0.6;

/// The writer's properties for files of this layout that begin with values like these.
pub fn properties(layout: &Layout, options: &Options, limits: &Limits, samples: &[Sample]) -> WriterProperties {
    let row_group = options.row_group_bytes.min(limits.row_group_bytes_max).max(1);
    let mut builder = WriterProperties::builder()
        .set_compression(options.compression)
        .set_max_row_group_bytes(Some(usize::try_from(row_group).unwrap_or(usize::MAX)))
        .set_data_page_size_limit(options.page_bytes.max(1))
        .set_data_page_row_count_limit(options.page_rows.max(1))
        .set_dictionary_page_size_limit(options.dictionary_bytes)
        .set_statistics_enabled(EnabledStatistics::Page)
        .set_statistics_truncate_length(Some(STATISTICS_BYTES))
        .set_coerce_types(true);
    for (index, leaf) in layout.leaves.iter().enumerate() {
        let column = ColumnPath::new(leaf.parquet_path.clone());
        let sample = samples.get(index).copied().unwrap_or_default();
        let form = Form::of(&leaf.primitive, &sample, options);
        builder = builder.set_column_dictionary_enabled(column.clone(), form.dictionary);
        builder = builder.set_column_encoding(column.clone(), form.encoding);
        if let Some(bloom) = options.blooms.iter().find(|bloom| bloom.column == leaf.name) {
            builder = builder
                .set_column_bloom_filter_enabled(column.clone(), true)
                .set_column_bloom_filter_fpp(column, bloom.false_positive_rate);
        }
    }
    builder.build()
}

/// How a column is stored.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Form {
    dictionary: bool,
    /// Without a dictionary, or once it is full.
    encoding: Encoding,
}

impl Form {
    fn of(primitive: &PrimitiveType, sample: &Sample, options: &Options) -> Form {
        // All sizes are bits per value.
        let dictionary_bytes = sample.distinct * sample.bytes;
        let indexed = sample.index_bits + 8.0 * dictionary_bytes / GROUP_VALUES;
        let fits = sample.values > 0 && dictionary_bytes <= options.dictionary_bytes as f64;
        let pays = |other: f64| fits && indexed < DICTIONARY_SHARE * other;
        let plain = 8.0 * sample.bytes;
        match primitive {
            PrimitiveType::Int
            | PrimitiveType::Long
            | PrimitiveType::Date
            | PrimitiveType::Time
            | PrimitiveType::Timestamp
            | PrimitiveType::Timestamptz
            | PrimitiveType::TimestampNs
            | PrimitiveType::TimestamptzNs => {
                let packed = options.delta && (sample.values == 0 || sample.delta_bits < DELTA_SHARE * plain);
                let encoding = if packed { Encoding::DELTA_BINARY_PACKED } else { Encoding::PLAIN };
                Form { dictionary: pays(if packed { sample.delta_bits } else { plain }), encoding }
            }
            PrimitiveType::String | PrimitiveType::Binary => {
                let encoding = if options.delta { Encoding::DELTA_LENGTH_BYTE_ARRAY } else { Encoding::PLAIN };
                Form { dictionary: pays(TEXT_LEFT * plain), encoding }
            }
            PrimitiveType::Boolean => Form { dictionary: false, encoding: Encoding::PLAIN },
            PrimitiveType::Float
            | PrimitiveType::Double
            | PrimitiveType::Decimal { .. }
            | PrimitiveType::Uuid
            | PrimitiveType::Fixed(_) => Form { dictionary: pays(plain), encoding: Encoding::PLAIN },
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn form(primitive: PrimitiveType, sample: Sample, properties: &[(&str, &str)]) -> (bool, Encoding) {
        let properties = properties.iter().map(|(key, value)| (key.to_string(), value.to_string())).collect();
        let Form { dictionary, encoding } = Form::of(&primitive, &sample, &Options::new(&properties).unwrap());
        (dictionary, encoding)
    }

    fn sample(bytes: f64, distinct: f64, delta_bits: f64) -> Sample {
        Sample { values: 2048, bytes, distinct, index_bits: distinct.log2().ceil(), delta_bits }
    }

    #[test]
    fn each_column_is_stored_as_its_values_ask() {
        use Encoding::{DELTA_BINARY_PACKED, DELTA_LENGTH_BYTE_ARRAY, PLAIN};
        let check = |primitive, sample, expected| assert_eq!(form(primitive, sample, &[]), expected, "{sample:?}");
        let [word, id, name] = [sample(8.0, 16.0, 0.0), sample(36.0, 1e5, 0.0), sample(12.0, 5000.0, 0.0)];
        check(PrimitiveType::String, word, (true, DELTA_LENGTH_BYTE_ARRAY));
        check(PrimitiveType::String, id, (false, DELTA_LENGTH_BYTE_ARRAY));
        check(PrimitiveType::String, name, (true, DELTA_LENGTH_BYTE_ARRAY));
        check(PrimitiveType::Binary, id, (false, DELTA_LENGTH_BYTE_ARRAY));
        let [clock, status, random] = [sample(8.0, 1e5, 3.0), sample(4.0, 5.0, 9.0), sample(8.0, 1e5, 64.0)];
        check(PrimitiveType::Timestamptz, clock, (false, DELTA_BINARY_PACKED));
        check(PrimitiveType::Int, status, (true, DELTA_BINARY_PACKED));
        check(PrimitiveType::Long, random, (false, PLAIN));
        check(PrimitiveType::Double, random, (false, PLAIN));
        check(PrimitiveType::Double, sample(8.0, 500.0, 0.0), (true, PLAIN));
        check(PrimitiveType::Decimal { precision: 20, scale: 0 }, sample(16.0, 1e5, 0.0), (false, PLAIN));
        check(PrimitiveType::Boolean, sample(0.0, 2.0, 0.0), (false, PLAIN));
        check(PrimitiveType::Long, Sample::default(), (false, DELTA_BINARY_PACKED));
        check(PrimitiveType::String, Sample::default(), (false, DELTA_LENGTH_BYTE_ARRAY));
    }

    #[test]
    fn properties_win() {
        let plain = [("calve.parquet.delta-encodings", "false")];
        assert_eq!(form(PrimitiveType::Long, sample(8.0, 1e5, 3.0), &plain), (false, Encoding::PLAIN));
        assert_eq!(form(PrimitiveType::String, sample(36.0, 1e5, 0.0), &plain), (false, Encoding::PLAIN));
        let small = [("write.parquet.dict-size-bytes", "100")];
        assert!(!form(PrimitiveType::String, sample(8.0, 16.0, 0.0), &small).0, "a dictionary that would not hold");
    }
}
