//! The interpreter of JSON columns: a message's bytes into text.

use std::collections::HashSet;
use std::ops::Range;

use super::super::plan::NONE;
use super::super::wire::{self, DEPTH_MAX};
use super::super::{message_set, well_known};
use super::text;
use super::types::{Field, How, Type, Types, Value};
use crate::batch::RejectCode;
use crate::schema::model::Kind;
use crate::schema::well_known::JsonForm;

/// What the text says of its message.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Written {
    /// It does not say everything.
    pub raw: bool,
    /// The message has no such text.
    pub refused: Option<RejectCode>,
}

/// Memory that is kept from value to value.
#[derive(Debug, Default)]
pub struct Scratch {
    stack: Vec<Occurrence>,
}

/// A field, or an element of one, on the wire.
#[derive(Clone, Copy, Debug)]
struct Occurrence {
    /// Index into the type's fields.
    field: u16,
    /// Elements of a packed list.
    packed: bool,
    alive: bool,
    /// The value: of a length-delimited one and of a group what is inside.
    start: usize,
    end: usize,
}

/// Appends the JSON of the message `buffer[start..end]`, which has `depth` messages around its fields, itself included
/// unless it is the record's own. An error is a message that is not well-formed.
pub fn write(
    types: &Types,
    index: u32,
    buffer: &[u8],
    (start, end): (usize, usize),
    depth: u32,
    scratch: &mut Scratch,
    out: &mut Vec<u8>,
) -> Result<Written, RejectCode> {
    scratch.stack.clear();
    let mut writer = Writer { types, buffer, out, stack: &mut scratch.stack, written: Written::default() };
    let pieces = writer.push_piece(start, end);
    writer.message(index, pieces, depth)?;
    Ok(writer.written)
}

struct Writer<'a> {
    types: &'a Types,
    buffer: &'a [u8],
    out: &'a mut Vec<u8>,
    /// The fields of the messages that are being written, innermost last.
    stack: &'a mut Vec<Occurrence>,
    written: Written,
}

#[derive(PartialEq, Eq, Hash)]
enum Key<'a> {
    Number(u64),
    Text(&'a [u8]),
}

impl<'a> Writer<'a> {
    fn refuse(&mut self, code: RejectCode) {
        self.written.refused.get_or_insert(code);
    }

    /// A message's bytes on the stack, as [`message`](Self::message) takes them.
    fn push_piece(&mut self, start: usize, end: usize) -> Range<usize> {
        let at = self.stack.len();
        self.stack.push(Occurrence { field: 0, packed: false, alive: true, start, end });
        at..at + 1
    }

    /// The message that these pieces (a range of the stack) merge into.
    fn message(&mut self, index: u32, pieces: Range<usize>, depth: u32) -> Result<(), RejectCode> {
        let types = self.types;
        let of = &types.types[index as usize];
        let fields = self.collect(of, pieces, depth)?;
        self.value_of(of, fields.clone(), depth)?;
        self.stack.truncate(fields.start);
        Ok(())
    }

    /// The fields of a message by number, each with its occurrences in their order, on top of the stack.
    fn collect(&mut self, of: &'a Type, pieces: Range<usize>, depth: u32) -> Result<Range<usize>, RejectCode> {
        if depth > DEPTH_MAX {
            return Err(RejectCode::TooDeep);
        }
        if self.out.len() > i32::MAX as usize {
            // No column holds that much.
            return Err(RejectCode::OutOfRange);
        }
        let base = self.stack.len();
        for piece in pieces {
            let Occurrence { start, end, .. } = self.stack[piece];
            self.scan(of, start, end, depth)?;
        }
        if of.oneofs {
            self.settle_oneofs(of, base, depth)?;
        }
        let found = &mut self.stack[base..];
        if !found.is_sorted_by_key(|occurrence| occurrence.field) {
            found.sort_by_key(|occurrence| occurrence.field);
        }
        self.written.raw |= of.ambiguous;
        Ok(base..self.stack.len())
    }

    /// Pushes the fields of one piece; what is no message is checked.
    fn scan(&mut self, of: &Type, mut at: usize, end: usize, depth: u32) -> Result<(), RejectCode> {
        let buffer = self.buffer;
        while at < end {
            let (tag, value) = wire::tag(buffer, at, end)?;
            let (number, wire_type) = (tag >> 3, tag & 7);
            if of.message_set && number == message_set::ITEM && wire_type == wire::START_GROUP {
                at = self.scan_item(of, value, end, depth)?;
                continue;
            }
            let next = wire::skip(buffer, value, end, tag, depth)?;
            at = next;
            let Some(index) = of.find(number) else {
                self.written.raw = true;
                continue;
            };
            let field = &of.fields[index];
            let packable = field.how == How::Repeated && !matches!(field.wire, wire::LENGTH | wire::START_GROUP);
            let packed = packable && wire_type == wire::LENGTH;
            if wire_type != field.wire && !packed {
                self.written.raw = true;
                continue;
            }
            let (start, stop) = match wire_type {
                wire::LENGTH => wire::length(buffer, value, end)?,
                wire::START_GROUP => (value, wire::group(buffer, value, end, number, depth + 1)?.0),
                _ => (value, next),
            };
            if field.value == Value::Scalar(Kind::String) && simdutf8::basic::from_utf8(&buffer[start..stop]).is_err() {
                return Err(RejectCode::InvalidUtf8);
            }
            if let (Value::ClosedEnum(names), false) = (field.value, packed)
                && self.types.enums[names as usize].name(self.varint(start) as i32).is_none()
            {
                // An unknown field; in an entry that counts, a later value has overwritten it.
                self.written.raw |= !of.entry;
                continue;
            }
            self.stack.push(Occurrence { field: index as u16, packed, alive: true, start, end: stop });
        }
        Ok(())
    }

    fn scan_item(&mut self, of: &Type, at: usize, end: usize, depth: u32) -> Result<usize, RejectCode> {
        let item = message_set::item(self.buffer, at, end, depth)?;
        self.written.raw |= item.unknown;
        match item.message.and_then(|message| Some((of.find(message.type_id)?, message))) {
            Some((index, message)) => {
                let (start, end) = wire::length(self.buffer, message.at, message.end)?;
                self.stack.push(Occurrence { field: index as u16, packed: false, alive: true, start, end });
            }
            None => self.written.raw = true,
        }
        Ok(item.next)
    }

    /// A later member of a oneof clears the earlier ones, which must have been well-formed all the same.
    fn settle_oneofs(&mut self, of: &'a Type, base: usize, depth: u32) -> Result<(), RejectCode> {
        // Oneof, its member, and whether another one came before that.
        let mut seen: Vec<(u16, u16, bool)> = Vec::new();
        let mut cleared = false;
        for occurrence in self.stack[base..].iter_mut().rev() {
            let oneof = of.fields[occurrence.field as usize].oneof;
            if oneof == NONE {
                continue;
            }
            match seen.iter_mut().find(|(known, _, _)| *known == oneof) {
                None => seen.push((oneof, occurrence.field, false)),
                Some((_, member, other)) => {
                    *other |= *member != occurrence.field;
                    occurrence.alive = !*other;
                    cleared |= *other;
                }
            }
        }
        if !cleared {
            return Ok(());
        }
        for index in base..self.stack.len() {
            let Occurrence { field, alive, start, end, .. } = self.stack[index];
            if let (false, Some(message)) = (alive, of.fields[field as usize].value.message()) {
                self.discard(message, start, end, depth + 1)?;
            }
        }
        let mut kept = base;
        for index in base..self.stack.len() {
            if self.stack[index].alive {
                self.stack.swap(kept, index);
                kept += 1;
            }
        }
        self.stack.truncate(kept);
        Ok(())
    }

    /// Checks a message that does not count.
    fn discard(&mut self, index: u32, start: usize, end: usize, depth: u32) -> Result<(), RejectCode> {
        let (length, written) = (self.out.len(), self.written);
        let pieces = self.push_piece(start, end);
        self.message(index, pieces.clone(), depth)?;
        self.stack.truncate(pieces.start);
        self.out.truncate(length);
        self.written = written;
        Ok(())
    }

    /// The JSON of a message whose fields are on top of the stack.
    fn value_of(&mut self, of: &'a Type, fields: Range<usize>, depth: u32) -> Result<(), RejectCode> {
        match of.form {
            JsonForm::Object => {
                self.out.push(b'{');
                self.members(of, fields, depth)?;
                self.out.push(b'}');
            }
            JsonForm::Timestamp | JsonForm::Duration => self.time(of, fields),
            JsonForm::Wrapper => match fields.last() {
                Some(last) => self.scalar(of.fields[0].value, self.stack[last].start, self.stack[last].end),
                None => self.default(of.fields[0].value),
            },
            JsonForm::FieldMask => self.mask(fields),
            JsonForm::Struct => {
                self.out.push(b'{');
                if let How::Map(entry) = of.fields[0].how {
                    self.entries(entry, fields, depth)?;
                }
                self.out.push(b'}');
            }
            JsonForm::ListValue => {
                self.out.push(b'[');
                self.elements(&of.fields[0], fields, depth)?;
                self.out.push(b']');
            }
            JsonForm::Value => self.json_value(of, fields, depth)?,
            JsonForm::Any => self.any(of, fields, depth)?,
        }
        Ok(())
    }

    /// A comma, unless an object or a list has only begun.
    fn comma(&mut self) {
        if !matches!(self.out.last(), Some(b'{' | b'[')) {
            self.out.push(b',');
        }
    }

    /// The members of an object: fields with values.
    fn members(&mut self, of: &'a Type, fields: Range<usize>, depth: u32) -> Result<(), RejectCode> {
        let mut at = fields.start;
        while at < fields.end {
            let index = self.stack[at].field;
            let end = (at..fields.end).find(|next| self.stack[*next].field != index).unwrap_or(fields.end);
            // An item's group is around its message.
            self.member(&of.fields[index as usize], at..end, depth + u32::from(of.message_set))?;
            at = end;
        }
        for required in &of.required {
            if !self.stack[fields.clone()].iter().any(|occurrence| occurrence.field == *required) {
                self.refuse(RejectCode::RequiredMissing);
            }
        }
        Ok(())
    }

    fn member(&mut self, field: &'a Field, occurrences: Range<usize>, depth: u32) -> Result<(), RejectCode> {
        let before = self.out.len();
        self.comma();
        self.out.extend_from_slice(field.key.as_bytes());
        let inside = self.out.len() + 1;
        match field.how {
            How::Repeated => {
                self.out.push(b'[');
                self.elements(field, occurrences, depth)?;
                if self.out.len() == inside {
                    self.out.truncate(before);
                } else {
                    self.out.push(b']');
                }
            }
            How::Map(entry) => {
                self.out.push(b'{');
                self.entries(entry, occurrences, depth)?;
                if self.out.len() == inside {
                    self.out.truncate(before);
                } else {
                    self.out.push(b'}');
                }
            }
            How::Implicit | How::Explicit => {
                if let Some(message) = field.value.message() {
                    return self.message(message, occurrences, depth + 1);
                }
                let Some(last) = occurrences.last().map(|last| self.stack[last]) else { return Ok(()) };
                if field.how == How::Implicit && self.is_default(field.value, last.start, last.end) {
                    self.out.truncate(before);
                } else {
                    self.scalar(field.value, last.start, last.end);
                }
            }
        }
        Ok(())
    }

    fn elements(&mut self, field: &'a Field, occurrences: Range<usize>, depth: u32) -> Result<(), RejectCode> {
        for index in occurrences {
            let Occurrence { start, end, packed, .. } = self.stack[index];
            if packed {
                self.packed(field, start, end)?;
                continue;
            }
            self.comma();
            match field.value.message() {
                Some(message) => self.message(message, index..index + 1, depth + 1)?,
                None => self.scalar(field.value, start, end),
            }
        }
        Ok(())
    }

    fn packed(&mut self, field: &Field, mut at: usize, end: usize) -> Result<(), RejectCode> {
        while at < end {
            let next = match field.wire {
                wire::FIXED32 => at + 4,
                wire::FIXED64 => at + 8,
                _ => wire::bounded_varint(self.buffer, at, end)?.1,
            };
            if next > end {
                return Err(RejectCode::Truncated);
            }
            match field.value {
                Value::ClosedEnum(names) if self.types.enums[names as usize].name(self.varint(at) as i32).is_none() => {
                    self.written.raw = true;
                }
                value => {
                    self.comma();
                    self.scalar(value, at, next);
                }
            }
            at = next;
        }
        Ok(())
    }

    /// The entries of a map; the last one of a key counts.
    fn entries(&mut self, entry: u32, occurrences: Range<usize>, depth: u32) -> Result<(), RejectCode> {
        let types = self.types;
        let of = &types.types[entry as usize];
        let mut keys = Vec::with_capacity(occurrences.len());
        for index in occurrences.clone() {
            let Occurrence { start, end, .. } = self.stack[index];
            let key = self.key(of, start, end, depth + 1)?;
            self.written.raw |= key.is_none();
            keys.push(key);
        }
        for (index, counts) in occurrences.zip(last_of_each(keys)) {
            if counts {
                self.comma();
                self.entry(of, index, depth + 1)?;
            } else {
                let Occurrence { start, end, .. } = self.stack[index];
                self.discard_entry(of, start, end, depth + 1)?;
            }
        }
        Ok(())
    }

    fn entry(&mut self, of: &'a Type, index: usize, depth: u32) -> Result<(), RejectCode> {
        let parts = self.collect(of, index..index + 1, depth)?;
        let values = parts.start + self.stack[parts.clone()].partition_point(|part| part.field == 0);
        let [key, value] = [&of.fields[0], &of.fields[1]];
        let text = key.value == Value::Scalar(Kind::String);
        let quoted = text || matches!(key.value, Value::Scalar(kind) if is_quoted(kind));
        if !quoted {
            self.out.push(b'"');
        }
        match (parts.start..values).last().map(|last| self.stack[last]) {
            Some(last) => self.scalar(key.value, last.start, last.end),
            None => self.default(key.value),
        }
        self.out.extend_from_slice(if quoted { b":" } else { b"\":" });
        match (value.value.message(), (values..parts.end).last().map(|last| self.stack[last])) {
            (Some(message), _) => self.message(message, values..parts.end, depth + 1)?,
            (None, Some(last)) => self.scalar(value.value, last.start, last.end),
            (None, None) => self.default(value.value),
        }
        self.stack.truncate(parts.start);
        Ok(())
    }

    /// Checks an entry that does not count.
    fn discard_entry(&mut self, of: &'a Type, start: usize, end: usize, depth: u32) -> Result<(), RejectCode> {
        let (length, written) = (self.out.len(), self.written);
        let piece = self.push_piece(start, end);
        self.entry(of, piece.start, depth)?;
        self.stack.truncate(piece.start);
        self.out.truncate(length);
        self.written = written;
        Ok(())
    }

    /// The key of an entry; none if its value is no member of its closed enumeration, which makes it an unknown field.
    fn key(&self, of: &Type, mut at: usize, end: usize, depth: u32) -> Result<Option<Key<'a>>, RejectCode> {
        let [key, value] = [&of.fields[0], &of.fields[1]];
        let mut found = if key.wire == wire::LENGTH { Key::Text(b"") } else { Key::Number(0) };
        let mut member = true;
        while at < end {
            let (tag, start) = wire::tag(self.buffer, at, end)?;
            at = wire::skip(self.buffer, start, end, tag, depth)?;
            if tag == 1 << 3 | key.wire {
                found = match key.value {
                    Value::Scalar(Kind::String) => {
                        let (start, end) = wire::length(self.buffer, start, end)?;
                        Key::Text(&self.buffer[start..end])
                    }
                    Value::Scalar(kind) => Key::Number(self.number(kind, start)),
                    _ => found,
                };
            } else if let (Value::ClosedEnum(names), true) = (value.value, tag == 2 << 3 | value.wire) {
                member = self.types.enums[names as usize].name(self.varint(start) as i32).is_some();
            }
        }
        Ok(member.then_some(found))
    }

    fn time(&mut self, of: &Type, fields: Range<usize>) {
        let (mut seconds, mut nanos) = (0, 0);
        for occurrence in &self.stack[fields] {
            let value = self.varint(occurrence.start);
            if occurrence.field == 0 { seconds = value as i64 } else { nanos = value as i32 }
        }
        if of.form == JsonForm::Timestamp {
            match well_known::timestamp(seconds, nanos) {
                Ok(_) => text::put_timestamp(self.out, seconds, nanos),
                Err(well_known::OutOfRange) => self.refuse(RejectCode::OutOfRange),
            }
        } else {
            match well_known::duration(seconds, nanos) {
                Ok(_) => text::put_duration(self.out, seconds, nanos),
                Err(well_known::OutOfRange) => self.refuse(RejectCode::OutOfRange),
            }
        }
    }

    fn mask(&mut self, paths: Range<usize>) {
        self.out.push(b'"');
        for index in paths.clone() {
            let path = &self.buffer[self.stack[index].start..self.stack[index].end];
            if index > paths.start {
                self.out.push(b',');
            }
            if !text::put_mask_path(self.out, path) {
                self.refuse(RejectCode::OutOfRange);
            }
            // Neither reads back as the path that it is.
            self.written.raw |= path.is_empty() || path.contains(&b',');
        }
        self.out.push(b'"');
    }

    fn json_value(&mut self, of: &'a Type, fields: Range<usize>, depth: u32) -> Result<(), RejectCode> {
        let Some(last) = fields.clone().last().map(|last| self.stack[last]) else {
            self.written.raw = true;
            self.out.extend_from_slice(b"null");
            return Ok(());
        };
        let value = of.fields[last.field as usize].value;
        if let Some(message) = value.message() {
            return self.message(message, fields, depth + 1);
        }
        if value == Value::Scalar(Kind::Double) {
            self.written.raw |= !f64::from_bits(wire::load8(self.buffer, last.start)).is_finite();
        }
        self.scalar(value, last.start, last.end);
        Ok(())
    }

    fn any(&mut self, of: &'a Type, fields: Range<usize>, depth: u32) -> Result<(), RejectCode> {
        self.out.push(b'{');
        if !fields.is_empty() {
            let bytes = |wanted: u16| {
                let found = self.stack[fields.clone()].iter().rfind(|occurrence| occurrence.field == wanted);
                found.map_or((0, 0), |occurrence| (occurrence.start, occurrence.end))
            };
            debug_assert_eq!(of.fields.len(), 2);
            let (url, (start, end)) = (bytes(0), bytes(1));
            let url = &self.buffer[url.0..url.1];
            self.out.extend_from_slice(b"\"@type\":");
            text::put_string(self.out, url);
            let name = url.rsplit(|byte| *byte == b'/').next().unwrap_or_default();
            let named = std::str::from_utf8(name).ok().and_then(|name| self.types.by_name.get(name));
            match named {
                Some(index) => {
                    let pieces = self.push_piece(start, end);
                    if self.packed_message(*index, pieces.clone(), depth + 1).is_err() {
                        // Not well-formed, but the record is: JSON alone cannot say it.
                        self.refuse(RejectCode::OutOfRange);
                    }
                    self.stack.truncate(pieces.start);
                }
                None => {
                    self.written.raw = true;
                    self.out.extend_from_slice(b",\"value\":");
                    text::put_base64(self.out, &self.buffer[start..end]);
                }
            }
        }
        self.out.push(b'}');
        Ok(())
    }

    /// The members that an Any has beside its type.
    fn packed_message(&mut self, index: u32, pieces: Range<usize>, depth: u32) -> Result<(), RejectCode> {
        let types = self.types;
        let of = &types.types[index as usize];
        if of.form != JsonForm::Object {
            self.out.extend_from_slice(b",\"value\":");
            return self.message(index, pieces, depth);
        }
        let fields = self.collect(of, pieces, depth)?;
        self.members(of, fields, depth)
    }

    /// A varint that was skipped before.
    fn varint(&self, at: usize) -> u64 {
        wire::varint(self.buffer, at).map_or(0, |(value, _)| value)
    }

    /// The bits of a whole number, as its type tells numbers apart.
    fn number(&self, kind: Kind, at: usize) -> u64 {
        match kind {
            Kind::Bool => u64::from(self.varint(at) != 0),
            Kind::Int32 | Kind::Uint32 => u64::from(self.varint(at) as u32),
            Kind::Sint32 => u64::from(wire::zigzag32(self.varint(at)) as u32),
            Kind::Fixed32 | Kind::Sfixed32 | Kind::Float => u64::from(wire::load4(self.buffer, at)),
            Kind::Fixed64 | Kind::Sfixed64 | Kind::Double => wire::load8(self.buffer, at),
            Kind::Sint64 => wire::zigzag64(self.varint(at)) as u64,
            _ => self.varint(at),
        }
    }

    fn is_default(&self, value: Value, at: usize, end: usize) -> bool {
        match value {
            Value::Scalar(Kind::String | Kind::Bytes) => at == end,
            Value::Scalar(kind) => self.number(kind, at) == 0,
            Value::OpenEnum(_) | Value::ClosedEnum(_) | Value::Null => self.varint(at) as i32 == 0,
            Value::Message(_) | Value::Group(_) => false,
        }
    }

    /// A value that is no message.
    fn scalar(&mut self, value: Value, at: usize, end: usize) {
        match value {
            Value::Scalar(Kind::String) => text::put_string(self.out, &self.buffer[at..end]),
            Value::Scalar(Kind::Bytes) => text::put_base64(self.out, &self.buffer[at..end]),
            Value::Scalar(kind) => self.put_number(kind, self.number(kind, at)),
            Value::OpenEnum(names) | Value::ClosedEnum(names) => self.put_enum(names, self.varint(at) as i32),
            Value::Null => {
                self.written.raw |= self.varint(at) as i32 != 0;
                self.out.extend_from_slice(b"null");
            }
            Value::Message(_) | Value::Group(_) => {}
        }
    }

    fn default(&mut self, value: Value) {
        match value {
            Value::Scalar(Kind::String | Kind::Bytes) => self.out.extend_from_slice(b"\"\""),
            Value::Scalar(kind) => self.put_number(kind, 0),
            Value::OpenEnum(names) | Value::ClosedEnum(names) => self.put_enum(names, 0),
            Value::Null => self.out.extend_from_slice(b"null"),
            Value::Message(_) | Value::Group(_) => {}
        }
    }

    fn put_enum(&mut self, names: u32, number: i32) {
        match self.types.enums[names as usize].name(number) {
            Some(name) => text::put(self.out, format_args!("\"{name}\"")),
            None => text::put(self.out, format_args!("{number}")),
        }
    }

    fn put_number(&mut self, kind: Kind, bits: u64) {
        match kind {
            Kind::Bool => text::put(self.out, format_args!("{}", bits != 0)),
            Kind::Int32 | Kind::Sint32 | Kind::Sfixed32 => text::put(self.out, format_args!("{}", bits as i32)),
            Kind::Uint32 | Kind::Fixed32 => text::put(self.out, format_args!("{}", bits as u32)),
            Kind::Int64 | Kind::Sint64 | Kind::Sfixed64 => text::put(self.out, format_args!("\"{}\"", bits as i64)),
            Kind::Uint64 | Kind::Fixed64 => text::put(self.out, format_args!("\"{bits}\"")),
            // There are many NaNs, and one name for them.
            Kind::Float => {
                let number = f32::from_bits(bits as u32);
                self.written.raw |= number.is_nan() && number.to_bits() != f32::NAN.to_bits();
                text::put_float(self.out, number);
            }
            Kind::Double => {
                let number = f64::from_bits(bits);
                self.written.raw |= number.is_nan() && number.to_bits() != f64::NAN.to_bits();
                text::put_double(self.out, number);
            }
            Kind::String | Kind::Bytes | Kind::Enum(_) | Kind::Message(_) | Kind::Group(_) => {}
        }
    }
}

/// Which keys have no later one that is equal; no key counts never.
fn last_of_each(keys: Vec<Option<Key<'_>>>) -> Vec<bool> {
    if keys.len() <= 12 {
        let later = |at: usize| keys[at + 1..].contains(&keys[at]);
        return (0..keys.len()).map(|at| keys[at].is_some() && !later(at)).collect();
    }
    let mut seen = HashSet::with_capacity(keys.len());
    let mut counts: Vec<bool> = keys.into_iter().rev().map(|key| key.is_some_and(|key| seen.insert(key))).collect();
    counts.reverse();
    counts
}

/// Whether JSON writes numbers of the kind as strings.
fn is_quoted(kind: Kind) -> bool {
    matches!(kind, Kind::Int64 | Kind::Sint64 | Kind::Sfixed64 | Kind::Uint64 | Kind::Fixed64)
}
