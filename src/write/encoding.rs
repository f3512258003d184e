//! How each column is encoded in Parquet.
//!
//! The choice is by type alone. Whole numbers and times are stored as packed differences: they are counters, offsets
//! and clocks more often than they repeat, and a constant costs nothing. Strings begin with a dictionary and fall back
//! to length-prefixed blocks when it grows too large; binaries (keys, raw records) never repeat enough to pay for one.

use iceberg::spec::PrimitiveType;
use parquet::basic::Encoding;
use parquet::file::properties::{EnabledStatistics, WriterProperties, WriterPropertiesBuilder};
use parquet::schema::types::ColumnPath;

use super::layout::Layout;
use super::options::{Limits, Options};

/// Bytes of a value that Parquet's statistics keep. At four bytes a code point at most, twice the sixteen code points
/// of Iceberg's bounds always fit, so that shortening here never touches them.
const STATISTICS_BYTES: usize = 128;

/// The writer's properties for files of this layout.
pub fn properties(layout: &Layout, options: &Options, limits: &Limits) -> WriterProperties {
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
    for leaf in &layout.leaves {
        let column = ColumnPath::new(leaf.parquet_path.clone());
        builder = encode(builder, &column, &leaf.primitive);
        if let Some(bloom) = options.blooms.iter().find(|bloom| bloom.column == leaf.name) {
            builder = builder
                .set_column_bloom_filter_enabled(column.clone(), true)
                .set_column_bloom_filter_fpp(column, bloom.false_positive_rate);
        }
    }
    builder.build()
}

fn encode(builder: WriterPropertiesBuilder, column: &ColumnPath, primitive: &PrimitiveType) -> WriterPropertiesBuilder {
    match primitive {
        PrimitiveType::Int
        | PrimitiveType::Long
        | PrimitiveType::Date
        | PrimitiveType::Time
        | PrimitiveType::Timestamp
        | PrimitiveType::Timestamptz
        | PrimitiveType::TimestampNs
        | PrimitiveType::TimestamptzNs => builder
            .set_column_dictionary_enabled(column.clone(), false)
            .set_column_encoding(column.clone(), Encoding::DELTA_BINARY_PACKED),
        PrimitiveType::String => builder.set_column_encoding(column.clone(), Encoding::DELTA_LENGTH_BYTE_ARRAY),
        PrimitiveType::Binary => builder
            .set_column_dictionary_enabled(column.clone(), false)
            .set_column_encoding(column.clone(), Encoding::DELTA_LENGTH_BYTE_ARRAY),
        PrimitiveType::Boolean => builder.set_column_dictionary_enabled(column.clone(), false),
        PrimitiveType::Float
        | PrimitiveType::Double
        | PrimitiveType::Decimal { .. }
        | PrimitiveType::Uuid
        | PrimitiveType::Fixed(_) => builder,
    }
}
