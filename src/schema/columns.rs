//! A message's columns, before they have ids: the mapping table of version 1, one match arm a row.

use super::choices::{Choices, Here};
use super::mapping::{CASE, Column, Leaf, Options, Shape, Struct, Unit};
use super::metadata;
use super::model::{Cardinality, Field, Kind, Message, MessageId, Pool};
use super::well_known::{self, JsonForm};
use crate::config::ColumnType;

/// The columns of a message that [`super::check`] found no fault with, in declaration order.
pub fn of_topic(pool: &Pool, message: MessageId, options: &Options, choices: &Choices) -> Vec<Column> {
    let mut layout = Layout::new(pool, options, choices);
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

/// A way down from the topic's message, which decides what becomes JSON, and what else was chosen for a field.
pub struct Layout<'a> {
    pub pool: &'a Pool,
    pub options: &'a Options,
    pub choices: &'a Choices,
    /// The messages on the way, the topic's first.
    pub way: Vec<MessageId>,
    /// The fields on the way, by the names of their columns.
    pub path: Vec<String>,
    /// What was chosen below the topic's message, and below each of the fields on the way.
    here: Vec<Here<'a>>,
}

impl<'a> Layout<'a> {
    pub fn new(pool: &'a Pool, options: &'a Options, choices: &'a Choices) -> Self {
        Layout { pool, options, choices, way: Vec::new(), path: Vec::new(), here: Vec::new() }
    }

    /// What was chosen for the fields of the message that was reached.
    pub fn here(&self) -> Here<'a> {
        self.here.last().copied().unwrap_or(Here::root(self.choices))
    }

    /// Goes on to a field: what its values become, none (and it stays where it was) if the field is left out.
    pub fn down(&mut self, field: &Field) -> Option<Form> {
        let wanted = self.here().field(field)?;
        self.path.push(field.column_name().into_owned());
        self.here.push(wanted.below);
        Some(self.form(field.kind, wanted.kind))
    }

    /// Back from a field.
    pub fn up(&mut self) {
        self.path.pop();
        self.here.pop();
    }

    /// The oneofs of the message reached that have a case column.
    pub fn cases(&self, message: &Message) -> impl Iterator<Item = usize> {
        let here = self.here();
        let cases: Vec<usize> = (0..message.oneofs.len()).filter(|oneof| here.case_column(message, *oneof)).collect();
        cases.into_iter()
    }

    /// What a value of the field at [`path`](Self::path) becomes; the type fits it ([`super::choices::misfit`]).
    fn form(&self, kind: Kind, chosen: ColumnType) -> Form {
        let leaf = match kind {
            Kind::Message(id) | Kind::Group(id) if chosen == ColumnType::Json => Leaf::Json(id),
            Kind::Enum(id) => Leaf::EnumName(id),
            Kind::Message(id) | Kind::Group(id) => match well_known::recognise(self.pool, id) {
                Some(leaf) => leaf,
                None if self.way.contains(&id) || self.is_chosen() => Leaf::Json(id),
                None => return Form::Struct(id),
            },
            scalar => Leaf::Scalar(scalar),
        };
        Form::Leaf(match (chosen, leaf) {
            (ColumnType::Long, Leaf::Scalar(kind)) => Leaf::UnsignedAsLong(kind),
            (ColumnType::Long, Leaf::Wrapper(id, _)) => Leaf::WrapperAsLong(id),
            (ColumnType::Long, Leaf::Timestamp(id)) => Leaf::TimestampLong(id, Unit::Micros),
            (ColumnType::Millis, Leaf::Timestamp(id)) => Leaf::TimestampLong(id, Unit::Millis),
            (ColumnType::Millis, Leaf::Duration(id)) => Leaf::DurationMillis(id),
            (ColumnType::Int, Leaf::EnumName(id)) => Leaf::EnumNumber(id),
            (_, leaf) => leaf,
        })
    }

    /// Whether the configuration wants JSON here.
    fn is_chosen(&self) -> bool {
        self.options.json_below.is_some_and(|depth| self.path.len() >= depth)
            || self.options.json.iter().any(|path| self.path.iter().map(String::as_str).eq(path.split('.')))
    }

    fn message(&mut self, id: MessageId) -> Vec<Column> {
        let pool = self.pool;
        let message = pool.message(id);
        let cases: Vec<usize> = self.cases(message).collect();
        let mut columns = Vec::with_capacity(message.fields.len());
        self.way.push(id);
        for (index, field) in message.fields.iter().enumerate() {
            if let Some(form) = self.down(field) {
                columns.push(self.column(field, form));
                self.up();
            }
            let Some(oneof) = field.oneof else { continue };
            let is_last = !message.fields[index + 1..].iter().any(|later| later.oneof == Some(oneof));
            if is_last && cases.contains(&oneof) {
                columns.push(case(pool, id, oneof));
            }
        }
        self.way.pop();
        if columns.is_empty() {
            columns.push(present());
        }
        columns
    }

    /// The column of the field that was reached. Depth is bounded by [`super::check::DEPTH_MAX`].
    fn column(&mut self, field: &Field, form: Form) -> Column {
        let value = match form {
            Form::Leaf(leaf) => Shape::Leaf(leaf),
            Form::Struct(id) => Shape::Struct(Struct { message: id, columns: self.message(id) }),
        };
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
        let name = field.column_name().into_owned();
        Column { name, number: field.number, shape, delimited: matches!(field.kind, Kind::Group(_)), doc }
    }
}

/// What an empty message, or one whose fields are all left out, has for a column, so that its presence survives.
pub fn present() -> Column {
    Column {
        name: metadata::PRESENT.to_string(),
        number: 0,
        shape: Shape::Leaf(Leaf::Present),
        delimited: false,
        doc: Some("true where the message is present".to_string()),
    }
}

/// Behind a oneof's last member: which of them is set.
fn case(pool: &Pool, id: MessageId, oneof: usize) -> Column {
    let message = pool.message(id);
    let members = message.fields.iter().filter(|field| field.oneof == Some(oneof));
    let name = &message.oneofs[oneof].name;
    Column {
        name: case_name(name),
        number: CASE + members.map(|member| member.number).min().unwrap_or_default(),
        shape: Shape::Leaf(Leaf::Case(id, oneof as u32)),
        delimited: false,
        doc: Some(format!("the member of {name} that is set")),
    }
}

/// What a oneof's case column is called.
pub fn case_name(oneof: &str) -> String {
    format!("{oneof}_case")
}

/// What a column's type does not say by itself.
fn note(pool: &Pool, leaf: Leaf) -> Option<String> {
    let text = match leaf {
        Leaf::Duration(_) => "duration in microseconds",
        Leaf::DurationMillis(_) => "duration in milliseconds",
        Leaf::TimestampLong(_, Unit::Micros) => "microseconds since 1970-01-01T00:00:00Z",
        Leaf::TimestampLong(_, Unit::Millis) => "milliseconds since 1970-01-01T00:00:00Z",
        Leaf::Json(id) => return Some(format!("JSON of {}", pool.message(id).full_name)),
        _ => return None,
    };
    Some(text.to_string())
}
