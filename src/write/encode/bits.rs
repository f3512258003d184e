//! Small whole numbers in few bits: packed, and as Parquet's hybrid of packed groups and runs (`RLE`), which levels and
//! dictionary indexes are stored as.

/// Values of a bit-packed group.
const GROUP: usize = 8;

/// Groups behind one header: as many as keep it one byte, which is what other writers do and readers are used to.
const GROUPS_MAX: usize = 63;

pub fn varint(mut value: u64, out: &mut Vec<u8>) {
    while value >= 0x80 {
        out.push(value as u8 | 0x80);
        value >>= 7;
    }
    out.push(value as u8);
}

/// Bits that numbers up to this one take.
pub fn width(most: u64) -> u32 {
    u64::BITS - most.leading_zeros()
}

/// Appends numbers of `width` bits, lowest bits first; what is left of the last byte is zero.
pub fn pack<T: Copy + Into<u64>>(values: &[T], width: u32, out: &mut Vec<u8>) {
    let (groups, rest) = values.as_chunks::<GROUP>();
    match width {
        0..=8 => pack_groups(groups, width, out, |group| {
            let numbers = (0..).zip(group).map(|(index, value)| (*value).into() << (index * width));
            numbers.fold(0u64, |all, bits| all | bits).to_le_bytes()
        }),
        9..=16 => pack_groups(groups, width, out, |group| {
            let numbers = (0..).zip(group).map(|(index, value)| u128::from((*value).into()) << (index * width));
            numbers.fold(0u128, |all, bits| all | bits).to_le_bytes()
        }),
        _ => return pack_each(values, width, out),
    }
    pack_each(rest, width, out);
}

/// Groups, each packed by `bytes`: as many of its bytes as one of the numbers has bits, for there are eight numbers.
fn pack_groups<T, const N: usize>(
    groups: &[[T; GROUP]],
    width: u32,
    out: &mut Vec<u8>,
    bytes: impl Fn(&[T; GROUP]) -> [u8; N],
) {
    let mut at = out.len();
    out.resize(at + groups.len() * width as usize + N, 0);
    for group in groups {
        out[at..at + N].copy_from_slice(&bytes(group));
        at += width as usize;
    }
    out.truncate(at);
}

fn pack_each<T: Copy + Into<u64>>(values: &[T], width: u32, out: &mut Vec<u8>) {
    let (mut bits, mut held) = (0u64, 0u32);
    for value in values {
        let value: u64 = (*value).into();
        bits |= value << held;
        held += width;
        if held >= u64::BITS {
            out.extend_from_slice(&bits.to_le_bytes());
            held -= u64::BITS;
            bits = if held == 0 { 0 } else { value >> (width - held) };
        }
    }
    out.extend_from_slice(&bits.to_le_bytes()[..held.div_ceil(8) as usize]);
}

/// Appends numbers of at most `width` bits as runs of equal ones and packed groups of others.
pub fn hybrid<T: Copy + PartialEq + Into<u64>>(values: &[T], width: u32, out: &mut Vec<u8>) {
    // A shorter run takes more than its values packed, or saves too little to be looked for.
    let run_min = (32 / width.max(1) as usize).max(GROUP);
    let (mut packed, mut at) = (0, 0);
    while at < values.len() {
        let run = run(&values[at..]);
        if run < run_min {
            at += GROUP;
            continue;
        }
        groups(&values[packed..at], width, out);
        varint((run as u64) << 1, out);
        let value: u64 = values[at].into();
        out.extend_from_slice(&value.to_le_bytes()[..width.div_ceil(8) as usize]);
        at += run;
        packed = at;
    }
    groups(&values[packed..], width, out);
}

/// How many values are equal to the first; 0 if they do not fill a group.
fn run<T: Copy + PartialEq>(values: &[T]) -> usize {
    let first = values[0];
    let same = |values: &[T]| values.iter().fold(true, |same, value| same & (*value == first));
    let mut length = 0;
    for chunk in values.chunks_exact(GROUP).take_while(|chunk| same(chunk)) {
        length += chunk.len();
    }
    // Where a shorter run ends would be guessed, mostly wrong.
    if length == 0 {
        return 0;
    }
    length + values[length..].iter().take_while(|value| **value == first).count()
}

fn groups<T: Copy + Into<u64>>(values: &[T], width: u32, out: &mut Vec<u8>) {
    for values in values.chunks(GROUPS_MAX * GROUP) {
        let groups = values.len().div_ceil(GROUP);
        out.push((groups as u8) << 1 | 1);
        let end = out.len() + groups * width as usize;
        pack(values, width, out);
        out.resize(end, 0);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn hybrid_of(values: &[u32], width: u32) -> Vec<u8> {
        let mut out = Vec::new();
        hybrid(values, width, &mut out);
        out
    }

    #[test]
    fn numbers_are_packed_lowest_bits_first() {
        let mut out = Vec::new();
        pack(&[0u32, 1, 2, 3, 4, 5, 6, 7], 3, &mut out);
        assert_eq!(out, [0b1000_1000, 0b1100_0110, 0b1111_1010], "the format's own example");
        out.clear();
        pack(&[u64::MAX, 1, u64::MAX], 64, &mut out);
        assert_eq!(out, [[0xff; 8], 1u64.to_le_bytes(), [0xff; 8]].concat());
        out.clear();
        pack(&[(1u64 << 33) - 1; 3], 33, &mut out);
        assert_eq!(out, [[0xff; 12].as_slice(), &[0x07]].concat());
    }

    #[test]
    fn groups_are_packed_as_number_by_number() {
        for width in 0..=64 {
            let most = u64::MAX.checked_shr(64 - width).unwrap_or(0);
            let values: Vec<u64> = (1..=21u64).map(|index| index.wrapping_mul(0x9e37_79b9_7f4a_7c15) & most).collect();
            let (mut packed, mut each) = (vec![7], vec![7]);
            pack(&values, width, &mut packed);
            pack_each(&values, width, &mut each);
            assert_eq!(packed, each, "{width} bits");
        }
    }

    #[test]
    fn runs_are_runs_and_the_rest_is_packed() {
        assert_eq!(hybrid_of(&[7; 100], 3), [200, 1, 7]);
        assert_eq!(hybrid_of(&[0; 100], 0), [200, 1], "one value takes no bits");
        assert_eq!(hybrid_of(&[1, 0, 1], 1), [3, 0b101], "the last group is filled up");
        let mixed: Vec<u32> = (0..8).chain([5; 20]).collect();
        assert_eq!(hybrid_of(&mixed, 3), [3, 0b1000_1000, 0b1100_0110, 0b1111_1010, 40, 5]);
        assert_eq!(hybrid_of(&[300; 9], 9), [18, 44, 1], "a run's value takes whole bytes");
        assert!(hybrid_of(&[], 3).is_empty());
    }
}
