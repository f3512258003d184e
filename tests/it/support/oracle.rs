//! What a row must hold, by the mapping's rules, from a message as buffa's reflection decodes it.

use std::sync::Arc;

use buffa_descriptor::DescriptorPool;
use buffa_descriptor::reflect::{DynamicMessage, MapKey, Value};
use calve::schema::model::{Cardinality, EnumId, Field, Kind, MessageId, Pool, Presence};

use super::cells::Cell;
use super::{json, wire};

/// A record's row, or why it has none.
#[derive(Debug)]
pub enum Verdict {
    Row { columns: Vec<(String, Cell)>, raw: bool },
    Refused(String),
}

pub struct Oracle<'a> {
    pub pool: &'a Pool,
    pub descriptors: &'a Arc<DescriptorPool>,
}

/// What one message adds to the verdict.
#[derive(Default)]
pub struct Notes {
    pub raw: bool,
    pub refused: Option<String>,
}

impl Oracle<'_> {
    pub fn judge(&self, id: MessageId, bytes: &[u8]) -> Verdict {
        let message = match self.decode(id, bytes) {
            Ok(message) => message,
            Err(reason) => return Verdict::Refused(reason),
        };
        let mut notes = Notes::default();
        let columns = match self.message(id, &message, &mut Vec::new(), &mut notes) {
            Cell::Struct(columns) => columns,
            // A well-known type is one column.
            value => vec![("value".into(), value)],
        };
        match notes.refused {
            Some(reason) => Verdict::Refused(reason),
            None => Verdict::Row { columns, raw: notes.raw },
        }
    }

    /// The message as buffa reads it, MessageSets' items as ordinary fields.
    pub fn decode(&self, id: MessageId, bytes: &[u8]) -> Result<DynamicMessage, String> {
        let name = &self.pool.message(id).full_name;
        let index = self.descriptors.message_index(name).expect("both pools hold the same messages");
        let plain = match self.has_message_set(id, &mut Vec::new()) {
            true => wire::without_items(self.pool, id, bytes).ok_or("not well-formed")?,
            false => bytes.to_vec(),
        };
        DynamicMessage::decode(self.descriptors.clone(), index, &plain).map_err(|error| error.to_string())
    }

    fn columns(
        &self,
        id: MessageId,
        message: &DynamicMessage,
        way: &mut Vec<MessageId>,
        notes: &mut Notes,
    ) -> Vec<(String, Cell)> {
        notes.raw |= !message.unknown_fields().is_empty();
        let definition = self.pool.message(id);
        if definition.fields.is_empty() {
            return vec![("_present".into(), Cell::Bool(true))];
        }
        way.push(id);
        let columns = definition.fields.iter().map(|field| {
            let name = if field.extension { field.name.replace('.', "_") } else { field.name.clone() };
            let value = message.field_by_number(wire::alias(field.number));
            (name, self.field(field, value, way, notes))
        });
        let columns = columns.collect();
        way.pop();
        columns
    }

    fn field(&self, field: &Field, value: Option<&Value>, way: &mut Vec<MessageId>, notes: &mut Notes) -> Cell {
        match (field.cardinality, value) {
            (Cardinality::Repeated, None) => Cell::List(Vec::new()),
            (Cardinality::Repeated, Some(Value::List(values))) => {
                Cell::List(values.iter().map(|value| self.value(field.kind, value, way, notes)).collect())
            }
            (Cardinality::Map { .. }, None) => Cell::map(Vec::new()),
            (Cardinality::Map { .. }, Some(Value::Map(entries))) => Cell::map(
                entries.iter().map(|(name, value)| (key(name), self.value(field.kind, value, way, notes))).collect(),
            ),
            (Cardinality::Singular(Presence::Required), None) => {
                notes.refused = Some(format!("{} is required", field.name));
                Cell::Null
            }
            (Cardinality::Singular(Presence::Implicit), None) => self.default(field.kind),
            (Cardinality::Singular(_), None) => Cell::Null,
            (Cardinality::Singular(_), Some(value)) => self.value(field.kind, value, way, notes),
            (cardinality, Some(value)) => panic!("{}: {value:?} is not {cardinality:?}", field.name),
        }
    }

    fn value(&self, kind: Kind, value: &Value, way: &mut Vec<MessageId>, notes: &mut Notes) -> Cell {
        match value {
            Value::Bool(value) => Cell::Bool(*value),
            Value::I32(value) => Cell::Int((*value).into()),
            Value::I64(value) => Cell::Int((*value).into()),
            Value::U32(value) => Cell::Int((*value).into()),
            Value::U64(value) => Cell::Int((*value).into()),
            Value::F32(value) => Cell::Float(value.to_bits()),
            Value::F64(value) => Cell::Double(value.to_bits()),
            Value::String(value) => Cell::Text(value.clone()),
            Value::Bytes(value) => Cell::Bytes(value.clone()),
            Value::EnumNumber(number) => {
                let Kind::Enum(id) = kind else { panic!("{kind:?} is not an enumeration") };
                self.name(id, *number)
            }
            Value::Message(message) => {
                let (Kind::Message(id) | Kind::Group(id)) = kind else { panic!("{kind:?} is not a message") };
                self.message(id, message, way, notes)
            }
            Value::List(_) | Value::Map(_) => panic!("a list or map where one value was expected"),
        }
    }

    fn has_message_set(&self, id: MessageId, seen: &mut Vec<MessageId>) -> bool {
        if seen.contains(&id) {
            return false;
        }
        seen.push(id);
        let definition = self.pool.message(id);
        definition.message_set
            || definition.fields.iter().any(|field| match field.kind {
                Kind::Message(id) | Kind::Group(id) => self.has_message_set(id, seen),
                _ => false,
            })
    }

    fn name(&self, id: EnumId, number: i32) -> Cell {
        let name = self.pool.enumeration(id).values.iter().find(|value| value.number == number);
        Cell::Text(name.map_or_else(|| number.to_string(), |value| value.name.clone()))
    }

    fn default(&self, kind: Kind) -> Cell {
        match kind {
            Kind::Bool => Cell::Bool(false),
            Kind::Float => Cell::Float(0),
            Kind::Double => Cell::Double(0),
            Kind::String => Cell::Text(String::new()),
            Kind::Bytes => Cell::Bytes(Vec::new()),
            Kind::Enum(id) => self.name(id, 0),
            Kind::Message(_) | Kind::Group(_) => panic!("a message always has presence"),
            _ => Cell::Int(0),
        }
    }

    fn message(&self, id: MessageId, message: &DynamicMessage, way: &mut Vec<MessageId>, notes: &mut Notes) -> Cell {
        let number = |field: u32| match message.field_by_number(field) {
            Some(Value::I64(value)) => *value,
            Some(Value::I32(value)) => (*value).into(),
            None => 0,
            Some(value) => panic!("{value:?} is not a whole number"),
        };
        let full_name = self.pool.message(id).full_name.as_str();
        let json = ["Struct", "Value", "ListValue"].iter().any(|name| full_name == format!("google.protobuf.{name}"));
        if json || way.contains(&id) {
            return json::cell(self, id, message, notes);
        }
        let special = match full_name {
            "google.protobuf.Timestamp" | "google.protobuf.Duration" => {
                let (seconds, nanos) = (number(1), number(2));
                let fine = if full_name == "google.protobuf.Timestamp" {
                    (-62_135_596_800..=253_402_300_799).contains(&seconds) && (0..1_000_000_000).contains(&nanos)
                } else {
                    (-315_576_000_000..=315_576_000_000).contains(&seconds)
                        && nanos.abs() < 1_000_000_000
                        && seconds.signum() * nanos.signum() >= 0
                };
                if !fine {
                    notes.refused = Some(format!("{full_name} {seconds} s {nanos} ns"));
                }
                let nanos = i128::from(seconds) * 1_000_000_000 + i128::from(nanos);
                notes.raw |= nanos.rem_euclid(1000) != 0;
                Cell::Int(nanos.div_euclid(1000))
            }
            "google.type.Date" => {
                let [year, month, day] = [1, 2, 3].map(|field| number(field) as i32);
                let date = chrono::NaiveDate::from_ymd_opt(year, month as u32, day as u32);
                match date.filter(|_| (1..=9999).contains(&year)) {
                    Some(date) => {
                        let epoch = chrono::NaiveDate::from_ymd_opt(1970, 1, 1).expect("a valid date");
                        Cell::Int(date.signed_duration_since(epoch).num_days().into())
                    }
                    None => {
                        notes.raw = true;
                        Cell::Null
                    }
                }
            }
            name if name.starts_with("google.protobuf.") && name.ends_with("Value") => {
                let field = &self.pool.message(id).fields[0];
                message
                    .field_by_number(1)
                    .map_or_else(|| self.default(field.kind), |value| self.value(field.kind, value, way, notes))
            }
            _ => return Cell::Struct(self.columns(id, message, way, notes)),
        };
        notes.raw |= !message.unknown_fields().is_empty();
        special
    }
}

fn key(key: &MapKey) -> Cell {
    match key {
        MapKey::Bool(value) => Cell::Bool(*value),
        MapKey::I32(value) => Cell::Int((*value).into()),
        MapKey::I64(value) => Cell::Int((*value).into()),
        MapKey::U32(value) => Cell::Int((*value).into()),
        MapKey::U64(value) => Cell::Int((*value).into()),
        MapKey::String(value) => Cell::Text(value.clone()),
    }
}
