//! How JSON spells values. Into bytes, because a column's text is bytes until it is checked.

use std::io::Write;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;

/// The most bytes that one byte of a string becomes: `\u0000`.
pub const ESCAPE_BYTES_MAX: usize = 6;

/// A string with its quotes; the bytes should be UTF-8.
pub fn put_string(out: &mut Vec<u8>, text: &[u8]) {
    out.push(b'"');
    put_escaped(out, text);
    out.push(b'"');
}

fn put_escaped(out: &mut Vec<u8>, text: &[u8]) {
    let mut plain = 0;
    for (at, byte) in text.iter().enumerate() {
        let escape: &[u8] = match byte {
            b'"' => b"\\\"",
            b'\\' => b"\\\\",
            0x08 => b"\\b",
            0x0c => b"\\f",
            b'\n' => b"\\n",
            b'\r' => b"\\r",
            b'\t' => b"\\t",
            0..0x20 => b"",
            _ => continue,
        };
        out.extend_from_slice(&text[plain..at]);
        plain = at + 1;
        if escape.is_empty() {
            put(out, format_args!("\\u{byte:04x}"));
        } else {
            out.extend_from_slice(escape);
        }
    }
    out.extend_from_slice(&text[plain..]);
}

/// Whatever displays as JSON.
pub fn put(out: &mut Vec<u8>, value: std::fmt::Arguments<'_>) {
    // Writing to a vector does not fail.
    let _ = out.write_fmt(value);
}

/// Bytes as base64, standard alphabet, padded.
pub fn put_base64(out: &mut Vec<u8>, bytes: &[u8]) {
    out.push(b'"');
    let start = out.len();
    out.resize(start + bytes.len().div_ceil(3) * 4, 0);
    let written = STANDARD.encode_slice(bytes, &mut out[start..]).unwrap_or_default();
    out.truncate(start + written);
    out.push(b'"');
}

/// The shortest digits that read back as the number; a string for what is no JSON number.
pub fn put_double(out: &mut Vec<u8>, value: f64) {
    if value.is_finite() {
        put(out, format_args!("{value:?}"));
    } else {
        put_special(out, value);
    }
}

pub fn put_float(out: &mut Vec<u8>, value: f32) {
    if value.is_finite() {
        put(out, format_args!("{value:?}"));
    } else {
        put_special(out, value.into());
    }
}

fn put_special(out: &mut Vec<u8>, value: f64) {
    out.extend_from_slice(match value {
        value if value.is_nan() => b"\"NaN\"".as_slice(),
        value if value > 0.0 => b"\"Infinity\"",
        _ => b"\"-Infinity\"",
    });
}

/// A valid google.protobuf.Timestamp in RFC 3339, with 0, 3, 6 or 9 digits of a second's fraction.
pub fn put_timestamp(out: &mut Vec<u8>, seconds: i64, nanos: i32) {
    let (days, second) = (seconds.div_euclid(86_400), seconds.rem_euclid(86_400));
    let (year, month, day) = civil(days);
    let (hour, minute, second) = (second / 3600, second / 60 % 60, second % 60);
    put(out, format_args!("\"{year:04}-{month:02}-{day:02}T{hour:02}:{minute:02}:{second:02}"));
    put_fraction(out, nanos.unsigned_abs());
    out.extend_from_slice(b"Z\"");
}

/// A valid google.protobuf.Duration: `1.500s`.
pub fn put_duration(out: &mut Vec<u8>, seconds: i64, nanos: i32) {
    let sign = if seconds < 0 || nanos < 0 { "-" } else { "" };
    put(out, format_args!("\"{sign}{}", seconds.unsigned_abs()));
    put_fraction(out, nanos.unsigned_abs());
    out.extend_from_slice(b"s\"");
}

fn put_fraction(out: &mut Vec<u8>, nanos: u32) {
    match nanos {
        0 => {}
        _ if nanos.is_multiple_of(1_000_000) => put(out, format_args!(".{:03}", nanos / 1_000_000)),
        _ if nanos.is_multiple_of(1000) => put(out, format_args!(".{:06}", nanos / 1000)),
        _ => put(out, format_args!(".{nanos:09}")),
    }
}

/// Year, month and day of a number of days since 1970-01-01, in the proleptic Gregorian calendar.
fn civil(days: i64) -> (i64, i64, i64) {
    // Days since 0000-03-01, in eras of 400 years, so that a leap day is the last of its year.
    let days = days + 719_468;
    let (era, day) = (days.div_euclid(146_097), days.rem_euclid(146_097));
    let year = (day - day / 1460 + day / 36_524 - day / 146_096) / 365;
    let day_of_year = day - (365 * year + year / 4 - year / 100);
    let month = (5 * day_of_year + 2) / 153;
    let day = day_of_year - (153 * month + 2) / 5 + 1;
    let (month, next) = if month < 10 { (month + 3, 0) } else { (month - 9, 1) };
    (era * 400 + year + next, month, day)
}

/// A path of a google.protobuf.FieldMask in lowerCamelCase; false if it has no such form that reads back as itself.
pub fn put_mask_path(out: &mut Vec<u8>, path: &[u8]) -> bool {
    let mut bytes = path.iter();
    let start = out.len();
    while let Some(byte) = bytes.next() {
        match byte {
            b'A'..=b'Z' => return false,
            b'_' => match bytes.next() {
                Some(next @ b'a'..=b'z') => out.push(next.to_ascii_uppercase()),
                _ => return false,
            },
            byte => out.push(*byte),
        }
    }
    let camel = out.split_off(start);
    put_escaped(out, &camel);
    true
}

#[cfg(test)]
mod tests {
    use super::*;

    fn text(put: impl FnOnce(&mut Vec<u8>)) -> String {
        let mut out = Vec::new();
        put(&mut out);
        String::from_utf8(out).unwrap()
    }

    #[test]
    fn strings() {
        assert_eq!(text(|out| put_string(out, "a\"\\/ä\u{7f}".as_bytes())), "\"a\\\"\\\\/ä\u{7f}\"");
        assert_eq!(text(|out| put_string(out, b"\0\x08\t\n\x0c\r\x1f ")), r#""\u0000\b\t\n\f\r\u001f ""#);
        assert_eq!(text(|out| put_base64(out, b"")), "\"\"");
        assert_eq!(text(|out| put_base64(out, b"\xff\xfe")), "\"//4=\"");
    }

    #[test]
    fn numbers() {
        let double = |value| text(|out| put_double(out, value));
        assert_eq!(double(1.0), "1.0");
        assert_eq!(double(-0.0), "-0.0");
        assert_eq!(double(1e300), "1e300");
        assert_eq!(double(f64::NAN), "\"NaN\"");
        assert_eq!(double(f64::NEG_INFINITY), "\"-Infinity\"");
        assert_eq!(text(|out| put_float(out, 0.1)), "0.1");
        assert_eq!(text(|out| put_float(out, f32::INFINITY)), "\"Infinity\"");
    }

    #[test]
    fn times() {
        let timestamp = |seconds, nanos| text(|out| put_timestamp(out, seconds, nanos));
        assert_eq!(timestamp(0, 0), "\"1970-01-01T00:00:00Z\"");
        assert_eq!(timestamp(-62_135_596_800, 0), "\"0001-01-01T00:00:00Z\"");
        assert_eq!(timestamp(253_402_300_799, 999_999_999), "\"9999-12-31T23:59:59.999999999Z\"");
        assert_eq!(timestamp(951_782_400, 500_000_000), "\"2000-02-29T00:00:00.500Z\"");
        assert_eq!(timestamp(-1, 1000), "\"1969-12-31T23:59:59.000001Z\"");
        let duration = |seconds, nanos| text(|out| put_duration(out, seconds, nanos));
        assert_eq!(duration(0, 0), "\"0s\"");
        assert_eq!(duration(0, -5), "\"-0.000000005s\"");
        assert_eq!(duration(-315_576_000_000, -10_000_000), "\"-315576000000.010s\"");
    }

    #[test]
    fn every_day_of_four_centuries() {
        let mut date = chrono::NaiveDate::from_ymd_opt(1, 1, 1).unwrap();
        for days in -719_162..-719_162 + 3 * 146_097 {
            use chrono::Datelike;
            assert_eq!(civil(days), (date.year().into(), date.month().into(), date.day().into()));
            date = date.succ_opt().unwrap();
        }
    }

    #[test]
    fn mask_paths() {
        let path = |path: &str| {
            let mut out = Vec::new();
            put_mask_path(&mut out, path.as_bytes()).then(|| String::from_utf8(out).unwrap())
        };
        assert_eq!(path("foo_bar.baz"), Some("fooBar.baz".into()));
        assert_eq!(path(""), Some("".into()));
        for bad in ["fooBar", "foo_", "foo_3", "foo__bar", "_"] {
            assert_eq!(path(bad), None, "{bad}");
        }
    }
}
