//! A table as its catalog made it: the columns that were asked for, possibly under other field ids.

use std::collections::HashMap;
use std::sync::Arc;

use anyhow::{Context, Result, bail};
use iceberg::spec::{NestedField, Schema, Type};

use super::column_map::{ColumnMap, Entry};
use super::mapping::Mapping;

impl Mapping {
    /// This mapping under the field ids that a catalog gave the table that it created from it. An error if the table's
    /// columns are not the mapping's.
    pub fn adopt(&self, table: &Schema) -> Result<Mapping> {
        let mut ids = HashMap::new();
        pair_all(self.iceberg.as_struct().fields(), table.as_struct().fields(), &mut ids)
            .context("the catalog created other columns than it was asked for")?;
        let mut column_map = ColumnMap::default();
        for (path, entry) in self.column_map.iter() {
            let id =
                ids.get(&entry.id).with_context(|| format!("the column of field path {path} is not in the table"))?;
            column_map.insert(path.clone(), Entry { id: *id, ..entry.clone() });
        }
        let fields = table.as_struct().fields().to_vec();
        let mapping = Mapping::assemble(self.pool.clone(), self.message, self.columns.clone(), fields, column_map);
        let mut mapping = mapping.map_err(|faults| match faults.into_iter().next() {
            Some(fault) => anyhow::Error::new(fault),
            None => anyhow::anyhow!("the table's columns are no schema"),
        })?;
        mapping.iceberg = Arc::new(table.clone());
        Ok(mapping)
    }
}

fn pair_all(ours: &[Arc<NestedField>], theirs: &[Arc<NestedField>], ids: &mut HashMap<i32, i32>) -> Result<()> {
    if ours.len() != theirs.len() {
        bail!("{} columns where {} were asked for", theirs.len(), ours.len());
    }
    ours.iter().zip(theirs).try_for_each(|(ours, theirs)| pair(ours, theirs, ids))
}

fn pair(ours: &NestedField, theirs: &NestedField, ids: &mut HashMap<i32, i32>) -> Result<()> {
    // Some catalogs lower-case names; the files that calve writes are read by id.
    if !ours.name.eq_ignore_ascii_case(&theirs.name) {
        bail!("a column {} where {} was asked for", theirs.name, ours.name);
    }
    ids.insert(ours.id, theirs.id);
    match (ours.field_type.as_ref(), theirs.field_type.as_ref()) {
        (Type::Primitive(a), Type::Primitive(b)) if a == b => Ok(()),
        (Type::Struct(a), Type::Struct(b)) => pair_all(a.fields(), b.fields(), ids),
        (Type::List(a), Type::List(b)) => pair(&a.element_field, &b.element_field, ids),
        (Type::Map(a), Type::Map(b)) => {
            pair(&a.key_field, &b.key_field, ids)?;
            pair(&a.value_field, &b.value_field, ids)
        }
        (a, b) => bail!("column {} is {b} where {a} was asked for", ours.name),
    }
}
