//! Memory accesses without a bounds check: all of the interpreter's unsafe code, but for texts' bytes (`bytes`).
//!
//! Each function states what its caller must see to, and checks it in debug builds; the tests of columns, wire
//! format and this module run under Miri (`just miri`).

use std::marker::PhantomData;
use std::mem::MaybeUninit;
use std::ptr::null_mut;
use std::sync::atomic::{AtomicBool, Ordering};

use super::bytes::Bytes;
use super::marks::Marks;
use super::text::{Lengths, Text};

/// A readable copy of `N` bytes at `at`, which must lie inside the buffer.
#[inline(always)]
pub fn load<const N: usize>(buffer: &[u8], at: usize) -> [u8; N] {
    debug_assert!(at + N <= buffer.len(), "{N} bytes at {at} of {}", buffer.len());
    // SAFETY: the bytes are inside the buffer, says the caller: positions come from `Shredder::record`, which hands over
    // messages that PADDING bytes follow; a primitive starts at most SLACK bytes behind its message's end, because it
    // stands behind a tag that starts inside, and SLACK + N <= PADDING.
    unsafe { buffer.as_ptr().add(at).cast::<[u8; N]>().read() }
}

/// The slot at an index that exists: a row that there is room for, or a column of the plan's.
#[inline(always)]
pub fn slot<T>(slots: &mut [T], index: usize) -> &mut T {
    debug_assert!(index < slots.len(), "slot {index} of {}", slots.len());
    // SAFETY: `Shredder::block` makes room for the block's rows, `Columns::element` for each element, before either is
    // the interpreter's row. A field's column was made together with the field, by `Plan::compile`.
    unsafe { slots.get_unchecked_mut(index) }
}

/// Where a column's values and marks are, until room is made anew.
#[derive(Clone, Copy, Debug)]
pub struct Slot {
    /// Of a text, its lengths.
    values: *mut u8,
    /// Of a text, none.
    marks: *mut u8,
    /// A text's bytes.
    data: *mut Bytes,
    /// Rows that there is room for, and bytes of a value: what debug builds check.
    room: u32,
    width: u32,
}

// SAFETY: its pointers lead into the vectors of the `Columns` that it belongs to, which are sent along with it, and which
// alone follow them, under a mutable borrow of their own.
unsafe impl Send for Slot {}

impl Slot {
    pub fn new<T: Copy>(values: &mut Vec<T>, marks: &mut Marks) -> Slot {
        let (marks, room) = marks.place();
        let room = values.len().min(room).min(u32::MAX as usize) as u32;
        Slot { values: values.as_mut_ptr().cast(), marks, data: null_mut(), room, width: size_of::<T>() as u32 }
    }

    /// Of a struct, which has marks alone.
    pub fn of_marks(marks: &mut Marks) -> Slot {
        let (marks, room) = marks.place();
        Slot { values: null_mut(), marks, data: null_mut(), room: room.min(u32::MAX as usize) as u32, width: 0 }
    }

    fn of_text(lengths: &mut Vec<i32>, data: *mut Bytes) -> Slot {
        let room = lengths.len().min(u32::MAX as usize) as u32;
        Slot { values: lengths.as_mut_ptr().cast(), marks: null_mut(), data, room, width: 0 }
    }
}

/// The slots of texts. Of the vector, not of a slice: pointers that come from a slice end with the next one that is made.
pub fn text_slots(texts: &mut Vec<Text>) -> impl Iterator<Item = Slot> {
    let (first, count) = (texts.as_mut_ptr(), texts.len());
    (0..count).map(move |index| {
        // SAFETY: the index is the vector's, and nothing else borrows it.
        unsafe {
            let text = first.add(index);
            Slot::of_text((*text).lengths.rows(), &raw mut (*text).data)
        }
    })
}

/// Where a slot is among all of them: bytes, which take no multiplication.
#[derive(Clone, Copy, Debug)]
pub struct SlotAt(u32);

impl SlotAt {
    pub const NONE: SlotAt = SlotAt(u32::MAX);

    pub fn new(index: usize) -> SlotAt {
        SlotAt(u32::try_from(index * size_of::<Slot>()).unwrap_or(u32::MAX))
    }
}

/// All slots of the `Columns` that are borrowed for as long: in a register, while the columns themselves are asked for
/// more room.
#[derive(Clone, Copy)]
pub struct Slots<'a> {
    first: *mut Slot,
    columns: PhantomData<&'a mut [Slot]>,
    #[cfg(debug_assertions)]
    count: usize,
}

impl Slots<'_> {
    /// Of the vector, not of a slice, as in [`text_slots`]. It must not move until the columns are free again:
    /// `Columns::find_slots` fills it anew with as many slots as it had when the plan was compiled.
    pub fn new(slots: &mut Vec<Slot>) -> Self {
        Slots {
            first: slots.as_mut_ptr(),
            columns: PhantomData,
            #[cfg(debug_assertions)]
            count: slots.len(),
        }
    }

    #[inline(always)]
    fn get(self, at: SlotAt) -> Slot {
        #[cfg(debug_assertions)]
        assert!((at.0 as usize) < self.count * size_of::<Slot>(), "slot at {at:?} of {}", self.count);
        // SAFETY: a field's slot was made together with the field, by `Plan::compile`; the vector stays where it is, by
        // `new`.
        unsafe { self.first.byte_add(at.0 as usize).read() }
    }

    /// Puts a value into a row of a column, that there is room for, over the one that it may have, and marks it.
    #[inline(always)]
    pub fn put<T: Copy>(self, at: SlotAt, row: usize, value: T) {
        let slot = self.get(at);
        debug_assert!(row < slot.room as usize, "row {row} of {}", slot.room);
        debug_assert_eq!(size_of::<T>(), slot.width as usize);
        // SAFETY: `Columns::make_room_in` makes the slots after the vectors have grown, and before the interpreter has a
        // row of theirs; a field's slot is that of its op's kind, by `Field::value_column`: no text's, which has no
        // marks. Vectors are taken from `Columns` when a batch ends, and room is made before the next one's first row.
        unsafe {
            slot.values.cast::<T>().add(row).write(value);
            slot.marks.add(row).write(1);
        }
    }

    /// Marks a row of a column that there is room for, and that is not marked.
    #[inline(always)]
    pub fn mark(self, at: SlotAt, row: usize) {
        let slot = self.get(at);
        debug_assert!(row < slot.room as usize, "row {row} of {}", slot.room);
        debug_assert!(!slot.marks.is_null());
        // SAFETY: as in `put`.
        unsafe {
            let mark = slot.marks.add(row);
            debug_assert_eq!(mark.read(), 0, "row {row} is marked");
            mark.write(1);
        }
    }

    /// Marks a row of a column that there is room for; whether it was not.
    #[inline(always)]
    pub fn mark_first(self, at: SlotAt, row: usize) -> bool {
        let slot = self.get(at);
        debug_assert!(row < slot.room as usize, "row {row} of {}", slot.room);
        debug_assert!(!slot.marks.is_null());
        // SAFETY: as in `put`.
        unsafe { slot.marks.add(row).replace(1) == 0 }
    }

    /// Puts `buffer[at..at + length]` into a row of a text, that there is room for, unless it has a value; whether it had
    /// none. [`CHUNK`](super::bytes::CHUNK) bytes behind the value must be readable.
    #[inline(always)]
    pub fn put_text(self, at_slot: SlotAt, row: usize, buffer: &[u8], at: usize, length: usize) -> bool {
        let slot = self.get(at_slot);
        debug_assert!(row < slot.room as usize, "row {row} of {}", slot.room);
        debug_assert!(!slot.data.is_null());
        // SAFETY: as in `put`.
        if unsafe { slot.values.cast::<i32>().add(row).read() } != 0 {
            return false;
        }
        self.put_first_text(at_slot, row, buffer, at, length);
        true
    }

    /// The same for a row that has no value: not to look takes a tenth off the time of a record of texts.
    #[inline(always)]
    pub fn put_first_text(self, slot: SlotAt, row: usize, buffer: &[u8], at: usize, length: usize) {
        let slot = self.get(slot);
        debug_assert!(row < slot.room as usize, "row {row} of {}", slot.room);
        debug_assert!(!slot.data.is_null());
        // SAFETY: as in `put`. The texts themselves stay where they are, as none is added after the plan was compiled.
        unsafe {
            let place = slot.values.cast::<i32>().add(row);
            debug_assert_eq!(place.read(), 0, "row {row} has a text");
            place.write(Lengths::marked(length));
            (*slot.data).append(buffer, at, length);
        }
    }
}

/// What a table of the plan's has at an index.
#[inline(always)]
pub fn get<T>(table: &[T], index: usize) -> &T {
    debug_assert!(index < table.len(), "{index} of {}", table.len());
    // SAFETY: `Plan::compile` makes the indexes of nodes when it pushes these, `next` and the tables of tags from the
    // indexes of the node's own fields, of which there is at least the end, a map's `entry` from those of the node's
    // `entries`, and `dense` at least 128 entries long, one for each tag of a byte. A map's entry has a key and a value;
    // an enumeration that fields are of is pushed before these; a table by hash has an entry for every value of its hash.
    unsafe { table.get_unchecked(index) }
}

/// A place in a table of fields; from one in a table that ends in a mark one can step on.
#[derive(Debug)]
pub struct Place<'a, T> {
    at: *const T,
    table: PhantomData<&'a [T]>,
}

impl<T> Clone for Place<'_, T> {
    fn clone(&self) -> Self {
        *self
    }
}

impl<T> Copy for Place<'_, T> {}

impl<'a, T> Place<'a, T> {
    /// The place of an index that the table has.
    #[inline(always)]
    pub fn new(table: &'a [T], index: usize) -> Self {
        debug_assert!(index < table.len(), "field {index} of {}", table.len());
        // SAFETY: as in `get`.
        Place { at: unsafe { table.as_ptr().add(index) }, table: PhantomData }
    }

    #[inline(always)]
    pub fn get(self) -> &'a T {
        // SAFETY: the table is borrowed for as long, and the place is one of its own: `new` made it from an index that
        // exists, and `next` goes no further than the mark.
        unsafe { &*self.at }
    }

    /// The place behind that of a field which stands before the table's mark.
    #[inline(always)]
    pub fn next(self) -> Self {
        // SAFETY: the interpreter steps on only from fields that it has just read by their first encoding. All of these
        // stand before their node's end, which matches no tag. From a map's entry, whose table has no such end, it goes to
        // another place of the node's own fields.
        Place { at: unsafe { self.at.add(1) }, table: PhantomData }
    }
}

/// A stack whose user knows where its top is.
pub struct Stack<T, const N: usize> {
    places: [MaybeUninit<T>; N],
    /// A bit for each place that was put.
    #[cfg(debug_assertions)]
    put: u128,
}

impl<T: Copy, const N: usize> Stack<T, N> {
    #[inline(always)]
    pub fn new() -> Self {
        Stack {
            places: [const { MaybeUninit::uninit() }; N],
            #[cfg(debug_assertions)]
            put: 0,
        }
    }

    #[inline(always)]
    pub fn put(&mut self, place: usize, value: T) {
        self.places[place] = MaybeUninit::new(value);
        #[cfg(debug_assertions)]
        {
            self.put |= 1 << place;
        }
    }

    /// What was put there last.
    #[inline(always)]
    pub fn get(&self, place: usize) -> T {
        #[cfg(debug_assertions)]
        assert!(self.put & 1 << place != 0, "nothing was put at {place}");
        // SAFETY: the interpreter goes back to a depth only from one more, which it came to by putting a frame there; keys
        // are compared with those before them, each of which was put when it came.
        unsafe { self.places.get_unchecked(place).assume_init() }
    }
}

/// Whether [`extract`] has its instruction: [`look_for_pext`] has found it.
static HAS_PEXT: AtomicBool = AtomicBool::new(false);

/// Looks whether the processor gathers bits in one instruction of a few cycles. AMD's before Zen 3 take hundreds for it;
/// these have neither of the other two features.
pub fn look_for_pext() {
    #[cfg(all(target_arch = "x86_64", not(miri)))]
    if is_x86_feature_detected!("bmi2") && (is_x86_feature_detected!("vaes") || is_x86_feature_detected!("avx512f")) {
        HAS_PEXT.store(true, Ordering::Relaxed);
    }
}

/// The bits of `word` that `mask` has, closed up; none if the processor has no instruction for it.
#[inline(always)]
pub fn extract(word: u64, mask: u64) -> Option<u64> {
    if !HAS_PEXT.load(Ordering::Relaxed) {
        return None;
    }
    #[cfg(all(target_arch = "x86_64", not(miri)))]
    {
        let bits;
        // SAFETY: the processor has the instruction, which works on registers alone. As assembly, because the intrinsic
        // would be a call from a function that is compiled for every processor.
        unsafe {
            std::arch::asm!(
                "pext {bits}, {word}, {mask}",
                bits = lateout(reg) bits,
                word = in(reg) word,
                mask = in(reg) mask,
                options(pure, nomem, nostack, preserves_flags)
            );
        }
        Some(bits)
    }
    #[cfg(not(all(target_arch = "x86_64", not(miri))))]
    {
        _ = (word, mask);
        None
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn steps_from_place_to_place() {
        let table = [1, 2, 3];
        let place = Place::new(&table, 1);
        assert_eq!((*place.get(), *place.next().get()), (2, 3));
    }
}
