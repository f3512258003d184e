//! Lower and upper bounds of a column, and how Iceberg shortens them.
//!
//! Iceberg spec, "Manifests", `lower_bounds`/`upper_bounds`; the truncation is that of Java's `UnicodeUtil` and
//! `BinaryUtil`: code points for strings, bytes for binaries, the last one that can be incremented is incremented in an
//! upper bound, and a column without such a one has no upper bound.

use std::cmp::Ordering;

use iceberg::spec::{Datum, PrimitiveType};
use parquet::file::statistics::Statistics;

/// One end of a column's range, as Parquet's statistics have it.
#[derive(Clone, Debug)]
pub enum Value {
    Boolean(bool),
    Int(i32),
    Long(i64),
    Float(f32),
    Double(f64),
    Decimal(i128),
    Bytes(Vec<u8>),
}

impl Value {
    pub fn cmp(&self, other: &Value) -> Ordering {
        match (self, other) {
            (Value::Boolean(a), Value::Boolean(b)) => a.cmp(b),
            (Value::Int(a), Value::Int(b)) => a.cmp(b),
            (Value::Long(a), Value::Long(b)) => a.cmp(b),
            (Value::Float(a), Value::Float(b)) => a.total_cmp(b),
            (Value::Double(a), Value::Double(b)) => a.total_cmp(b),
            (Value::Decimal(a), Value::Decimal(b)) => a.cmp(b),
            (Value::Bytes(a), Value::Bytes(b)) => a.cmp(b),
            // One column has one physical type in all row groups of a file.
            _ => Ordering::Equal,
        }
    }

    fn datum(&self, primitive: &PrimitiveType) -> Option<Datum> {
        let datum = match self {
            Value::Boolean(value) => Datum::try_from_bytes(&[u8::from(*value)], primitive.clone()),
            Value::Int(value) => Datum::try_from_bytes(&value.to_le_bytes(), primitive.clone()),
            Value::Long(value) => Datum::try_from_bytes(&value.to_le_bytes(), primitive.clone()),
            Value::Float(value) => Datum::try_from_bytes(&value.to_le_bytes(), primitive.clone()),
            Value::Double(value) => Datum::try_from_bytes(&value.to_le_bytes(), primitive.clone()),
            Value::Decimal(value) => Datum::try_from_bytes(&value.to_be_bytes(), primitive.clone()),
            Value::Bytes(value) => Datum::try_from_bytes(value, primitive.clone()),
        };
        // A bound is an aid to readers: one that cannot be said is left out.
        datum.ok()
    }
}

/// The range of a column over the row groups of a file.
#[derive(Clone, Debug, Default)]
pub struct Range {
    ends: Option<(Value, Value)>,
}

impl Range {
    /// Widens the range by a row group's statistics; those without ends (only nulls and NaN) change nothing.
    ///
    /// Parquet may have shortened the ends of byte arrays: the lower one to a prefix, which is what Iceberg does too;
    /// the upper one to an incremented prefix, far beyond the length that Iceberg keeps.
    pub fn add(&mut self, statistics: &Statistics, primitive: &PrimitiveType) {
        let Some((low, high)) = ends(statistics, primitive) else { return };
        self.ends = Some(match self.ends.take() {
            None => (low, high),
            Some((lower, upper)) => {
                (if low.cmp(&lower).is_lt() { low } else { lower }, if high.cmp(&upper).is_gt() { high } else { upper })
            }
        });
    }

    /// The bounds for the manifest; strings and binaries cut to `length` units, when one is given.
    pub fn bounds(&self, primitive: &PrimitiveType, length: Option<usize>) -> (Option<Datum>, Option<Datum>) {
        let Some((low, high)) = &self.ends else { return (None, None) };
        let (low, high) = match (low, high, primitive, length) {
            (Value::Bytes(low), Value::Bytes(high), PrimitiveType::String, Some(length)) => {
                let (Ok(low), Ok(high)) = (std::str::from_utf8(low), std::str::from_utf8(high)) else {
                    return (None, None);
                };
                let low = string_lower(low, length).as_bytes().to_vec();
                (
                    Value::Bytes(low),
                    string_upper(high, string_lower(high, length)).map(|high| Value::Bytes(high.into_bytes())),
                )
            }
            (Value::Bytes(low), Value::Bytes(high), PrimitiveType::Binary | PrimitiveType::Fixed(_), Some(length)) => {
                let low = low[..low.len().min(length)].to_vec();
                (Value::Bytes(low), binary_upper(high, length).map(Value::Bytes))
            }
            _ => (low.clone(), Some(high.clone())),
        };
        (low.datum(primitive), high.and_then(|high| high.datum(primitive)))
    }
}

fn ends(statistics: &Statistics, primitive: &PrimitiveType) -> Option<(Value, Value)> {
    let decimal = matches!(primitive, PrimitiveType::Decimal { .. });
    Some(match statistics {
        Statistics::Boolean(s) => (Value::Boolean(*s.min_opt()?), Value::Boolean(*s.max_opt()?)),
        Statistics::Int32(s) if decimal => {
            (Value::Decimal(i128::from(*s.min_opt()?)), Value::Decimal(i128::from(*s.max_opt()?)))
        }
        Statistics::Int64(s) if decimal => {
            (Value::Decimal(i128::from(*s.min_opt()?)), Value::Decimal(i128::from(*s.max_opt()?)))
        }
        Statistics::Int32(s) => (Value::Int(*s.min_opt()?), Value::Int(*s.max_opt()?)),
        Statistics::Int64(s) => (Value::Long(*s.min_opt()?), Value::Long(*s.max_opt()?)),
        Statistics::Float(s) => (Value::Float(*s.min_opt()?), Value::Float(*s.max_opt()?)),
        Statistics::Double(s) => (Value::Double(*s.min_opt()?), Value::Double(*s.max_opt()?)),
        Statistics::FixedLenByteArray(_) | Statistics::ByteArray(_) => {
            let (low, high) = (statistics.min_bytes_opt()?, statistics.max_bytes_opt()?);
            if decimal {
                (Value::Decimal(big_endian(low)?), Value::Decimal(big_endian(high)?))
            } else {
                (Value::Bytes(low.to_vec()), Value::Bytes(high.to_vec()))
            }
        }
        Statistics::Int96(_) => return None,
    })
}

/// A two's-complement number of up to 16 bytes.
pub fn big_endian(bytes: &[u8]) -> Option<i128> {
    let fill = if bytes.first()? & 0x80 == 0 { 0 } else { 0xff };
    let mut wide = [fill; 16];
    wide.get_mut(16usize.checked_sub(bytes.len())?..)?.copy_from_slice(bytes);
    Some(i128::from_be_bytes(wide))
}

/// The first `length` code points.
fn string_lower(value: &str, length: usize) -> &str {
    match value.char_indices().nth(length) {
        None => value,
        Some((end, _)) => &value[..end],
    }
}

/// The longest prefix of so many bytes at most.
pub fn string_prefix(value: &str, bytes: usize) -> &str {
    &value[..value.floor_char_boundary(bytes)]
}

/// What is above all strings with the prefix, which is the value's.
pub fn string_upper(value: &str, prefix: &str) -> Option<String> {
    if prefix.len() == value.len() {
        return Some(value.to_string());
    }
    for (position, last) in prefix.char_indices().rev() {
        let next = match last {
            // The code points in between are surrogates, which no string holds.
            '\u{d7ff}' => Some('\u{e000}'),
            last => char::from_u32(u32::from(last) + 1),
        };
        if let Some(next) = next {
            let mut upper = prefix[..position].to_string();
            upper.push(next);
            return Some(upper);
        }
    }
    None
}

pub fn binary_upper(value: &[u8], length: usize) -> Option<Vec<u8>> {
    if value.len() <= length {
        return Some(value.to_vec());
    }
    let last = value[..length].iter().rposition(|byte| *byte != 0xff)?;
    let mut upper = value[..=last].to_vec();
    upper[last] += 1;
    Some(upper)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check_string(value: &str, lower: &str, upper: Option<&str>) {
        assert_eq!(string_lower(value, 16), lower);
        assert_eq!(string_upper(value, string_lower(value, 16)).as_deref(), upper);
        assert!(lower <= value);
        if let Some(upper) = upper {
            assert!(upper >= value);
        }
    }

    #[test]
    fn strings_are_cut_between_code_points_for_a_length_in_bytes() {
        assert_eq!([string_prefix("aé", 1), string_prefix("aé", 2), string_prefix("aé", 3)], ["a", "a", "aé"]);
    }

    #[test]
    fn strings_are_cut_at_code_points_and_the_last_is_incremented() {
        check_string("", "", Some(""));
        check_string("exactly sixteen!", "exactly sixteen!", Some("exactly sixteen!"));
        check_string("seventeen letters", "seventeen letter", Some("seventeen lettes"));
        let wide = "\u{1f600}".repeat(17);
        check_string(&wide, &"\u{1f600}".repeat(16), Some(&format!("{}{}", "\u{1f600}".repeat(15), "\u{1f601}")));
        // One byte more is needed for the next code point.
        check_string(&"\u{7f}".repeat(17), &"\u{7f}".repeat(16), Some(&format!("{}\u{80}", "\u{7f}".repeat(15))));
        // Surrogates are skipped.
        check_string(
            &"\u{d7ff}".repeat(17),
            &"\u{d7ff}".repeat(16),
            Some(&format!("{}\u{e000}", "\u{d7ff}".repeat(15))),
        );
        // The last code points cannot be incremented: the one before is.
        let top = format!("a{}", "\u{10ffff}".repeat(20));
        check_string(&top, &format!("a{}", "\u{10ffff}".repeat(15)), Some("b"));
        check_string(&"\u{10ffff}".repeat(17), &"\u{10ffff}".repeat(16), None);
    }

    #[test]
    fn binaries_are_cut_at_bytes() {
        assert_eq!(binary_upper(&[1; 16], 16), Some(vec![1; 16]));
        let mut expected = vec![1; 16];
        expected[15] = 2;
        assert_eq!(binary_upper(&[1; 17], 16), Some(expected));
        let mut value = vec![0xff; 20];
        assert_eq!(binary_upper(&value, 16), None);
        value[2] = 7;
        assert_eq!(binary_upper(&value, 16), Some(vec![0xff, 0xff, 8]));
    }

    #[test]
    fn decimals_are_read_with_their_sign() {
        assert_eq!(big_endian(&[0xff, 0x85]), Some(-123));
        assert_eq!(big_endian(&[0, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff]), Some(i128::from(u64::MAX)));
        assert_eq!(big_endian(&[]), None);
        assert_eq!(big_endian(&[0; 17]), None);
        let primitive = PrimitiveType::Decimal { precision: 20, scale: 0 };
        let datum = Value::Decimal(-129).datum(&primitive).unwrap();
        assert_eq!(datum.to_bytes().unwrap().as_slice(), [0xff, 0x7f], "minimal two's complement, big-endian");
    }
}
