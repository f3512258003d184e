//! A message's columns, before they have ids: the mapping table of version 1, one match arm a row.

use super::mapping::{Column, Leaf, Options, Shape, Struct};
use super::metadata;
use super::model::{Cardinality, Field, Kind, MessageId, Pool};
use super::well_known::{self, JsonForm};

/// The columns of a message that [`super::check`] found no fault with, in declaration order.
pub fn of_topic(pool: &Pool, message: MessageId, options: &Options) -> Vec<Column> {
    let mut layout = Layout { pool, options, way: Vec::new(), path: Vec::new() };
    match single(pool, message) {
        Some(single) => {
            let (shape, doc) = match single {
                // No fields to take apart: the message is the one column.
                Form::Leaf(leaf) => (Shape::Leaf(leaf), note(pool, leaf)),
                Form::Struct(id) => (Shape::Struct(Struct { message: id, columns: layout.message(id) }), None),
            };
            vec![Column { name: "value".to_string(), number: 0, shape, delimited: false, doc }]
        }
        None => layout.message(message),
    }
}

/// What a value becomes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Form {
    Leaf(Leaf),
    Struct(MessageId),
}

/// The one column of a topic whose message is a well-known type.
pub fn single(pool: &Pool, message: MessageId) -> Option<Form> {
    let any = well_known::json_form(pool, message) == JsonForm::Any;
    well_known::recognise(pool, message).map(Form::Leaf).or(any.then_some(Form::Struct(message)))
}

/// A way down from the topic's message, which decides what becomes JSON.
pub struct Layout<'a> {
    pub pool: &'a Pool,
    pub options: &'a Options,
    /// The messages on the way, the topic's first.
    pub way: Vec<MessageId>,
    /// The fields on the way, by the names of their columns.
    pub path: Vec<String>,
}

impl Layout<'_> {
    /// What a value of the field at [`path`](Self::path) becomes.
    pub fn form(&self, kind: Kind) -> Form {
        match kind {
            Kind::Enum(id) => Form::Leaf(Leaf::EnumName(id)),
            Kind::Message(id) | Kind::Group(id) => match well_known::recognise(self.pool, id) {
                Some(leaf) => Form::Leaf(leaf),
                None if self.way.contains(&id) || self.is_chosen() => Form::Leaf(Leaf::Json(id)),
                None => Form::Struct(id),
            },
            scalar => Form::Leaf(Leaf::Scalar(scalar)),
        }
    }

    /// Whether the configuration wants JSON here.
    fn is_chosen(&self) -> bool {
        self.options.json_below.is_some_and(|depth| self.path.len() >= depth)
            || self.options.json.iter().any(|path| self.path.iter().map(String::as_str).eq(path.split('.')))
    }

    fn message(&mut self, id: MessageId) -> Vec<Column> {
        let pool = self.pool;
        let message = pool.message(id);
        if message.fields.is_empty() {
            return vec![present()];
        }
        self.way.push(id);
        let columns = message.fields.iter().map(|field| self.column(field)).collect();
        self.way.pop();
        columns
    }

    /// Depth is bounded by [`super::check::DEPTH_MAX`].
    fn column(&mut self, field: &Field) -> Column {
        let name = field.column_name().into_owned();
        self.path.push(name.clone());
        let value = match self.form(field.kind) {
            Form::Leaf(leaf) => Shape::Leaf(leaf),
            Form::Struct(id) => Shape::Struct(Struct { message: id, columns: self.message(id) }),
        };
        self.path.pop();
        let doc = match (&field.doc, value.leaf().and_then(|leaf| note(self.pool, leaf))) {
            (Some(doc), Some(note)) => Some(format!("{doc}\n{note}")),
            (Some(doc), None) => Some(doc.clone()),
            (None, note) => note,
        };
        let shape = match field.cardinality {
            Cardinality::Singular(_) => value,
            Cardinality::Repeated => Shape::List(Box::new(value)),
            Cardinality::Map { key } => Shape::Map { key: Leaf::Scalar(key), value: Box::new(value) },
        };
        Column { name, number: field.number, shape, delimited: matches!(field.kind, Kind::Group(_)), doc }
    }
}

/// What an empty message has for a column, so that its presence survives.
pub fn present() -> Column {
    Column {
        name: metadata::PRESENT.to_string(),
        number: 0,
        shape: Shape::Leaf(Leaf::Present),
        delimited: false,
        doc: Some("true where the message is present".to_string()),
    }
}

/// What a column's type does not say by itself.
fn note(pool: &Pool, leaf: Leaf) -> Option<String> {
    match leaf {
        Leaf::Duration(_) => Some("duration in microseconds".to_string()),
        Leaf::Json(id) => Some(format!("JSON of {}", pool.message(id).full_name)),
        _ => None,
    }
}
