//! Lists whose elements have a tag each.

use super::{Run, Stop, of_scalar, varint};
use crate::shred::plan::{Field, Op};
use crate::shred::wire;

impl<'a> Run<'a, '_> {
    /// Elements one by one, as long as the same tag follows; the position behind them.
    #[inline(never)]
    pub(super) fn repeated(
        &mut self,
        field: &'a Field,
        mut at: usize,
        end: usize,
        row: usize,
        depth: u32,
    ) -> Option<usize> {
        let list = field.list as usize;
        macro_rules! elements {
            (|$element:ident| $value:expr) => {
                loop {
                    let $element = self.columns.element(list, row);
                    at = $value?;
                    if !self.follows(field, at, end) {
                        return Some(at);
                    }
                    at += field.tag_bytes as usize;
                }
            };
        }
        if field.element == Op::EnumClosed {
            return self.closed_elements(field, at, end, row);
        }
        of_scalar!(
            field.element,
            |op| elements!(|element| self.scalar(self.ends(), field, op, at, end, element)),
            elements!(|element| self.value(field, field.element, at, end, element, depth))
        )
    }

    /// Whether the field's tag comes next.
    #[inline(always)]
    pub(super) fn follows(&self, field: &Field, at: usize, end: usize) -> bool {
        at < end && (wire::load8(self.buffer, at) ^ field.tag) & field.mask == 0
    }

    /// The same for a closed enumeration, of which a number without a name is an unknown field, not an element.
    fn closed_elements(&mut self, field: &'a Field, mut at: usize, end: usize, row: usize) -> Option<usize> {
        let names = self.plan.names(field);
        loop {
            let (value, next) = varint!(self, varint32, self.buffer, at, end);
            if names.has(value as i32) {
                let element = self.columns.element(field.list as usize, row);
                self.slots.put(field.slot, element, value as i32);
            } else {
                self.raw = true;
            }
            at = next;
            if !self.follows(field, at, end) {
                return Some(at);
            }
            at += field.tag_bytes as usize;
        }
    }
}
