//! `DELTA_BINARY_PACKED`: whole numbers as what each adds to the one before.

use super::bits::{pack, varint, width};

const BLOCK: usize = 128;
/// Values that share a width.
const MINIBLOCK: usize = 32;

/// Appends numbers of four or eight bytes. Differences wrap in that size, as a reader's sums do.
pub fn encode<T: Copy + Into<i64>>(values: &[T], out: &mut Vec<u8>) {
    let narrow = size_of::<T>() == size_of::<i32>();
    varint(BLOCK as u64, out);
    varint((BLOCK / MINIBLOCK) as u64, out);
    varint(values.len() as u64, out);
    let Some(first) = values.first() else { return varint(0, out) };
    zigzag((*first).into(), out);
    for start in (0..values.len() - 1).step_by(BLOCK) {
        let block = &values[start..values.len().min(start + BLOCK + 1)];
        let count = block.len() - 1;
        let mut deltas = [0i64; BLOCK];
        let mut least = i64::MAX;
        for (delta, (before, after)) in deltas.iter_mut().zip(block.iter().zip(&block[1..])) {
            let wide = (*after).into().wrapping_sub((*before).into());
            *delta = if narrow { i64::from(wide as i32) } else { wide };
            least = least.min(*delta);
        }
        zigzag(least, out);
        let mut above = [0u64; BLOCK];
        for (above, delta) in above.iter_mut().zip(&deltas[..count]) {
            *above = delta.wrapping_sub(least) as u64;
        }
        let widths = out.len();
        for miniblock in above.chunks_exact(MINIBLOCK) {
            out.push(width(miniblock.iter().fold(0, |all, above| all | above)) as u8);
        }
        // Those that have no values are not there at all; one that has some is filled up.
        for (index, miniblock) in above.chunks_exact(MINIBLOCK).enumerate().take(count.div_ceil(MINIBLOCK)) {
            pack(miniblock, u32::from(out[widths + index]), out);
        }
    }
}

fn zigzag(value: i64, out: &mut Vec<u8>) {
    varint((value << 1 ^ value >> 63) as u64, out);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_formats_own_example() {
        let mut out = Vec::new();
        encode(&[7i64, 5, 3, 1, 2, 3, 4, 5], &mut out);
        // Header: block, miniblocks, count, first; least difference -2, widths, and 0 0 0 3 3 3 3 at two bits.
        assert_eq!(out, [128, 1, 4, 8, 14, 3, 2, 0, 0, 0, 0b1100_0000, 0b0011_1111, 0, 0, 0, 0, 0, 0]);
        out.clear();
        encode::<i32>(&[], &mut out);
        assert_eq!(out, [128, 1, 4, 0, 0]);
        out.clear();
        encode(&[i32::MIN, i32::MAX], &mut out);
        assert_eq!(out[9..], [1, 0, 0, 0, 0], "a difference of -1, which wraps, and no bits");
    }
}
