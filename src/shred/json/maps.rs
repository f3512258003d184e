//! Maps as JSON: an object with a member for the last entry of each key.

use std::collections::HashSet;
use std::ops::Range;

use super::super::wire;
use super::types::{Type, Value};
use super::write::{Occurrence, Writer};
use crate::batch::RejectCode;
use crate::schema::model::Kind;

#[derive(PartialEq, Eq, Hash)]
enum Key<'a> {
    Number(u64),
    Text(&'a [u8]),
}

impl<'a> Writer<'a> {
    /// The entries of a map; the last one of a key counts.
    pub(super) fn entries(&mut self, entry: u32, occurrences: Range<usize>, depth: u32) -> Result<(), RejectCode> {
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
