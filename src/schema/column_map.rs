//! Which Iceberg field a Protobuf field fills: the table property that makes a rename a rename.

use std::collections::BTreeMap;
use std::fmt;
use std::str::FromStr;

use anyhow::{Context, Result, bail};
use serde::{Deserialize, Serialize};

use super::mapping::CASE;

/// A path of field numbers from the topic's message down. Lists do not count; a map's key is field 1 of its entry and
/// the value field 2, as on the wire; 0 is a column that no field fills (`_present`, a well-known topic's `value`); a
/// oneof's case column has the number of a member of it plus 2^29, above all field numbers.
#[derive(Clone, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct NumberPath(pub Vec<u32>);

impl NumberPath {
    pub fn child(&self, number: u32) -> Self {
        let mut numbers = self.0.clone();
        numbers.push(number);
        NumberPath(numbers)
    }

    /// Whether it leads to a oneof's case column, which no field of the message is.
    pub fn is_case(&self) -> bool {
        self.0.last().is_some_and(|number| *number >= CASE)
    }
}

impl fmt::Display for NumberPath {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (index, number) in self.0.iter().enumerate() {
            write!(f, "{}{number}", if index == 0 { "" } else { "." })?;
        }
        Ok(())
    }
}

impl FromStr for NumberPath {
    type Err = anyhow::Error;

    fn from_str(text: &str) -> Result<Self> {
        let numbers = text.split('.').map(str::parse).collect::<Result<_, _>>();
        Ok(NumberPath(numbers.with_context(|| format!("{text:?} is not a path of field numbers"))?))
    }
}

/// Where a field path's values go.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Entry {
    /// The Iceberg field id.
    pub id: i32,
    /// What the wire carries, for a leaf or a list of leaves: `sint32`, `enum`, `google.protobuf.Timestamp`; `group`, or
    /// `group` and a leaf's kind, for a message in delimited encoding. Two kinds of one column type do not read each
    /// other's bytes.
    pub kind: Option<String>,
    /// The field's name when somebody else renamed its column, which then keeps that name until the field's changes.
    pub renamed: Option<String>,
}

impl Entry {
    pub fn new(id: i32, kind: Option<String>) -> Self {
        Entry { id, kind, renamed: None }
    }
}

/// Field path → Iceberg field, for every column that a field of the message fills or once filled.
///
/// As a table property it is one JSON object: `{"1":[1,"int64"],"7":2,"7.2":[9,"string"]}`; a column that somebody else
/// renamed has its field's name as the third of the array.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ColumnMap {
    entries: BTreeMap<NumberPath, Entry>,
}

impl ColumnMap {
    /// The table property that holds it.
    pub const PROPERTY: &'static str = "calve.columns";

    pub fn get(&self, path: &NumberPath) -> Option<&Entry> {
        self.entries.get(path)
    }

    pub fn insert(&mut self, path: NumberPath, entry: Entry) {
        self.entries.insert(path, entry);
    }

    pub fn iter(&self) -> impl Iterator<Item = (&NumberPath, &Entry)> {
        self.entries.iter()
    }

    pub fn retain(&mut self, keep: impl Fn(&Entry) -> bool) {
        self.entries.retain(|_, entry| keep(entry));
    }

    /// Forgets everything below a path, which begins anew as another column.
    pub fn forget_below(&mut self, path: &NumberPath) {
        self.entries.retain(|known, _| known.0.len() <= path.0.len() || !known.0.starts_with(&path.0));
    }

    pub fn to_json(&self) -> String {
        let texts: BTreeMap<PathOrder<'_>, Json> = self
            .entries
            .iter()
            .map(|(path, entry)| {
                let value = match (&entry.kind, &entry.renamed) {
                    (kind, Some(name)) => Json::Renamed(entry.id, kind.clone(), name.clone()),
                    (Some(kind), None) => Json::Leaf(entry.id, kind.clone()),
                    (None, None) => Json::Nested(entry.id),
                };
                (PathOrder(path), value)
            })
            .collect();
        serde_json::to_string(&texts).expect("numbers and strings under string keys are JSON")
    }

    pub fn from_json(text: &str) -> Result<Self> {
        let texts: BTreeMap<String, Json> = serde_json::from_str(text)
            .with_context(|| format!("the table property {} is not what calve wrote", Self::PROPERTY))?;
        let mut map = ColumnMap::default();
        for (path, value) in texts {
            let entry = match value {
                Json::Nested(id) => Entry::new(id, None),
                Json::Leaf(id, kind) => Entry::new(id, Some(kind)),
                Json::Renamed(id, kind, name) => Entry { id, kind, renamed: Some(name) },
            };
            map.insert(path.parse()?, entry);
        }
        if map.entries.is_empty() {
            bail!("the table property {} is empty", Self::PROPERTY);
        }
        Ok(map)
    }
}

#[derive(Deserialize, Serialize)]
#[serde(untagged)]
enum Json {
    Nested(i32),
    Leaf(i32, String),
    Renamed(i32, Option<String>, String),
}

/// Keeps the numbers' order where the text's would put 10 before 2.
#[derive(PartialEq, Eq, PartialOrd, Ord)]
struct PathOrder<'a>(&'a NumberPath);

impl Serialize for PathOrder<'_> {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self.0)
    }
}
