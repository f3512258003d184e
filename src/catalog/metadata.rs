//! Table metadata files: a new table's first one, and the next one after a change. For catalogs that only point to
//! them (SQL, Glue); a REST server writes its own.

use std::collections::HashMap;
use std::io::Write;
use std::sync::Arc;

use flate2::Compression;
use flate2::write::GzEncoder;

use iceberg::io::FileIO;
use iceberg::spec::{FormatVersion, MetadataLog, TableMetadata, TableMetadataBuilder};
use iceberg::table::Table;
use iceberg::{Runtime, TableIdent, TableRequirement, TableUpdate};

use uuid::Uuid;

use super::{Creation, Error, Result};

/// A table's property that deletes metadata files which fell off the metadata log.
const DELETE_AFTER_COMMIT: &str = "write.metadata.delete-after-commit.enabled";

const METADATA_PATH: &str = "write.metadata.path";
const COMPRESSION: &str = "write.metadata.compression-codec";

/// Metadata that is ready to be written, and where.
pub(super) struct Next {
    pub(super) metadata: TableMetadata,
    pub(super) location: String,
    /// Files that the new metadata no longer logs.
    expired: Vec<MetadataLog>,
}

/// The first metadata of a table, field ids exactly as `creation.schema` has them.
pub(super) fn create(location: &str, creation: Creation) -> Result<Next> {
    let Creation { schema, partition_spec, sort_order, mut properties } = creation;
    let version = match properties.remove("format-version").as_deref() {
        None | Some("2") => FormatVersion::V2,
        Some("3") => FormatVersion::V3,
        Some(other) => {
            return Err(Error::Refused(format!("format-version {other:?} is not supported; use \"2\" or \"3\"")));
        }
    };
    // The builder numbers a schema's fields afresh, so the parts that hold ids are put in afterwards.
    let schema = Arc::new(schema.into_builder().with_schema_id(0).build()?);
    let spec = partition_spec.with_spec_id(0).bind(schema.clone())?;
    let fresh = TableMetadataBuilder::new(
        schema.as_ref().clone(),
        spec.clone().into_unbound(),
        sort_order.clone(),
        location.to_owned(),
        version,
        properties,
    )?
    .build()?
    .metadata;
    let sort_order_id = fresh.default_sort_order_id();
    let mut json = to_json(&fresh)?;
    json["schemas"] = serde_json::json!([to_json(schema.as_ref())?]);
    json["last-column-id"] = schema.highest_field_id().into();
    json["partition-specs"] = serde_json::json!([to_json(&spec)?]);
    json["last-partition-id"] = spec.highest_field_id().unwrap_or(999).into();
    let mut order = to_json(&sort_order)?;
    order["order-id"] = sort_order_id.into();
    json["sort-orders"] = serde_json::json!([order]);
    let metadata: TableMetadata =
        serde_json::from_value(json).map_err(|error| Error::Refused(format!("new table metadata: {error}")))?;
    let location = file(&metadata, 0)?;
    Ok(Next { metadata, location, expired: Vec::new() })
}

fn to_json(value: &impl serde::Serialize) -> Result<serde_json::Value> {
    serde_json::to_value(value).map_err(|error| Error::Refused(format!("table metadata as JSON: {error}")))
}

/// The metadata after `updates`, if `requirements` hold for `base`.
pub(super) fn update(base: &Table, requirements: &[TableRequirement], updates: Vec<TableUpdate>) -> Result<Next> {
    for requirement in requirements {
        requirement.check(Some(base.metadata()))?;
    }
    let current = base.metadata_location_result()?;
    let mut builder = base.metadata().clone().into_builder(Some(current.to_owned()));
    for update in updates {
        builder = update.apply(builder)?;
    }
    let built = builder.build()?;
    let location = file(&built.metadata, version(current).map_or(0, |version| version + 1))?;
    Ok(Next { metadata: built.metadata, location, expired: built.expired_metadata_logs })
}

impl Next {
    pub(super) async fn write(&self, file_io: &FileIO) -> Result<()> {
        let mut bytes = serde_json::to_vec(&self.metadata)
            .map_err(|error| Error::Refused(format!("table metadata as JSON: {error}")))?;
        if is_gzip(&self.metadata)? {
            let mut encoder = GzEncoder::new(Vec::new(), Compression::default());
            let written = encoder.write_all(&bytes).and_then(|()| encoder.finish());
            bytes = written.map_err(|error| Error::Refused(format!("table metadata as gzip: {error}")))?;
        }
        Ok(file_io.new_output(&self.location)?.write(bytes.into()).await?)
    }

    /// Takes back a file that no catalog points to. Best effort: what stays is an orphan, which costs only space.
    pub(super) async fn discard(&self, file_io: &FileIO) {
        let location = &self.location;
        if let Err(error) = file_io.delete(location).await {
            tracing::debug!(location, %error, "an unused metadata file stays behind");
        }
    }

    /// After the swap: deletes, in the background, what fell off the log, where the table asks for it.
    pub(super) fn committed(self, ident: &TableIdent, file_io: &FileIO) -> Result<Table> {
        let enabled = self.metadata.properties().get(DELETE_AFTER_COMMIT).is_some_and(|value| value == "true");
        if enabled && !self.expired.is_empty() {
            let (file_io, expired) = (file_io.clone(), self.expired);
            tokio::spawn(async move {
                for log in expired {
                    if let Err(error) = file_io.delete(&log.metadata_file).await {
                        tracing::debug!(location = %log.metadata_file, %error, "an old metadata file stays behind");
                    }
                }
            });
        }
        table(ident, self.metadata, Some(self.location), file_io.clone())
    }
}

/// A metadata file's name: in `write.metadata.path`, else in `metadata` under the table's location.
fn file(metadata: &TableMetadata, version: u32) -> Result<String> {
    let folder = match metadata.properties().get(METADATA_PATH) {
        Some(path) => path.trim_end_matches('/').to_owned(),
        None => format!("{}/metadata", metadata.location().trim_end_matches('/')),
    };
    let suffix = if is_gzip(metadata)? { ".gz" } else { "" };
    Ok(format!("{folder}/{version:05}-{}{suffix}.metadata.json", Uuid::new_v4()))
}

/// The version that a metadata file's name begins with. Others may name their files in their own way (v3.metadata.json),
/// which says nothing to us.
fn version(location: &str) -> Option<u32> {
    location.rsplit('/').next()?.split_once('-')?.0.parse().ok()
}

fn is_gzip(metadata: &TableMetadata) -> Result<bool> {
    match metadata.properties().get(COMPRESSION).map(String::as_str) {
        None | Some("") => Ok(false),
        Some(codec) if codec.eq_ignore_ascii_case("none") => Ok(false),
        Some(codec) if codec.eq_ignore_ascii_case("gzip") => Ok(true),
        Some(other) => Err(Error::Refused(format!("{COMPRESSION} is {other:?}; use none or gzip"))),
    }
}

/// A loaded table in iceberg's terms.
pub(super) fn table(
    ident: &TableIdent,
    metadata: TableMetadata,
    location: Option<String>,
    file_io: FileIO,
) -> Result<Table> {
    let mut builder =
        Table::builder().identifier(ident.clone()).metadata(metadata).file_io(file_io).runtime(Runtime::try_current()?);
    if let Some(location) = location {
        builder = builder.metadata_location(location);
    }
    Ok(builder.build()?)
}

/// Where a new table goes: `<warehouse>/<namespace>/<table>`. A bare path becomes a `file://` URI, which every reader
/// understands (Trino wants a scheme).
pub(super) fn default_location(warehouse: &str, ident: &TableIdent) -> String {
    let mut location = warehouse.trim_end_matches('/').to_owned();
    if warehouse.starts_with('/') {
        location.insert_str(0, "file://");
    }
    for level in ident.namespace().iter().chain([&ident.name]) {
        location.push('/');
        location.push_str(level);
    }
    location
}

/// Properties without those that are not the store's.
pub(super) fn overrides(config: &HashMap<String, String>) -> HashMap<String, String> {
    config
        .iter()
        .filter(|(key, _)| ["s3.", "client.", "gcs.", "adls."].iter().any(|prefix| key.starts_with(prefix)))
        .map(|(key, value)| (key.clone(), value.clone()))
        .collect()
}

#[cfg(test)]
mod tests {
    use iceberg::spec::{
        NestedField, PrimitiveType, Schema, SortOrder, StructType, Transform, Type, UnboundPartitionSpec,
    };

    use super::*;

    fn creation() -> Creation {
        // Ids as no fresh numbering would give them, a nested partition source among them.
        let kafka = StructType::new(vec![
            NestedField::optional(40, "partition", Type::Primitive(PrimitiveType::Int)).into(),
            NestedField::optional(17, "timestamp", Type::Primitive(PrimitiveType::Timestamptz)).into(),
        ]);
        let schema = Schema::builder()
            .with_schema_id(7)
            .with_fields([
                NestedField::optional(9, "id", Type::Primitive(PrimitiveType::Long)).into(),
                NestedField::optional(3, "_kafka", Type::Struct(kafka)).into(),
            ])
            .build()
            .unwrap();
        let partition_spec =
            UnboundPartitionSpec::builder().add_partition_field(17, "day_ts", Transform::Day).unwrap().build();
        Creation {
            schema,
            partition_spec,
            sort_order: SortOrder::unsorted_order(),
            properties: HashMap::from([("owner".to_owned(), "calve".to_owned())]),
        }
    }

    #[test]
    fn given_field_ids_survive_creation() {
        let next = create("file:///wh/a/b", creation()).unwrap();
        let metadata = next.metadata;
        let schema = metadata.current_schema();
        assert_eq!(schema.schema_id(), 0);
        for (name, id) in [("id", 9), ("_kafka", 3), ("_kafka.partition", 40), ("_kafka.timestamp", 17)] {
            assert_eq!(schema.field_id_by_name(name), Some(id), "{name}");
        }
        assert_eq!(metadata.last_column_id(), 40);
        assert_eq!(metadata.default_partition_spec().fields()[0].source_id, 17);
        assert_eq!(metadata.default_partition_spec().fields()[0].field_id, 1000);
        assert_eq!(metadata.last_partition_id(), 1000);
        assert_eq!(metadata.properties()["owner"], "calve");
        assert_eq!(metadata.format_version(), FormatVersion::V2);
        let name = next.location;
        assert!(name.starts_with("file:///wh/a/b/metadata/00000-") && name.ends_with(".metadata.json"), "{name}");
    }

    #[test]
    fn format_version_is_asked_for_by_property_and_not_kept() {
        let mut wanted = creation();
        wanted.properties.insert("format-version".to_owned(), "3".to_owned());
        let metadata = create("/wh/t", wanted).unwrap().metadata;
        assert_eq!(metadata.format_version(), FormatVersion::V3);
        assert!(!metadata.properties().contains_key("format-version"));
        let mut wrong = creation();
        wrong.properties.insert("format-version".to_owned(), "9".to_owned());
        assert!(matches!(create("/wh/t", wrong), Err(Error::Refused(_))));
    }

    #[tokio::test]
    async fn metadata_files_go_where_the_table_says() {
        let mut wanted = creation();
        wanted.properties.insert(METADATA_PATH.to_owned(), "memory:/elsewhere/".to_owned());
        wanted.properties.insert(COMPRESSION.to_owned(), "GZIP".to_owned());
        let next = create("memory:/t", wanted).unwrap();
        let (metadata, location) = (next.metadata.clone(), next.location.clone());
        assert!(
            location.starts_with("memory:/elsewhere/00000-") && location.ends_with(".gz.metadata.json"),
            "{location}"
        );
        let files = FileIO::new_with_memory();
        next.write(&files).await.unwrap();
        assert_eq!(TableMetadata::read_from(&files, &location).await.unwrap(), metadata);
        let base = next.committed(&TableIdent::from_strs(["a", "b"]).unwrap(), &files).unwrap();
        let after = update(&base, &[], vec![TableUpdate::RemoveProperties { removals: vec![COMPRESSION.to_owned()] }]);
        let location = after.unwrap().location;
        assert!(location.starts_with("memory:/elsewhere/00001-") && !location.contains(".gz"), "{location}");
        assert_eq!(version("s3://lake/t/metadata/v3.metadata.json"), None);
        let mut wrong = creation();
        wrong.properties.insert(COMPRESSION.to_owned(), "zip".to_owned());
        assert!(matches!(create("memory:/t", wrong), Err(Error::Refused(_))));
    }

    #[test]
    fn locations_get_a_scheme() {
        let ident = TableIdent::from_strs(["a", "b", "t"]).unwrap();
        assert_eq!(default_location("/wh/", &ident), "file:///wh/a/b/t");
        assert_eq!(default_location("s3://lake/wh", &ident), "s3://lake/wh/a/b/t");
    }
}
