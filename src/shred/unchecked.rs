//! Memory accesses without a bounds check: all of the interpreter's unsafe code.
//!
//! Each function states what its caller must see to, and checks it in debug builds; the tests of columns, wire
//! format and this module run under Miri (`just miri`).

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

/// The field at an index that the plan has.
#[inline(always)]
pub fn get<T>(fields: &[T], index: usize) -> &T {
    debug_assert!(index < fields.len(), "field {index} of {}", fields.len());
    // SAFETY: a node has at least its end, which is where the first guess points if there is no more; `Plan::compile`
    // makes `next` and the tables of tags from the indexes of the node's own fields.
    unsafe { fields.get_unchecked(index) }
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
        if length <= CHUNKED_MAX {
            // A copy of known size is two instructions.
            let mut done = 0;
            while done < length {
                to.add(done).cast::<[u8; CHUNK]>().write(from.add(done).cast::<[u8; CHUNK]>().read());
                done += CHUNK;
            }
        } else {
            from.copy_to_nonoverlapping(to, length);
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
