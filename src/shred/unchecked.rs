//! Memory accesses without a bounds check: all of the interpreter's unsafe code.
//!
//! Each function states what its caller must see to, and checks it in debug builds; the tests of columns, wire
//! format and this module run under Miri (`just miri`).

use std::marker::PhantomData;
use std::mem::MaybeUninit;
use std::ptr::null_mut;
use std::sync::atomic::{AtomicBool, Ordering};

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
    data: *mut Vec<u8>,
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

    fn of_text(lengths: &mut Vec<i32>, data: *mut Vec<u8>) -> Slot {
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

/// Puts a value into a row of a column, over the one that it may have, and marks it.
#[inline(always)]
pub fn put<T: Copy>(slots: &mut [Slot], index: usize, row: usize, value: T) {
    let slot = slot(slots, index);
    debug_assert!(row < slot.room as usize, "row {row} of {}", slot.room);
    debug_assert_eq!(size_of::<T>(), slot.width as usize);
    // SAFETY: `Columns::make_room_in` makes the slots after the vectors have grown, and before the interpreter has a row of
    // theirs; a field's slot is that of its op's kind, by `Field::value_column`: no text's, which has no marks. Vectors
    // are taken from `Columns` when a batch ends, and room is made before the next one's first row.
    unsafe {
        slot.values.cast::<T>().add(row).write(value);
        slot.marks.add(row).write(1);
    }
}

/// Puts `buffer[at..at + length]` into a row of a text, unless it has a value; whether it had none. [`CHUNK`] bytes behind
/// the value must be readable.
#[inline(always)]
pub fn put_text(slots: &mut [Slot], index: usize, row: usize, buffer: &[u8], at: usize, length: usize) -> bool {
    let slot = slot(slots, index);
    debug_assert!(row < slot.room as usize, "row {row} of {}", slot.room);
    debug_assert!(!slot.data.is_null());
    // SAFETY: as in `put`. The texts themselves stay where they are, as none is added after the plan was compiled.
    unsafe {
        let place = slot.values.cast::<i32>().add(row);
        if place.read() != 0 {
            return false;
        }
        place.write(Lengths::marked(length));
        append(&mut *slot.data, buffer, at, length);
    }
    true
}

/// What a table of the plan's has at an index.
#[inline(always)]
pub fn get<T>(table: &[T], index: usize) -> &T {
    debug_assert!(index < table.len(), "{index} of {}", table.len());
    // SAFETY: `Plan::compile` makes the indexes of nodes when it pushes these, `next` and the tables of tags from the
    // indexes of the node's own fields, of which there is at least the end, and `dense` at least 128 entries long, one
    // for each tag of a byte. A map's entry has a key and a value.
    unsafe { table.get_unchecked(index) }
}

/// A place in a table of fields that ends in a mark, from which one can step on.
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
        // stand before their node's end, which matches no tag.
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
        // SAFETY: the interpreter goes back to a depth only from one more, which it came to by putting a frame there.
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

/// Bytes that [`append`] copies at a time, and may read behind a value.
pub const CHUNK: usize = 32;

/// Values up to here are copied in chunks; longer ones are worth a call of `memcpy`.
const CHUNKED_MAX: usize = 128;

/// Appends `buffer[at..at + length]`; `CHUNK` more bytes behind it must be readable.
#[inline(always)]
pub fn append(data: &mut Vec<u8>, buffer: &[u8], at: usize, length: usize) {
    debug_assert!(at + length + CHUNK <= buffer.len(), "{length} bytes at {at} of {}", buffer.len());
    if data.capacity() - data.len() < length + CHUNK {
        grow(data, length + CHUNK);
    }
    // SAFETY: source and destination have `length + CHUNK` bytes, the one by the caller's word, the other because they
    // were reserved; they are different allocations, since `data` is borrowed alone. The first `length` of the new bytes
    // are written before they become part of `data`.
    unsafe {
        let from = buffer.as_ptr().add(at);
        let to = data.as_mut_ptr().add(data.len());
        // A copy of known size is a few instructions; most values need but one.
        to.cast::<[u8; CHUNK]>().write(from.cast::<[u8; CHUNK]>().read());
        if length > CHUNKED_MAX {
            from.copy_to_nonoverlapping(to, length);
        } else {
            let mut done = CHUNK;
            while done < length {
                to.add(done).cast::<[u8; CHUNK]>().write(from.add(done).cast::<[u8; CHUNK]>().read());
                done += CHUNK;
            }
        }
        data.set_len(data.len() + length);
    }
}

#[cold]
#[inline(never)]
fn grow(data: &mut Vec<u8>, bytes: usize) {
    data.reserve(bytes);
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

    #[test]
    fn appends_values_of_any_length() {
        let buffer: Vec<u8> = (0..1000).map(|index| index as u8).collect();
        let mut data = Vec::new();
        let mut expected = Vec::new();
        for length in (0..300).chain([0, 1, 968]) {
            append(&mut data, &buffer, 0, length);
            expected.extend_from_slice(&buffer[..length]);
            assert_eq!(data, expected, "{length}");
        }
    }
}
