//! The columns that are not the message's: `_kafka` and `_raw`, and the names that they and Iceberg keep for themselves.

use std::sync::Arc;

use iceberg::spec::{ListType, NestedField, PrimitiveType, StructType, Type};

pub const KAFKA: &str = "_kafka";
pub const RAW: &str = "_raw";
pub const PRESENT: &str = "_present";

/// Names that no top-level field may have, ignoring case. Those beside ours are Iceberg's metadata columns.
pub const RESERVED: [&str; 14] = [
    KAFKA,
    RAW,
    "_key",
    PRESENT,
    "_file",
    "_pos",
    "_deleted",
    "_spec_id",
    "_partition",
    "_row_id",
    "_last_updated_sequence_number",
    "_change_type",
    "_change_ordinal",
    "_commit_snapshot_id",
];

pub fn is_reserved(name: &str) -> bool {
    RESERVED.iter().any(|reserved| reserved.eq_ignore_ascii_case(name))
}

/// Hands out field ids, each once.
#[derive(Debug)]
pub struct Ids {
    last: i32,
}

impl Ids {
    /// The first id handed out is `last + 1`.
    pub fn after(last: i32) -> Self {
        Ids { last }
    }

    /// Field ids are below 2^31 − 201; a mapping is bounded far below that by its leaf columns.
    pub fn assign(&mut self) -> i32 {
        self.last = self.last.saturating_add(1);
        self.last
    }

    pub fn last(&self) -> i32 {
        self.last
    }
}

/// The struct `_kafka`: where a record lay in the log. Never null; its fields are optional all the same.
pub fn kafka(id: i32, ids: &mut Ids) -> NestedField {
    let fields: Vec<(&str, Option<PrimitiveType>, &str)> = vec![
        ("topic", Some(PrimitiveType::String), "topic"),
        ("partition", Some(PrimitiveType::Int), "partition of the topic"),
        ("offset", Some(PrimitiveType::Long), "offset in the partition"),
        ("timestamp", Some(PrimitiveType::Timestamptz), "the record's timestamp; null if it has none"),
        ("timestamp_type", Some(PrimitiveType::String), "create_time or log_append_time"),
        ("key", Some(PrimitiveType::Binary), "the record's key as it was sent"),
        ("headers", None, "the record's headers in their order; empty if there are none"),
        ("schema_id", Some(PrimitiveType::Int), "the schema registry's id; null without a registry"),
    ];
    let first = fields.iter().map(|_| ids.assign()).collect::<Vec<_>>();
    let fields = first.into_iter().zip(fields).map(|(id, (name, primitive, doc))| {
        let kind = primitive.map_or_else(|| headers(ids), Type::Primitive);
        Arc::new(NestedField::optional(id, name, kind).with_doc(doc))
    });
    NestedField::optional(id, KAFKA, Type::Struct(StructType::new(fields.collect())))
        .with_doc("where the record lay in the Kafka log")
}

fn headers(ids: &mut Ids) -> Type {
    let element = ids.assign();
    let key = NestedField::optional(ids.assign(), "key", Type::Primitive(PrimitiveType::String));
    let value = NestedField::optional(ids.assign(), "value", Type::Primitive(PrimitiveType::Binary));
    let header = Type::Struct(StructType::new(vec![Arc::new(key), Arc::new(value)]));
    Type::List(ListType::new(Arc::new(NestedField::list_element(element, header, false))))
}

/// The column `_raw`: the record's bytes where its columns do not say everything.
pub fn raw(id: i32) -> NestedField {
    NestedField::optional(id, RAW, Type::Primitive(PrimitiveType::Binary))
        .with_doc("the record's original bytes, where the other columns do not hold all of it; null otherwise")
}
