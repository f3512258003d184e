//! Messages that end where a tag says so: groups, and a MessageSet's items.

use super::{ORDERED, Run, Stop, ok};
use crate::batch::RejectCode;
use crate::shred::message_set;
use crate::shred::plan::Field;
use crate::shred::wire::{self, DEPTH_MAX};

/// A group whose fields are being read.
#[derive(Clone, Copy, Debug)]
pub(super) struct Group {
    /// The field's number; no field has 0.
    number: u32,
    /// Messages around its fields.
    depth: u32,
    /// The position behind its end, once that was read.
    pub(super) end: usize,
}

impl Group {
    pub(super) const NONE: Group = Group { number: 0, depth: 0, end: 0 };

    pub(super) fn is(&self, number: u32, depth: u32) -> bool {
        (number, depth) == (self.number, self.depth)
    }
}

impl<'a> Run<'a, '_> {
    /// A group, whose end is where its fields end.
    #[inline(never)]
    pub(super) fn group(&mut self, field: &'a Field, at: usize, end: usize, row: usize, depth: u32) -> Option<usize> {
        if depth >= DEPTH_MAX {
            return self.stop(Stop::Malformed(RejectCode::TooDeep));
        }
        if !field.is_struct() {
            let (stop, next) = ok!(self, wire::group(self.buffer, at, end, field.number, depth + 1));
            self.leaf_field(field, field.content, at, stop, row, depth)?;
            return Some(next);
        }
        if !self.columns.touch(field.column as usize, row) {
            return self.stop(Stop::Irregular);
        }
        let group = Group { number: field.number, depth: depth + 1, end: 0 };
        let outer = std::mem::replace(&mut self.group, group);
        self.message::<ORDERED>(self.node(field.node), at, end, row, depth + 1)?;
        let next = std::mem::replace(&mut self.group, outer).end;
        if next == 0 { self.stop(Stop::Malformed(RejectCode::Truncated)) } else { Some(next) }
    }

    /// An item of the MessageSet that `field`, its pattern, is of; the position behind it.
    #[inline(never)]
    pub(super) fn item(&mut self, field: &Field, at: usize, end: usize, row: usize, depth: u32) -> Option<usize> {
        let plan = self.plan;
        let known = &plan.nodes[field.home as usize];
        let item = ok!(self, message_set::item(self.buffer, at, end, depth));
        self.raw |= item.unknown;
        match item.message.and_then(|message| Some((known.find_item(message.type_id)?, message))) {
            Some((index, message)) => {
                let field = &known.fields[index];
                self.value(field, field.op, message.at, message.end, row, depth + 1)?;
            }
            None => self.raw = true,
        }
        Some(item.next)
    }
}
