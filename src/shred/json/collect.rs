//! The fields of a message as the wire has them: in any order, in pieces, members of oneofs that others clear.

use std::ops::Range;

use super::super::message_set;
use super::super::plan::NONE;
use super::super::wire::{self, DEPTH_MAX};
use super::types::{How, Type, Value};
use super::write::{Occurrence, Writer};
use crate::batch::RejectCode;
use crate::schema::model::Kind;

impl<'a> Writer<'a> {
    /// The fields of a message by number, each with its occurrences in their order, on top of the stack.
    pub(super) fn collect(
        &mut self,
        of: &'a Type,
        pieces: Range<usize>,
        depth: u32,
    ) -> Result<Range<usize>, RejectCode> {
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
}
