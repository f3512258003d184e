//! The target's columns: from a query's result to an Iceberg schema, and what a changed query may change in it.

use std::collections::BTreeSet;
use std::sync::Arc;

use arrow::datatypes::{DataType, Field, Fields};
use iceberg::spec::{ListType, MapType, NestedField, NestedFieldRef, PrimitiveType, Schema, StructType, Type};

use super::model::OnSchemaChange;

/// Names that readers reserve for metadata columns (Iceberg spec, "Reserved Field IDs").
const RESERVED: [&str; 10] = [
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

/// The schema that a target should have.
#[derive(Debug)]
pub struct Wanted {
    pub schema: Schema,
    /// Paths of columns that the target does not have yet.
    pub added: Vec<String>,
    /// Top-level columns of the target that the query no longer gives; they stay, and are null from now on.
    pub gone: Vec<String>,
}

/// Assigns ids above `last`; a field of the target keeps its own.
struct Ids {
    last: i32,
    added: Vec<String>,
}

/// Columns whose names begin with two underscores are computed for the run's own use and not stored.
fn stored(fields: &Fields) -> impl Iterator<Item = &Arc<Field>> {
    fields.iter().filter(|field| !field.name().starts_with("__"))
}

/// The schema of a new target.
///
/// # Errors
/// A column without a usable name or type; the message names it and says what to write instead.
pub fn create(result: &Fields) -> Result<Schema, String> {
    Ok(evolve(None, 0, result, OnSchemaChange::Additive)?.schema)
}

/// The schema of a target that takes this result: its own columns where they stand, new ones behind them.
///
/// `last` is the highest field id that the table ever assigned.
///
/// # Errors
/// As [`create`], and a column whose type is not the target's nor one that fits into it; with
/// [`OnSchemaChange::Fail`], any difference.
pub fn evolve(target: Option<&Schema>, last: i32, result: &Fields, policy: OnSchemaChange) -> Result<Wanted, String> {
    let mut ids = Ids { last, added: vec![] };
    let mut seen = BTreeSet::new();
    for field in stored(result) {
        let name = field.name();
        if name.contains(['(', ')', '[', ']', ' ']) || name.is_empty() {
            return Err(format!("the column `{name}` has no name of its own; give it one with AS"));
        }
        if RESERVED.contains(&name.as_str()) {
            return Err(format!("the column name {name} is reserved by Iceberg; give it another with AS"));
        }
        if !seen.insert(name.to_lowercase()) {
            return Err(format!(
                "two columns are called {name}, which many engines read without case; rename one with AS"
            ));
        }
    }
    if seen.is_empty() {
        return Err("the query gives no column to store; names that begin with `__` are computed only".to_owned());
    }
    let have = target.map(|schema| schema.as_struct().fields()).unwrap_or_default();
    let fields = ids.fields(have, &stored(result).cloned().collect(), "")?;
    let gone: Vec<String> = have
        .iter()
        .filter(|field| !result.iter().any(|column| *column.name() == field.name))
        .map(|field| field.name.clone())
        .collect();
    if target.is_some() && policy == OnSchemaChange::Fail && !(ids.added.is_empty() && gone.is_empty()) {
        return Err(format!(
            "the query's columns are not the table's (new: {}; gone: {}) and `on_schema_change: fail` holds; set \
             `additive` to add columns and leave those that are gone null",
            list(&ids.added),
            list(&gone)
        ));
    }
    let schema = Schema::builder().with_fields(fields).build().map_err(|error| error.message().to_owned())?;
    Ok(Wanted { schema, added: ids.added, gone })
}

fn list(names: &[String]) -> String {
    if names.is_empty() { "none".to_owned() } else { names.join(", ") }
}

impl Ids {
    fn next(&mut self) -> i32 {
        self.last += 1;
        self.last
    }

    fn fields(&mut self, have: &[NestedFieldRef], want: &Fields, path: &str) -> Result<Vec<NestedFieldRef>, String> {
        let mut fields = Vec::with_capacity(have.len().max(want.len()));
        for field in have {
            match want.iter().find(|column| *column.name() == field.name) {
                None => fields.push(field.clone()),
                Some(column) => {
                    let field_type = self.grown(&field.field_type, column.data_type(), &join(path, &field.name))?;
                    fields.push(Arc::new(NestedField { field_type: Box::new(field_type), ..field.as_ref().clone() }));
                }
            }
        }
        for column in want {
            if !have.iter().any(|field| field.name == *column.name()) {
                let path = join(path, column.name());
                self.added.push(path.clone());
                let id = self.next();
                fields.push(Arc::new(NestedField::optional(id, column.name(), self.fresh(column.data_type(), &path)?)));
            }
        }
        Ok(fields)
    }

    /// The type of a column that is there: its own, with fields added in structs.
    fn grown(&mut self, have: &Type, want: &DataType, path: &str) -> Result<Type, String> {
        match (have, plain(want)) {
            (Type::Struct(have), DataType::Struct(want)) => {
                Ok(Type::Struct(StructType::new(self.fields(have.fields(), want, path)?)))
            }
            (Type::List(have), DataType::List(want)) => {
                let element = self.grown(&have.element_field.field_type, want.data_type(), &join(path, "element"))?;
                let field = NestedField { field_type: Box::new(element), ..have.element_field.as_ref().clone() };
                Ok(Type::List(ListType::new(Arc::new(field))))
            }
            (Type::Map(have), DataType::Map(entries, _)) => {
                let (key, value) = key_value(entries, path)?;
                let key_type = self.grown(&have.key_field.field_type, key, &join(path, "key"))?;
                let value_type = self.grown(&have.value_field.field_type, value, &join(path, "value"))?;
                let key = NestedField { field_type: Box::new(key_type), ..have.key_field.as_ref().clone() };
                let value = NestedField { field_type: Box::new(value_type), ..have.value_field.as_ref().clone() };
                Ok(Type::Map(MapType::new(Arc::new(key), Arc::new(value))))
            }
            (Type::Primitive(have), want) if !want.is_nested() => {
                let wanted = primitive(want, path)?;
                if fits(&wanted, have) {
                    Ok(Type::Primitive(have.clone()))
                } else {
                    Err(format!(
                        "the column {path} is {have} in the table and {wanted} in the query; CAST it, or give the new \
                         column another name"
                    ))
                }
            }
            (have, want) => Err(format!(
                "the column {path} is {have} in the table and {want} in the query; give the new column another name"
            )),
        }
    }

    fn fresh(&mut self, want: &DataType, path: &str) -> Result<Type, String> {
        Ok(match plain(want) {
            DataType::Struct(want) => {
                if want.is_empty() {
                    return Err(format!("the column {path} is a struct without fields, which Iceberg cannot store"));
                }
                let fields = want
                    .iter()
                    .map(|column| {
                        let id = self.next();
                        let inner = self.fresh(column.data_type(), &join(path, column.name()))?;
                        Ok(Arc::new(NestedField::optional(id, column.name(), inner)))
                    })
                    .collect::<Result<Vec<_>, String>>()?;
                Type::Struct(StructType::new(fields))
            }
            DataType::List(want) => {
                let id = self.next();
                let element = self.fresh(want.data_type(), &join(path, "element"))?;
                Type::List(ListType::new(Arc::new(NestedField::list_element(id, element, false))))
            }
            DataType::Map(entries, _) => {
                let (key, value) = key_value(entries, path)?;
                let (key_id, value_id) = (self.next(), self.next());
                let key = self.fresh(key, &join(path, "key"))?;
                let value = self.fresh(value, &join(path, "value"))?;
                Type::Map(MapType::new(
                    Arc::new(NestedField::map_key_element(key_id, key)),
                    Arc::new(NestedField::map_value_element(value_id, value, false)),
                ))
            }
            want => Type::Primitive(primitive(want, path)?),
        })
    }
}

fn join(path: &str, name: &str) -> String {
    if path.is_empty() { name.to_owned() } else { format!("{path}.{name}") }
}

fn key_value<'f>(entries: &'f Field, path: &str) -> Result<(&'f DataType, &'f DataType), String> {
    match entries.data_type() {
        DataType::Struct(fields) if fields.len() == 2 => Ok((fields[0].data_type(), fields[1].data_type())),
        _ => Err(format!("the column {path} is a map without key and value")),
    }
}

/// The type without what only concerns its layout in memory.
fn plain(data_type: &DataType) -> &DataType {
    match data_type {
        DataType::Dictionary(_, values) => plain(values),
        DataType::RunEndEncoded(_, values) => plain(values.data_type()),
        other => other,
    }
}

/// Iceberg's type for a query's. Unsigned and small integers take the next type that holds them; times below a
/// microsecond are cut, since Iceberg v2 has none.
fn primitive(data_type: &DataType, path: &str) -> Result<PrimitiveType, String> {
    Ok(match plain(data_type) {
        DataType::Boolean => PrimitiveType::Boolean,
        DataType::Int8 | DataType::Int16 | DataType::Int32 | DataType::UInt8 | DataType::UInt16 => PrimitiveType::Int,
        DataType::Int64 | DataType::UInt32 => PrimitiveType::Long,
        DataType::UInt64 => PrimitiveType::Decimal { precision: 20, scale: 0 },
        DataType::Float16 | DataType::Float32 => PrimitiveType::Float,
        DataType::Float64 => PrimitiveType::Double,
        DataType::Decimal32(precision, scale)
        | DataType::Decimal64(precision, scale)
        | DataType::Decimal128(precision, scale)
            if *scale >= 0 =>
        {
            PrimitiveType::Decimal { precision: u32::from(*precision), scale: u32::from(scale.unsigned_abs()) }
        }
        DataType::Utf8 | DataType::LargeUtf8 | DataType::Utf8View => PrimitiveType::String,
        DataType::Binary | DataType::LargeBinary | DataType::BinaryView => PrimitiveType::Binary,
        DataType::FixedSizeBinary(length) => PrimitiveType::Fixed(length.unsigned_abs().into()),
        DataType::Date32 | DataType::Date64 => PrimitiveType::Date,
        DataType::Time32(_) | DataType::Time64(_) => PrimitiveType::Time,
        DataType::Timestamp(_, None) => PrimitiveType::Timestamp,
        DataType::Timestamp(_, Some(_)) => PrimitiveType::Timestamptz,
        DataType::Null => {
            return Err(format!(
                "the column {path} is always NULL and has no type; give it one: CAST(NULL AS VARCHAR)"
            ));
        }
        other => return Err(format!("the column {path} is of type {other}, which Iceberg does not have; CAST it")),
    })
}

/// Whether every value of `wanted` is one of `have`.
fn fits(wanted: &PrimitiveType, have: &PrimitiveType) -> bool {
    match (wanted, have) {
        (PrimitiveType::Int, PrimitiveType::Long) | (PrimitiveType::Float, PrimitiveType::Double) => true,
        // SQL sees a uuid as its 16 bytes.
        (PrimitiveType::Fixed(16), PrimitiveType::Uuid) => true,
        (
            PrimitiveType::Decimal { precision: wanted, scale: wanted_scale },
            PrimitiveType::Decimal { precision, scale },
        ) => wanted_scale == scale && wanted <= precision,
        (wanted, have) => wanted == have,
    }
}

#[cfg(test)]
mod tests {
    use arrow::datatypes::TimeUnit;

    use super::*;

    fn fields(of: &[(&str, DataType)]) -> Fields {
        of.iter().map(|(name, data_type)| Field::new(*name, data_type.clone(), true)).collect()
    }

    fn columns(schema: &Schema) -> Vec<String> {
        schema
            .as_struct()
            .fields()
            .iter()
            .map(|field| format!("{} {} {}", field.id, field.name, field.field_type))
            .collect()
    }

    #[test]
    fn a_result_becomes_columns_and_helper_columns_are_left_out() {
        let schema = create(&fields(&[
            ("id", DataType::UInt32),
            ("__op", DataType::Utf8),
            ("at", DataType::Timestamp(TimeUnit::Nanosecond, Some("+00:00".into()))),
            ("tags", DataType::List(Arc::new(Field::new("item", DataType::Utf8View, true)))),
            ("n", DataType::UInt64),
        ]))
        .unwrap();
        assert_eq!(columns(&schema), ["1 id long", "2 at timestamptz", "3 tags list", "5 n decimal(20, 0)"]);
    }

    #[test]
    fn what_cannot_be_stored_says_what_to_write() {
        for (result, says) in [
            (fields(&[("a + Int64(1)", DataType::Int64)]), "AS"),
            (fields(&[("_pos", DataType::Int64)]), "reserved"),
            (fields(&[("a", DataType::Int64), ("A", DataType::Int64)]), "two columns"),
            (fields(&[("x", DataType::Null)]), "CAST(NULL AS VARCHAR)"),
            (fields(&[("x", DataType::Duration(TimeUnit::Second))]), "CAST it"),
            (fields(&[("__x", DataType::Int64)]), "no column to store"),
        ] {
            let error = create(&result).unwrap_err();
            assert!(error.contains(says), "{error}");
        }
    }

    #[test]
    fn columns_are_added_at_any_depth_and_never_dropped() {
        let point = |names: &[&str]| {
            DataType::Struct(names.iter().map(|name| Field::new(*name, DataType::Int32, true)).collect())
        };
        let before = create(&fields(&[("id", DataType::Int64), ("at", point(&["x"]))])).unwrap();
        let result = fields(&[("at", point(&["x", "y"])), ("new", DataType::Utf8)]);
        let wanted = evolve(Some(&before), 3, &result, OnSchemaChange::Additive).unwrap();
        assert_eq!(columns(&wanted.schema)[0], "1 id long");
        assert_eq!((wanted.added, wanted.gone), (vec!["at.y".to_owned(), "new".to_owned()], vec!["id".to_owned()]));
        assert_eq!(wanted.schema.field_by_name("at.y").unwrap().id, 4);
        assert_eq!(wanted.schema.field_by_name("new").unwrap().id, 5);
        assert!(
            evolve(Some(&before), 3, &result, OnSchemaChange::Fail).unwrap_err().contains("new: at.y, new; gone: id")
        );
    }

    #[test]
    fn a_narrower_type_is_taken_and_a_wider_one_refused() {
        let before = create(&fields(&[("n", DataType::Int64)])).unwrap();
        let narrow = evolve(Some(&before), 1, &fields(&[("n", DataType::Int32)]), OnSchemaChange::Fail).unwrap();
        assert_eq!(columns(&narrow.schema), ["1 n long"]);
        let error =
            evolve(Some(&before), 1, &fields(&[("n", DataType::Float64)]), OnSchemaChange::Additive).unwrap_err();
        assert!(error.contains("n is long in the table and double in the query"), "{error}");
    }
}
