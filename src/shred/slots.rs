//! Columns by number: where the interpreter puts a scalar, without a look at which kind of column it is.

use super::columns::{Columns, Primitive};
use super::marks::Marks;
use super::plan::ColumnRef;
use super::unchecked::{self, SlotAt};

impl<T: Copy + Default> Primitive<T> {
    /// Where its values are; `unmarked` takes the marks that nobody asks for.
    fn slot(&mut self, unmarked: &mut Marks) -> unchecked::Slot {
        let marks = if self.marked { &mut self.present } else { unmarked };
        unchecked::Slot::new(&mut self.values, marks)
    }
}

impl Columns {
    /// After vectors have grown.
    pub(super) fn find_slots(&mut self) {
        let Columns { bools, i32s, i64s, i128s, f32s, f64s, texts, structs, slots, unmarked, .. } = self;
        slots.clear();
        slots.extend(bools.iter_mut().map(|column| column.slot(unmarked)));
        slots.extend(i32s.iter_mut().map(|column| column.slot(unmarked)));
        slots.extend(i64s.iter_mut().map(|column| column.slot(unmarked)));
        slots.extend(i128s.iter_mut().map(|column| column.slot(unmarked)));
        slots.extend(f32s.iter_mut().map(|column| column.slot(unmarked)));
        slots.extend(f64s.iter_mut().map(|column| column.slot(unmarked)));
        slots.extend(unchecked::text_slots(texts));
        slots.extend(structs.iter_mut().map(|column| unchecked::Slot::of_marks(&mut column.present)));
    }

    /// The slot of a column that is no list. Follows from how many columns there are of each kind: to be asked when the
    /// plan is complete.
    pub fn slot(&self, column: ColumnRef) -> SlotAt {
        let kinds = [
            self.bools.len(),
            self.i32s.len(),
            self.i64s.len(),
            self.i128s.len(),
            self.f32s.len(),
            self.f64s.len(),
            self.texts.len(),
        ];
        let (kind, index) = match column {
            ColumnRef::Bool(index) => (0, index),
            ColumnRef::I32(index) => (1, index),
            ColumnRef::I64(index) => (2, index),
            ColumnRef::I128(index) => (3, index),
            ColumnRef::F32(index) => (4, index),
            ColumnRef::F64(index) => (5, index),
            ColumnRef::Text(index) => (6, index),
            ColumnRef::Struct(index) => (7, index),
            ColumnRef::List(_) => return SlotAt::NONE,
        };
        SlotAt::new(kinds[..kind].iter().sum::<usize>() + index as usize)
    }

    /// Keeps marks of a column, though it has no nulls.
    pub fn mark(&mut self, column: ColumnRef) {
        match column {
            ColumnRef::Bool(index) => self.bools[index as usize].marked = true,
            ColumnRef::I32(index) => self.i32s[index as usize].marked = true,
            ColumnRef::I64(index) => self.i64s[index as usize].marked = true,
            ColumnRef::I128(index) => self.i128s[index as usize].marked = true,
            ColumnRef::F32(index) => self.f32s[index as usize].marked = true,
            ColumnRef::F64(index) => self.f64s[index as usize].marked = true,
            ColumnRef::Text(_) | ColumnRef::Struct(_) | ColumnRef::List(_) => {}
        }
    }
}
