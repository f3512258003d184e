//! Durations, sizes and times as people write them: a number never comes without its unit.

use std::time::Duration;

use chrono::{DateTime, NaiveDate, NaiveDateTime};

/// `250ms`, `10s`, `5m`, `1h30m`, `2d`. More than 0, at most ten years.
pub fn duration(text: &str) -> Result<Duration, String> {
    const EXAMPLE: &str = "write a number with a unit: `250ms`, `10s`, `5m`, `1h30m`, `2d`";
    const LONGEST: Duration = Duration::from_secs(3650 * 86_400);
    let mut rest = text.trim();
    let mut total = Duration::ZERO;
    if rest.is_empty() {
        return Err(format!("is empty; {EXAMPLE}"));
    }
    while !rest.is_empty() {
        let (number, after) = leading_number(rest).ok_or_else(|| format!("is not a duration; {EXAMPLE}"))?;
        let unit_end = after.find(|c: char| !c.is_ascii_alphabetic()).unwrap_or(after.len());
        let seconds = match &after[..unit_end] {
            "ms" => 0.001,
            "s" => 1.0,
            "m" | "min" => 60.0,
            "h" => 3600.0,
            "d" => 86_400.0,
            "" => return Err(format!("has no unit; {EXAMPLE}")),
            unit => return Err(format!("has the unit `{unit}`, which is none of ms, s, m, h, d")),
        };
        let part = Duration::try_from_secs_f64(number * seconds).ok().filter(|part| *part <= LONGEST);
        total = part.and_then(|part| total.checked_add(part)).ok_or("is longer than ten years")?;
        rest = after[unit_end..].trim_start();
    }
    match total {
        total if total < Duration::from_millis(1) => Err("must be longer than nothing".to_string()),
        total if total > LONGEST => Err("is longer than ten years".to_string()),
        total => Ok(total),
    }
}

/// Bytes: `64MiB`, `1GiB`, `500MB`, `4096B`. KiB, MiB, GiB, TiB are powers of 1024; kB, MB, GB, TB of 1000.
pub fn size(text: &str) -> Result<u64, String> {
    const EXAMPLE: &str = "write a number with a unit: `64MiB`, `1GiB`, `500MB`";
    let (number, unit) = leading_number(text.trim()).ok_or_else(|| format!("is not a size; {EXAMPLE}"))?;
    let factor: f64 = match unit.trim_start().to_ascii_lowercase().as_str() {
        "b" => 1.0,
        "kib" => 1024.0,
        "mib" => 1024.0 * 1024.0,
        "gib" => 1024.0 * 1024.0 * 1024.0,
        "tib" => 1024.0 * 1024.0 * 1024.0 * 1024.0,
        "kb" => 1e3,
        "mb" => 1e6,
        "gb" => 1e9,
        "tb" => 1e12,
        "" => return Err(format!("has no unit; {EXAMPLE}")),
        _ => {
            return Err(format!(
                "has the unit `{}`, which is none of B, KiB, MiB, GiB, TiB, kB, MB, GB, TB",
                unit.trim()
            ));
        }
    };
    let bytes = number * factor;
    if bytes < 1.0 {
        return Err("must be more than nothing".to_string());
    }
    if bytes > (1u64 << 60) as f64 {
        return Err("is more than an exbibyte".to_string());
    }
    Ok(bytes as u64)
}

/// A point in time with its offset from UTC (RFC 3339), or a day, which begins at midnight UTC. In milliseconds since
/// the epoch, as Kafka counts.
pub fn timestamp(text: &str) -> Result<i64, String> {
    let text = text.trim();
    let millis = if let Ok(time) = DateTime::parse_from_rfc3339(text) {
        time.timestamp_millis()
    } else if let Ok(day) = NaiveDate::parse_from_str(text, "%Y-%m-%d") {
        day.and_time(chrono::NaiveTime::MIN).and_utc().timestamp_millis()
    } else if NaiveDateTime::parse_from_str(&text.replace(' ', "T"), "%Y-%m-%dT%H:%M:%S%.f").is_ok() {
        return Err("has no offset from UTC; append `Z` for UTC, or one like `+02:00`".to_string());
    } else {
        return Err("is not a time; write one like `2026-01-31T00:00:00Z`, or a day like `2026-01-31`".to_string());
    };
    if millis < 0 {
        return Err("is before 1970, where Kafka's timestamps begin".to_string());
    }
    Ok(millis)
}

/// Splits `12.5MiB` into `12.5` and `MiB`.
fn leading_number(text: &str) -> Option<(f64, &str)> {
    let end = text.find(|c: char| !c.is_ascii_digit() && c != '.').unwrap_or(text.len());
    let number = text[..end].parse::<f64>().ok()?;
    Some((number, text[end..].trim_start()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations() {
        for (text, millis) in [
            ("10s", 10_000),
            ("250ms", 250),
            ("5m", 300_000),
            ("1h30m", 5_400_000),
            ("1.5h", 5_400_000),
            ("2 d", 172_800_000),
        ] {
            assert_eq!(duration(text), Ok(Duration::from_millis(millis)), "{text}");
        }
        for (text, says) in [
            ("10", "no unit"),
            ("", "empty"),
            ("0s", "longer than nothing"),
            ("s", "not a duration"),
            ("-5s", "not a duration"),
            ("5 weeks", "unit `weeks`"),
            ("99999d", "ten years"),
            ("999999999999999999999999999999s", "ten years"),
            ("1.2.3s", "not a duration"),
        ] {
            let fault = duration(text).expect_err(text);
            assert!(fault.contains(says), "{text}: {fault}");
        }
    }

    #[test]
    fn sizes() {
        for (text, bytes) in [
            ("64MiB", 64 << 20),
            ("1GiB", 1 << 30),
            ("1 gib", 1 << 30),
            ("500MB", 500_000_000),
            ("1B", 1),
            ("1.5KiB", 1536),
        ] {
            assert_eq!(size(text), Ok(bytes), "{text}");
        }
        for (text, says) in [
            ("64", "no unit"),
            ("0MiB", "more than nothing"),
            ("64M", "unit `M`"),
            ("big", "not a size"),
            ("9999999TiB", "exbibyte"),
        ] {
            let fault = size(text).expect_err(text);
            assert!(fault.contains(says), "{text}: {fault}");
        }
    }

    #[test]
    fn times() {
        assert_eq!(timestamp("2026-01-31"), Ok(1_769_817_600_000));
        assert_eq!(timestamp("2026-01-31T00:00:00Z"), Ok(1_769_817_600_000));
        assert_eq!(timestamp("2026-01-31 02:00:00.250+02:00"), Ok(1_769_817_600_250));
        for (text, says) in [
            ("2026-01-31T00:00:00", "no offset"),
            ("2026-01-31 00:00:00", "no offset"),
            ("yesterday", "not a time"),
            ("1769817600000", "not a time"),
            ("1960-01-01", "before 1970"),
        ] {
            let fault = timestamp(text).expect_err(text);
            assert!(fault.contains(says), "{text}: {fault}");
        }
    }
}
