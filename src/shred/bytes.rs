//! The bytes of a column of texts under construction.

use std::mem::ManuallyDrop;
use std::ops::Deref;
use std::ptr::null_mut;

/// Bytes that [`Bytes::append`] copies at a time, and may read behind a value.
pub const CHUNK: usize = 32;

/// Values up to here are short: copied in chunks. Longer ones are worth a call.
const SHORT_MAX: usize = 127;

/// Values from here on are expected to be followed by others as long, of which up to so many bytes are loaded ahead.
const EXPECTED_MIN: usize = 512;
const EXPECTED_MAX: usize = 8192;

const CACHE_LINE: usize = 64;

/// What must be free for a short value.
const ROOM: usize = SHORT_MAX + CHUNK;

/// A vector that knows up to where a short value may start: to append one takes a single comparison, and one number
/// that is written.
#[derive(Debug)]
pub struct Bytes {
    start: *mut u8,
    /// Behind the last byte.
    next: *mut u8,
    /// The last place with [`ROOM`] behind it, or null if there is none.
    limit: *mut u8,
    capacity: usize,
}

// SAFETY: they are a vector's, which `take` makes of them again: nothing else leads to its memory.
unsafe impl Send for Bytes {}

impl Default for Bytes {
    fn default() -> Self {
        Vec::new().into()
    }
}

impl From<Vec<u8>> for Bytes {
    fn from(bytes: Vec<u8>) -> Self {
        let mut bytes = ManuallyDrop::new(bytes);
        let (start, capacity) = (bytes.as_mut_ptr(), bytes.capacity());
        let limit = capacity.checked_sub(ROOM).map_or(null_mut(), |last| start.wrapping_add(last));
        Bytes { start, next: start.wrapping_add(bytes.len()), limit, capacity }
    }
}

impl Drop for Bytes {
    fn drop(&mut self) {
        self.take();
    }
}

impl Deref for Bytes {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        // SAFETY: all bytes before `next` were written.
        unsafe { std::slice::from_raw_parts(self.start, self.len()) }
    }
}

impl Bytes {
    pub fn len(&self) -> usize {
        self.next.addr() - self.start.addr()
    }

    /// All bytes; leaves none.
    pub fn take(&mut self) -> Vec<u8> {
        let taken = ManuallyDrop::new(std::mem::take(self));
        // SAFETY: the parts of the vector that it was made of, all of whose bytes before `next` were written; it is not
        // dropped itself.
        unsafe { Vec::from_raw_parts(taken.start, taken.len(), taken.capacity) }
    }

    /// Works on the vector; its bytes are lost if that panics.
    pub fn with<R>(&mut self, work: impl FnOnce(&mut Vec<u8>) -> R) -> R {
        let mut bytes = self.take();
        let result = work(&mut bytes);
        *self = bytes.into();
        result
    }

    pub fn truncate(&mut self, length: usize) {
        self.next = self.start.wrapping_add(length.min(self.len()));
    }

    /// Appends `buffer[at..at + length]`; `CHUNK` more bytes behind it must be readable.
    #[inline(always)]
    pub fn append(&mut self, buffer: &[u8], at: usize, length: usize) {
        debug_assert!(at + length + CHUNK <= buffer.len(), "{length} bytes at {at} of {}", buffer.len());
        if length > SHORT_MAX {
            return self.extend_from_slice(&buffer[at..at + length]);
        }
        if self.next > self.limit {
            self.grow();
        }
        // SAFETY: source and destination have `length + CHUNK` bytes, the one by the caller's word, the other by `limit`; they
        // are different allocations, since this one is borrowed alone. The first `length` of the new bytes are written
        // before `next` is behind them.
        self.next = unsafe { copy(buffer.as_ptr().add(at), self.next, length) };
    }

    #[inline(never)]
    pub fn extend_from_slice(&mut self, value: &[u8]) {
        if self.capacity - self.len() < value.len() {
            return self.with(|bytes| bytes.extend_from_slice(value));
        }
        // SAFETY: there is as much room; the value is borrowed from elsewhere, as this is borrowed alone.
        unsafe {
            let behind = self.next.add(value.len());
            if value.len() >= EXPECTED_MIN {
                expect(value.as_ptr_range().end, behind, value.len());
            }
            self.next.copy_from_nonoverlapping(value.as_ptr(), value.len());
            self.next = behind;
        }
    }

    /// Room for parts of `buffer` that come to at most so many bytes; `CHUNK` bytes behind each must be readable.
    pub fn appender<'a>(&'a mut self, buffer: &'a [u8], bytes: usize) -> Appender<'a> {
        if self.capacity - self.len() < bytes + CHUNK {
            self.with(|vector| vector.reserve(bytes + CHUNK));
        }
        Appender {
            next: self.next,
            #[cfg(debug_assertions)]
            room: bytes,
            bytes: self,
            buffer,
        }
    }

    #[cold]
    #[inline(never)]
    fn grow(&mut self) {
        self.with(|bytes| bytes.reserve(ROOM));
    }
}

/// Appends parts of a buffer to [`Bytes`], for which there is room.
pub struct Appender<'a> {
    bytes: &'a mut Bytes,
    buffer: &'a [u8],
    /// As in `bytes`, which gets it back in the end.
    next: *mut u8,
    #[cfg(debug_assertions)]
    room: usize,
}

impl Appender<'_> {
    /// Bytes in all, with those that were there before.
    #[inline(always)]
    pub fn len(&self) -> usize {
        self.next.addr() - self.bytes.start.addr()
    }

    /// Appends so many bytes of the buffer from `at` on. The caller has asked for as much room.
    #[inline(always)]
    pub fn append(&mut self, at: usize, length: usize) {
        self.take_room(length);
        debug_assert!(at + length + CHUNK <= self.buffer.len(), "{length} bytes at {at} of {}", self.buffer.len());
        // SAFETY: source and destination have `length + CHUNK` bytes, by the caller's word; see `Bytes::append`.
        self.next = unsafe { copy(self.buffer.as_ptr().add(at), self.next, length) };
    }

    /// Appends other bytes, of which the same holds.
    pub fn append_other(&mut self, value: &[u8]) {
        self.take_room(value.len());
        // SAFETY: there is room for them, by the caller's word; they are borrowed from elsewhere.
        unsafe {
            self.next.copy_from_nonoverlapping(value.as_ptr(), value.len());
            self.next = self.next.add(value.len());
        }
    }

    #[inline(always)]
    fn take_room(&mut self, length: usize) {
        #[cfg(debug_assertions)]
        {
            self.room = self.room.checked_sub(length).expect("the caller has asked for as much room");
        }
        _ = length;
    }
}

impl Drop for Appender<'_> {
    fn drop(&mut self) {
        self.bytes.next = self.next;
    }
}

/// Makes the processor load what is likely copied next: as many bytes behind a long value, from there to the place behind
/// its copy. It guesses such reads and writes by itself, but not across pages, of which each value may have its own.
fn expect(from: *const u8, to: *const u8, length: usize) {
    #[cfg(all(target_arch = "x86_64", not(miri)))]
    for at in (0..length.min(EXPECTED_MAX)).step_by(CACHE_LINE) {
        // SAFETY: a hint, which may name any address at all.
        unsafe {
            use std::arch::x86_64::{_MM_HINT_T0, _mm_prefetch};
            _mm_prefetch::<_MM_HINT_T0>(from.wrapping_add(at).cast());
            _mm_prefetch::<_MM_HINT_T0>(to.wrapping_add(at).cast());
        }
    }
    #[cfg(not(all(target_arch = "x86_64", not(miri))))]
    {
        _ = (from, to, length);
    }
}

/// Copies `length` bytes, and up to [`CHUNK`] more, which source and destination must have; the place behind them.
#[inline(always)]
unsafe fn copy(from: *const u8, to: *mut u8, length: usize) -> *mut u8 {
    // SAFETY: by the caller's word.
    unsafe {
        // A copy of known size is a few instructions; most values need but one.
        to.cast::<[u8; CHUNK]>().write(from.cast::<[u8; CHUNK]>().read());
        let mut done = CHUNK;
        while done < length {
            to.add(done).cast::<[u8; CHUNK]>().write(from.add(done).cast::<[u8; CHUNK]>().read());
            done += CHUNK;
        }
        to.add(length)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values_of_any_length() {
        let buffer: Vec<u8> = (0..1000).map(|index| index as u8).collect();
        let mut bytes = Bytes::default();
        let mut expected = Vec::new();
        for length in (0..300).chain([0, 1, 968]) {
            bytes.append(&buffer, 0, length);
            expected.extend_from_slice(&buffer[..length]);
            assert_eq!(*bytes, expected, "{length}");
            if length % 50 == 49 {
                // Cut back, and with a vector that has no byte more than it needs.
                bytes.truncate(expected.len() / 2);
                expected.truncate(expected.len() / 2);
                bytes.with(Vec::shrink_to_fit);
            }
        }
        let mut appender = bytes.appender(&buffer, 300);
        for (at, length) in [(7, 0), (900, 31), (20, 33), (30, 127), (40, 99)] {
            appender.append(at, length);
            expected.extend_from_slice(&buffer[at..at + length]);
        }
        appender.append_other(b"0123456789");
        expected.extend_from_slice(b"0123456789");
        assert_eq!(appender.len(), expected.len());
        drop(appender);
        bytes.truncate(usize::MAX);
        assert_eq!(bytes.take(), expected);
        assert_eq!((bytes.len(), bytes.take()), (0, Vec::new()));
    }
}
