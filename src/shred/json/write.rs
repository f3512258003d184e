//! The interpreter of JSON columns: a message's bytes into text. `collect` finds a message's fields on the wire, `maps`
//! writes entries, `scalar` what is no message.

use std::ops::Range;

use super::super::well_known;
use super::super::wire;
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
pub(super) struct Occurrence {
    /// Index into the type's fields.
    pub(super) field: u16,
    /// Elements of a packed list.
    pub(super) packed: bool,
    pub(super) alive: bool,
    /// The value: of a length-delimited one and of a group what is inside.
    pub(super) start: usize,
    pub(super) end: usize,
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

pub(super) struct Writer<'a> {
    pub(super) types: &'a Types,
    pub(super) buffer: &'a [u8],
    pub(super) out: &'a mut Vec<u8>,
    /// The fields of the messages that are being written, innermost last.
    pub(super) stack: &'a mut Vec<Occurrence>,
    pub(super) written: Written,
}

impl<'a> Writer<'a> {
    pub(super) fn refuse(&mut self, code: RejectCode) {
        self.written.refused.get_or_insert(code);
    }

    /// A message's bytes on the stack, as [`message`](Self::message) takes them.
    pub(super) fn push_piece(&mut self, start: usize, end: usize) -> Range<usize> {
        let at = self.stack.len();
        self.stack.push(Occurrence { field: 0, packed: false, alive: true, start, end });
        at..at + 1
    }

    /// The message that these pieces (a range of the stack) merge into.
    pub(super) fn message(&mut self, index: u32, pieces: Range<usize>, depth: u32) -> Result<(), RejectCode> {
        let types = self.types;
        let of = &types.types[index as usize];
        let fields = self.collect(of, pieces, depth)?;
        self.value_of(of, fields.clone(), depth)?;
        self.stack.truncate(fields.start);
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
    pub(super) fn comma(&mut self) {
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
        let bytes = |wanted: u16| {
            let found = self.stack[fields.clone()].iter().rfind(|occurrence| occurrence.field == wanted);
            found.map_or((0, 0), |occurrence| (occurrence.start, occurrence.end))
        };
        debug_assert_eq!(of.fields.len(), 2);
        let (url, (start, end)) = (bytes(0), bytes(1));
        let url = &self.buffer[url.0..url.1];
        self.out.push(b'{');
        // Fields that the wire has empty are as good as absent.
        if !url.is_empty() || start < end {
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
}
