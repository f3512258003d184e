//! The values of well-known types: their ranges, and what of them a column can hold.

/// Why a value has no column value: outside of what its type allows.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct OutOfRange;

/// Microseconds, and whether nanoseconds below one were cut off.
pub type Micros = (i64, bool);

/// google.protobuf.Timestamp: 0001-01-01T00:00:00Z to 9999-12-31T23:59:59.999999999Z, nanos 0…999,999,999
/// (timestamp.proto).
pub fn timestamp(seconds: i64, nanos: i32) -> Result<Micros, OutOfRange> {
    if !(-62_135_596_800..=253_402_300_799).contains(&seconds) || !(0..=999_999_999).contains(&nanos) {
        return Err(OutOfRange);
    }
    Ok((seconds * 1_000_000 + i64::from(nanos / 1000), nanos % 1000 != 0))
}

/// google.protobuf.Duration: ±315,576,000,000 s, nanos of the same sign (duration.proto). Floored below zero too.
pub fn duration(seconds: i64, nanos: i32) -> Result<Micros, OutOfRange> {
    let same_sign = seconds == 0 || nanos == 0 || (seconds < 0) == (nanos < 0);
    if !(-315_576_000_000..=315_576_000_000).contains(&seconds)
        || !(-999_999_999..=999_999_999).contains(&nanos)
        || !same_sign
    {
        return Err(OutOfRange);
    }
    Ok((seconds * 1_000_000 + i64::from(nanos.div_euclid(1000)), nanos % 1000 != 0))
}

/// Stands in a column of dates for one that is null, which only a value that is not a whole date can be.
pub const NO_DATE: i32 = i32::MIN;

/// google.type.Date: days since 1970-01-01, when year (1…9999), month and day are all set and name a day of the
/// proleptic Gregorian calendar.
pub fn date(year: i32, month: i32, day: i32) -> Option<i32> {
    if !(1..=9999).contains(&year) || !(1..=12).contains(&month) {
        return None;
    }
    let leap = year % 4 == 0 && (year % 100 != 0 || year % 400 == 0);
    let days_in_month = match month {
        2 if leap => 29,
        2 => 28,
        4 | 6 | 9 | 11 => 30,
        _ => 31,
    };
    if !(1..=days_in_month).contains(&day) {
        return None;
    }
    // Years counted from March, so that the leap day is the last of its year; 719,468 days lie between 0000-03-01
    // and 1970-01-01.
    let year = if month <= 2 { year - 1 } else { year };
    let day_of_year = (153 * ((month + 9) % 12) + 2) / 5 + day - 1;
    Some(year * 365 + year / 4 - year / 100 + year / 400 + day_of_year - 719_468)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn timestamps() {
        assert_eq!(timestamp(0, 0), Ok((0, false)));
        assert_eq!(timestamp(-1, 999_999_999), Ok((-1, true)));
        assert_eq!(timestamp(1, 1000), Ok((1_000_001, false)));
        assert_eq!(timestamp(253_402_300_799, 999_999_000), Ok((253_402_300_799_999_999, false)));
        assert_eq!(timestamp(253_402_300_800, 0), Err(OutOfRange));
        assert_eq!(timestamp(-62_135_596_801, 0), Err(OutOfRange));
        assert_eq!(timestamp(0, -1), Err(OutOfRange));
        assert_eq!(timestamp(0, 1_000_000_000), Err(OutOfRange));
    }

    #[test]
    fn durations() {
        assert_eq!(duration(0, -1), Ok((-1, true)));
        assert_eq!(duration(-1, -500_000_000), Ok((-1_500_000, false)));
        assert_eq!(duration(1, 1999), Ok((1_000_001, true)));
        assert_eq!(duration(1, -1), Err(OutOfRange));
        assert_eq!(duration(-1, 1), Err(OutOfRange));
        assert_eq!(duration(315_576_000_001, 0), Err(OutOfRange));
        assert_eq!(duration(0, 1_000_000_000), Err(OutOfRange));
    }

    #[test]
    fn dates() {
        assert_eq!(date(1970, 1, 1), Some(0));
        assert_eq!(date(1969, 12, 31), Some(-1));
        assert_eq!(date(2000, 2, 29), Some(11_016));
        assert_eq!(date(1, 1, 1), Some(-719_162));
        assert_eq!(date(9999, 12, 31), Some(2_932_896));
        for (year, month, day) in [(0, 1, 1), (10_000, 1, 1), (2001, 2, 29), (1900, 2, 29), (2001, 0, 1), (2001, 1, 0)]
        {
            assert_eq!(date(year, month, day), None, "{year}-{month}-{day}");
        }
    }
}
