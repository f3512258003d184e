//! Members of oneofs, and values of closed enumerations, which may turn out to be none.

use super::{Run, Stop, of_scalar, ok, varint};
use crate::shred::columns::Oneof;
use crate::shred::plan::{Field, NONE, Op};
use crate::shred::unchecked;
use crate::shred::wire;

impl<'a> Run<'a, '_> {
    /// The value of a oneof's member.
    #[inline(never)]
    pub(super) fn member(&mut self, field: &'a Field, at: usize, end: usize, row: usize, depth: u32) -> Option<usize> {
        if field.element == Op::EnumClosed {
            return self.closed(field, at, end, row);
        }
        if field.element.is_skip() {
            return self.skipped(field, at, end, row, depth);
        }
        if !self.choose(field, row) {
            return self.stop(Stop::Irregular);
        }
        of_scalar!(
            field.element,
            |op| self.scalar(self.ends(), field, op, at, end, row),
            self.value(field, field.element, at, end, row, depth)
        )
    }

    /// Makes a field its oneof's member; false if the row has another one.
    #[inline(always)]
    pub(super) fn choose(&mut self, field: &Field, row: usize) -> bool {
        let oneof = unchecked::slot(&mut self.columns.oneofs, field.oneof as usize);
        if oneof.row == row {
            return oneof.member == field.number;
        }
        oneof.row = row;
        oneof.member = field.number;
        if oneof.case != Oneof::NO_CASE {
            self.columns.i32s[oneof.case as usize].put(row, field.number as i32);
        }
        true
    }

    /// A member of a oneof that no column is wanted of.
    #[inline(never)]
    fn skipped(&mut self, field: &'a Field, at: usize, end: usize, row: usize, depth: u32) -> Option<usize> {
        self.raw = true;
        let next = ok!(self, wire::skip(self.buffer, at, end, field.number << 3 | field.element.wire(), depth));
        let is_member = field.inner != Op::EnumClosed || {
            let (value, _) = varint!(self, at, end);
            self.plan.names(field).has(value as i32)
        };
        if is_member && !self.choose(field, row) {
            return self.stop(Stop::Irregular);
        }
        Some(next)
    }

    /// A closed enumeration's value; a number without a name is an unknown field, and no member of a oneof.
    #[inline(never)]
    pub(super) fn closed(&mut self, field: &'a Field, at: usize, end: usize, row: usize) -> Option<usize> {
        let (value, next) = varint!(self, varint32, self.buffer, at, end);
        if !self.plan.names(field).has(value as i32) {
            if self.node(field.home).key.is_some() {
                // The whole entry of a map is an unknown field.
                return self.stop(Stop::Irregular);
            }
            self.raw = true;
        } else if field.oneof != NONE && !self.choose(field, row) {
            return self.stop(Stop::Irregular);
        } else {
            self.slots.put(field.slot, row, value as i32);
        }
        Some(next)
    }
}
