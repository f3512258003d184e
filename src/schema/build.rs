//! Columns with field ids: the Iceberg schema of a new table.

use std::sync::Arc;

use iceberg::spec::{ListType, MapType, NestedField, NestedFieldRef, StructType, Type};

use super::column_map::{ColumnMap, Entry, NumberPath};
use super::mapping::{Column, Leaf, Shape};
use super::metadata::{self, Ids};
use super::model::Pool;

/// Builds fresh columns. Ids go to all fields of a level before any level below it, the order in which catalogs assign
/// the ids of a table that they create, so that theirs come out as ours.
pub struct Build<'a> {
    pub pool: &'a Pool,
    pub ids: Ids,
    pub map: ColumnMap,
}

impl Build<'_> {
    /// The columns of a new table: the message's, then `_kafka`, then `_raw`.
    pub fn table(&mut self, columns: &[Column]) -> Vec<NestedFieldRef> {
        let own: Vec<i32> = columns.iter().map(|_| self.ids.assign()).collect();
        let (kafka, raw) = (self.ids.assign(), self.ids.assign());
        let root = NumberPath::default();
        let mut fields: Vec<NestedFieldRef> =
            own.into_iter().zip(columns).map(|(id, column)| self.field(id, column, &root)).collect();
        fields.push(Arc::new(metadata::kafka(kafka, &mut self.ids)));
        fields.push(Arc::new(metadata::raw(raw)));
        fields
    }

    /// The column under the id, and everything below it with ids of its own.
    pub fn field(&mut self, id: i32, column: &Column, parent: &NumberPath) -> NestedFieldRef {
        let path = parent.child(column.number);
        self.map.insert(path.clone(), Entry::new(id, column.wire_kind(self.pool)));
        let mut field = NestedField::optional(id, &column.name, self.shape(&column.shape, &path));
        field.doc = column.doc.clone();
        Arc::new(field)
    }

    fn shape(&mut self, shape: &Shape, path: &NumberPath) -> Type {
        match shape {
            Shape::Leaf(leaf) => leaf_type(*leaf),
            Shape::Struct(inner) => {
                let ids: Vec<i32> = inner.columns.iter().map(|_| self.ids.assign()).collect();
                let fields = ids.into_iter().zip(&inner.columns).map(|(id, column)| self.field(id, column, path));
                Type::Struct(StructType::new(fields.collect()))
            }
            Shape::List(element) => {
                let id = self.ids.assign();
                let element = self.shape(element, path);
                Type::List(ListType::new(Arc::new(NestedField::list_element(id, element, false))))
            }
            Shape::Map { key, value } => {
                let key_id = self.ids.assign();
                let kind = Shape::Leaf(*key).wire_kind(self.pool);
                self.map.insert(path.child(1), Entry::new(key_id, kind));
                let value_id = self.ids.assign();
                let value_path = path.child(2);
                self.map.insert(value_path.clone(), Entry::new(value_id, value.wire_kind(self.pool)));
                let value = self.shape(value, &value_path);
                Type::Map(MapType::new(
                    Arc::new(NestedField::map_key_element(key_id, leaf_type(*key))),
                    Arc::new(NestedField::map_value_element(value_id, value, false)),
                ))
            }
        }
    }
}

/// The column type of a leaf of the message's. A retired column has only the table's, and is never built.
fn leaf_type(leaf: Leaf) -> Type {
    Type::Primitive(leaf.iceberg_type().expect("a column that is built anew is filled by a field"))
}
