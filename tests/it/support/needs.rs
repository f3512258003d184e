//! Why a row may need `_raw`, read from the message as the oracle decodes it, whatever the mapping.

use buffa_descriptor::DescriptorPool;
use buffa_descriptor::reflect::{DynamicMessage, ReflectMessage, Value};

/// The first reason found for which the columns cannot hold all of a message; `None` if they must.
pub fn raw(descriptors: &DescriptorPool, message: &DynamicMessage) -> Option<&'static str> {
    if !message.unknown_fields().is_empty() {
        return Some("unknown fields");
    }
    let descriptor = message.message_descriptor();
    let name = descriptor.full_name();
    match (name, message.field_by_number(2)) {
        ("google.protobuf.Timestamp" | "google.protobuf.Duration", Some(Value::I32(nanos))) if nanos % 1000 != 0 => {
            return Some("nanoseconds");
        }
        ("google.protobuf.Value", Some(Value::F64(number))) if !number.is_finite() => {
            return Some("a Value that is no JSON number");
        }
        _ => {}
    }
    if name == "google.protobuf.Value" && (1..=6).all(|number| message.field_by_number(number).is_none()) {
        return Some("a Value of no kind");
    }
    if name == "google.type.Date" && (1..=3).any(|number| message.field_by_number(number).is_none()) {
        return Some("a date that is none");
    }
    let fields = numbers(descriptors, message).into_iter().filter_map(|number| message.field_by_number(number));
    fields.into_iter().find_map(|value| of_value(descriptors, value))
}

/// The numbers of a message's fields, its extensions' too.
pub fn numbers(descriptors: &DescriptorPool, message: &DynamicMessage) -> Vec<u32> {
    let descriptor = message.message_descriptor();
    let extensions = descriptors.message_index(descriptor.full_name()).map(|index| descriptors.extensions_of(index));
    let extensions = extensions.into_iter().flatten().map(|extension| extension.field().number());
    descriptor.fields().iter().map(|field| field.number()).chain(extensions).collect()
}

/// Whether a number is a NaN other than the one that JSON's `NaN` is read as.
pub fn is_unusual_nan(value: &Value) -> bool {
    match value {
        Value::F32(number) => number.is_nan() && number.to_bits() != f32::NAN.to_bits(),
        Value::F64(number) => number.is_nan() && number.to_bits() != f64::NAN.to_bits(),
        _ => false,
    }
}

fn of_value(descriptors: &DescriptorPool, value: &Value) -> Option<&'static str> {
    match value {
        value if is_unusual_nan(value) => Some("a NaN that JSON has no name for"),
        Value::Message(message) => raw(descriptors, message),
        Value::List(values) => values.iter().find_map(|value| of_value(descriptors, value)),
        Value::Map(entries) => entries.iter().find_map(|(_, value)| of_value(descriptors, value)),
        _ => None,
    }
}
