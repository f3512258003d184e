//! Primitives of the Protobuf wire format, over a buffer with [`PADDING`] readable bytes behind every message.
//!
//! The padding lets a primitive load 16 bytes at any position of a message without a check of its own; where a
//! value ends behind its message, the caller sees that the position moved past the end.

use super::bytes::CHUNK;
use super::unchecked;
use crate::batch::{RawBatch, RejectCode};

/// Readable bytes behind a message.
pub const PADDING: usize = RawBatch::PADDING;

/// How far behind its message's end a primitive may be read: it stands behind a tag of at most five bytes whose first
/// byte is inside.
pub const SLACK: usize = 5;

const _: () = assert!(SLACK + 16 <= PADDING, "a varint of up to ten bytes is loaded with what follows it");
const _: () = assert!(CHUNK <= PADDING, "a string is copied in chunks");

const VARINT_BYTES_MAX: usize = 10;

/// Messages, groups and map entries that may be nested below the record's own message: the limit that the official
/// parsers share.
pub const DEPTH_MAX: u32 = 100;

pub const VARINT: u32 = 0;
pub const FIXED64: u32 = 1;
pub const LENGTH: u32 = 2;
pub const START_GROUP: u32 = 3;
pub const END_GROUP: u32 = 4;
pub const FIXED32: u32 = 5;

/// Eight bytes at a position at most [`SLACK`] behind the end of a message that [`PADDING`] bytes follow.
#[inline(always)]
pub fn load8(buffer: &[u8], at: usize) -> u64 {
    u64::from_le_bytes(unchecked::load(buffer, at))
}

#[inline(always)]
pub fn load1(buffer: &[u8], at: usize) -> u8 {
    let [byte] = unchecked::load(buffer, at);
    byte
}

#[inline(always)]
pub fn load4(buffer: &[u8], at: usize) -> u32 {
    u32::from_le_bytes(unchecked::load(buffer, at))
}

/// The varint at `at` and the position behind it, which may lie past the message's end; `None` if it has more than
/// ten bytes. Bits past the 64th are dropped, as upb and C++ do.
///
/// Up to eight bytes take as long as one where the processor closes up their bits by itself: no branch asks how many there
/// are, since a wrong guess takes longer than all of this.
#[inline(always)]
pub fn varint(buffer: &[u8], at: usize) -> Option<(u64, usize)> {
    varint_by(unchecked::extract, buffer, at)
}

/// The same for one that mostly is a byte: the right guess is there before the length would be, on which all that
/// follows waits.
#[inline(always)]
pub fn short_varint(buffer: &[u8], at: usize) -> Option<(u64, usize)> {
    let byte = load1(buffer, at);
    if byte < 0x80 { Some((byte.into(), at + 1)) } else { varint(buffer, at) }
}

/// The lower 32 bits of a varint, without a branch for negative numbers either, which take ten bytes.
#[inline(always)]
pub fn varint32(buffer: &[u8], at: usize) -> Option<(u32, usize)> {
    varint32_by(unchecked::extract, buffer, at)
}

#[inline(always)]
fn varint_by(extract: impl Fn(u64, u64) -> Option<u64>, buffer: &[u8], at: usize) -> Option<(u64, usize)> {
    let word = load8(buffer, at);
    let stops = !word & 0x8080_8080_8080_8080;
    let first = up_to_stop(word, stops);
    let value = match extract(first, SEVEN_OF_EACH) {
        Some(value) => value,
        None if word & 0x80 == 0 => return Some((word & 0x7f, at + 1)),
        None if word & 0x8000 == 0 => return Some((word & 0x7f | word >> 1 & 0x3f80, at + 2)),
        None => close_up(first),
    };
    if stops == 0 {
        let (value, next) = varint_long(buffer, at);
        return if next == 0 { None } else { Some((value, next)) };
    }
    Some((value, at + (stops.trailing_zeros() as usize >> 3) + 1))
}

#[inline(always)]
fn varint32_by(extract: impl Fn(u64, u64) -> Option<u64>, buffer: &[u8], at: usize) -> Option<(u32, usize)> {
    let word = u128::from_le_bytes(unchecked::load(buffer, at));
    let stops = !word & u128::from_le_bytes([0x80; 16]);
    let bytes = (stops.trailing_zeros() as usize >> 3) + 1;
    if bytes > VARINT_BYTES_MAX {
        return None;
    }
    let first = up_to_stop(word as u64, stops as u64);
    let value = extract(first, SEVEN_OF_EACH).unwrap_or_else(|| close_up(first));
    Some((value as u32, at + bytes))
}

/// The bytes up to the first one without a continuation bit, where `stops` has a bit; all eight if it has none.
#[inline(always)]
fn up_to_stop(word: u64, stops: u64) -> u64 {
    word & (stops ^ stops.wrapping_sub(1))
}

/// A varint whose first eight bytes all say that more follow; the position is 0 if so say the next two, since an `Option`
/// of both would go through memory.
#[inline(never)]
fn varint_long(buffer: &[u8], at: usize) -> (u64, usize) {
    let low = close_up(load8(buffer, at));
    let [ninth, tenth] = unchecked::load(buffer, at + 8);
    let value = low | u64::from(ninth & 0x7f) << 56;
    if ninth < 0x80 {
        (value, at + 9)
    } else if tenth < 0x80 {
        (value | u64::from(tenth) << 63, at + 10)
    } else {
        (0, 0)
    }
}

const SEVEN_OF_EACH: u64 = 0x7f7f_7f7f_7f7f_7f7f;

/// Seven bits of each byte, closed up, where the processor has no instruction for it.
#[inline(always)]
fn close_up(word: u64) -> u64 {
    let pairs = (word & 0x007f_007f_007f_007f) | ((word & 0x7f00_7f00_7f00_7f00) >> 1);
    let quads = (pairs & 0x0000_3fff_0000_3fff) | ((pairs & 0x3fff_0000_3fff_0000) >> 2);
    (quads & 0x0fff_ffff) | ((quads & 0x0fff_ffff_0000_0000) >> 4)
}

/// Why no varint could be read at `at`: what follows the message's end is not its own.
#[cold]
#[inline(never)]
pub fn varint_fault(at: usize, end: usize) -> RejectCode {
    if end.saturating_sub(at) < 10 { RejectCode::Truncated } else { RejectCode::BadVarint }
}

/// A varint that ends within the message.
pub fn bounded_varint(buffer: &[u8], at: usize, end: usize) -> Result<(u64, usize), RejectCode> {
    let (value, next) = varint(buffer, at).ok_or_else(|| varint_fault(at, end))?;
    if next > end { Err(RejectCode::Truncated) } else { Ok((value, next)) }
}

/// The tag at `at` and the position behind it. At most five bytes and 32 bits, as in upb and C++; never field 0.
pub fn tag(buffer: &[u8], at: usize, end: usize) -> Result<(u32, usize), RejectCode> {
    let (value, next) = bounded_varint(buffer, at, end)?;
    let tag = u32::try_from(value).map_err(|_| RejectCode::BadTag)?;
    if next - at > 5 || tag >> 3 == 0 || tag & 7 > FIXED32 { Err(RejectCode::BadTag) } else { Ok((tag, next)) }
}

/// The bytes `(start, end)` of a length-delimited value whose length stands at `at`.
#[inline(always)]
pub fn length(buffer: &[u8], at: usize, end: usize) -> Result<(usize, usize), RejectCode> {
    let byte = load1(buffer, at);
    let (start, stop) = if byte < 0x80 { (at + 1, at + 1 + byte as usize) } else { long_length(buffer, at) };
    if stop <= end { Ok((start, stop)) } else { Err(length_fault(buffer, at, end)) }
}

/// The same for a length of several bytes; one that is none ends past all ends.
#[inline(never)]
fn long_length(buffer: &[u8], at: usize) -> (usize, usize) {
    let Some((length, start)) = varint(buffer, at) else { return (at, usize::MAX) };
    (start, start.saturating_add(usize::try_from(length).unwrap_or(usize::MAX)))
}

#[cold]
#[inline(never)]
fn length_fault(buffer: &[u8], at: usize, end: usize) -> RejectCode {
    match varint(buffer, at) {
        None => varint_fault(at, end),
        // upb refuses i32::MAX itself too.
        Some((length, start)) if start <= end && length >= i32::MAX as u64 => RejectCode::BadLength,
        Some(_) => RejectCode::Truncated,
    }
}

/// The position behind the value of `tag`, whatever it is; `at` is behind the tag, `depth` the messages around it.
pub fn skip(buffer: &[u8], at: usize, end: usize, tag: u32, depth: u32) -> Result<usize, RejectCode> {
    let next = match tag & 7 {
        VARINT => bounded_varint(buffer, at, end)?.1,
        FIXED64 => at + 8,
        FIXED32 => at + 4,
        LENGTH => length(buffer, at, end)?.1,
        START_GROUP => return skip_group(buffer, at, end, tag, depth + 1),
        END_GROUP => return Err(RejectCode::BadGroup),
        _ => return Err(RejectCode::BadTag),
    };
    if next > end { Err(RejectCode::Truncated) } else { Ok(next) }
}

fn skip_group(buffer: &[u8], at: usize, end: usize, start: u32, depth: u32) -> Result<usize, RejectCode> {
    Ok(group(buffer, at, end, start >> 3, depth)?.1)
}

/// Where the fields of the group `number` end that start at `at`, and the position behind the group; `depth` counts
/// the group itself. Recursion is bounded by [`DEPTH_MAX`].
pub fn group(buffer: &[u8], mut at: usize, end: usize, number: u32, depth: u32) -> Result<(usize, usize), RejectCode> {
    if depth > DEPTH_MAX {
        return Err(RejectCode::TooDeep);
    }
    while at < end {
        let (tag, next) = self::tag(buffer, at, end)?;
        if tag & 7 == END_GROUP {
            return if tag >> 3 == number { Ok((at, next)) } else { Err(RejectCode::BadGroup) };
        }
        at = skip(buffer, next, end, tag, depth)?;
    }
    Err(RejectCode::Truncated)
}

#[inline(always)]
pub fn zigzag32(value: u64) -> i32 {
    let value = value as u32;
    (value >> 1) as i32 ^ -((value & 1) as i32)
}

#[inline(always)]
pub fn zigzag64(value: u64) -> i64 {
    (value >> 1) as i64 ^ -((value & 1) as i64)
}

/// Appends a varint in its shortest form.
pub fn put_varint(out: &mut Vec<u8>, mut value: u64) {
    while value >= 0x80 {
        out.push(value as u8 | 0x80);
        value >>= 7;
    }
    out.push(value as u8);
}

#[cfg(test)]
mod tests {
    use super::*;

    fn padded(bytes: &[u8]) -> (Vec<u8>, usize) {
        let mut buffer = bytes.to_vec();
        buffer.extend([0; PADDING]);
        (buffer, bytes.len())
    }

    /// All ways to read a varint, with and without the processor's instruction.
    fn check_varint(buffer: &[u8], expected: Option<(u64, usize)>) {
        unchecked::look_for_pext();
        let none = |_: u64, _: u64| None;
        assert_eq!(varint(buffer, 0), expected, "{buffer:x?}");
        assert_eq!(short_varint(buffer, 0), expected, "{buffer:x?}");
        assert_eq!(varint_by(none, buffer, 0), expected, "{buffer:x?}");
        let lower = expected.map(|(value, next)| (value as u32, next));
        assert_eq!(varint32(buffer, 0), lower, "{buffer:x?}");
        assert_eq!(varint32_by(none, buffer, 0), lower, "{buffer:x?}");
    }

    #[test]
    fn varints_of_every_length() {
        for shift in 0..64 {
            for value in [1u64 << shift, (1u64 << shift) - 1, u64::MAX >> shift] {
                let mut bytes = Vec::new();
                put_varint(&mut bytes, value);
                let (buffer, end) = padded(&bytes);
                assert_eq!(bounded_varint(&buffer, 0, end), Ok((value, end)), "{value}");
                // Cut anywhere, it is truncated, whatever follows.
                for cut in 1..end {
                    assert_eq!(bounded_varint(&buffer, 0, cut), Err(RejectCode::Truncated), "{value} cut at {cut}");
                }
                for behind in [0x00, 0x01, 0x7f, 0x80, 0xff] {
                    check_varint(&[bytes.as_slice(), &[behind; PADDING]].concat(), Some((value, end)));
                }
            }
        }
    }

    #[test]
    fn overlong_varints() {
        let (buffer, end) = padded(&[0x81, 0x80, 0x80, 0x80, 0x80, 0x80, 0x80, 0x80, 0x80, 0x00]);
        assert_eq!(bounded_varint(&buffer, 0, end), Ok((1, 10)));
        check_varint(&buffer, Some((1, 10)));
        // Of the tenth byte, one bit counts.
        let (buffer, _) = padded(&[0x80, 0x80, 0x80, 0x80, 0x80, 0x80, 0x80, 0x80, 0x80, 0x03]);
        check_varint(&buffer, Some((1 << 63, 10)));
        let (buffer, end) = padded(&[0xff; 11]);
        assert_eq!(bounded_varint(&buffer, 0, end), Err(RejectCode::BadVarint));
        check_varint(&buffer, None);
        check_varint(&[0x80; 11 + PADDING], None);
        let (buffer, end) = padded(&[0xff; 9]);
        assert_eq!(bounded_varint(&buffer, 0, end), Err(RejectCode::Truncated));
    }

    #[test]
    fn tags() {
        let check = |bytes: &[u8], expected| {
            let (buffer, end) = padded(bytes);
            assert_eq!(tag(&buffer, 0, end), expected, "{bytes:x?}");
        };
        check(&[0x08], Ok((8, 1)));
        check(&[0x88, 0x80, 0x00], Ok((8, 3)));
        check(&[0x88, 0x80, 0x80, 0x80, 0x00], Ok((8, 5)));
        check(&[0x88, 0x80, 0x80, 0x80, 0x80, 0x00], Err(RejectCode::BadTag));
        check(&[0xff, 0xff, 0xff, 0xff, 0x1f], Err(RejectCode::BadTag));
        check(&[0xfd, 0xff, 0xff, 0xff, 0x0f], Ok((u32::MAX - 2, 5)));
        check(&[0x00], Err(RejectCode::BadTag));
        check(&[0x05], Err(RejectCode::BadTag));
        check(&[0x0e], Err(RejectCode::BadTag));
        check(&[0x0f], Err(RejectCode::BadTag));
        check(&[0x88], Err(RejectCode::Truncated));
    }

    #[test]
    fn skipping() {
        let check = |bytes: &[u8], expected| {
            let (buffer, end) = padded(bytes);
            let (first, at) = tag(&buffer, 0, end).unwrap();
            assert_eq!(skip(&buffer, at, end, first, 0), expected, "{bytes:x?}");
        };
        check(&[0x0b, 0x08, 0x01, 0x0c], Ok(4));
        check(&[0x0b, 0x13, 0x14, 0x0c], Ok(4));
        check(&[0x0b, 0x14], Err(RejectCode::BadGroup));
        check(&[0x0b, 0x08, 0x01], Err(RejectCode::Truncated));
        check(&[0x0c], Err(RejectCode::BadGroup));
        check(&[0x0a, 0x02, 0x00], Err(RejectCode::Truncated));
        check(&[0x0a, 0xff, 0xff, 0xff, 0xff, 0x0f], Err(RejectCode::BadLength));
        check(&[0x09, 0, 0, 0, 0, 0, 0, 0], Err(RejectCode::Truncated));
        check(&[0x0d, 0, 0, 0], Err(RejectCode::Truncated));
        let nested = |groups: usize| [vec![0x0b; groups], vec![0x0c; groups]].concat();
        check(&nested(100), Ok(200));
        check(&nested(101), Err(RejectCode::TooDeep));
    }
}
