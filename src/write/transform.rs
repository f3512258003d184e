//! Iceberg's partition transforms on Arrow columns (spec, "Partition Transforms").
//!
//! Bucketing and the truncation of strings are iceberg's own functions. The rest is here because iceberg's are not
//! total: `day` is a day late within the last second before a midnight before 1970, and truncating numbers near the
//! end of their type overflows.

use std::sync::Arc;

use arrow::array::{ArrayRef, AsArray, Date32Array, Int32Array, PrimitiveArray, new_null_array};
use arrow::compute::cast;
use arrow::datatypes::{
    DataType, Date32Type, Decimal128Type, Int32Type, Int64Type, TimeUnit, TimestampMicrosecondType,
    TimestampNanosecondType,
};
use arrow::error::ArrowError;
use iceberg::spec::Transform;
use iceberg::transform::create_transform_function;

const MICROS_PER_HOUR: i64 = 3_600_000_000;
const HOURS_PER_DAY: i64 = 24;

/// Applies `transform` to a column; nulls stay null.
pub fn apply(transform: Transform, column: &ArrayRef) -> Result<ArrayRef, ArrowError> {
    match transform {
        Transform::Identity => Ok(column.clone()),
        Transform::Void => Ok(new_null_array(column.data_type(), column.len())),
        Transform::Year => Ok(Arc::new(days(column)?.unary::<_, Int32Type>(|day| civil(day).0 - 1970))),
        Transform::Month => Ok(Arc::new(days(column)?.unary::<_, Int32Type>(|day| {
            let (year, month) = civil(day);
            (year - 1970) * 12 + month - 1
        }))),
        Transform::Day => Ok(Arc::new(days(column)?)),
        Transform::Hour => Ok(Arc::new(hours(column)?)),
        Transform::Truncate(width) => match column.data_type() {
            DataType::Int32 => Ok(Arc::new(column.as_primitive::<Int32Type>().unary::<_, Int32Type>(|value| {
                value.wrapping_sub(i64::from(value).rem_euclid(i64::from(width.max(1))) as i32)
            }))),
            DataType::Int64 => Ok(Arc::new(
                column
                    .as_primitive::<Int64Type>()
                    .unary::<_, Int64Type>(|value| value.wrapping_sub(value.rem_euclid(i64::from(width.max(1))))),
            )),
            DataType::Decimal128(precision, scale) => {
                let values: PrimitiveArray<Decimal128Type> = column
                    .as_primitive::<Decimal128Type>()
                    .unary(|value| value.wrapping_sub(value.rem_euclid(i128::from(width.max(1)))));
                Ok(Arc::new(values.with_precision_and_scale(*precision, *scale)?))
            }
            _ => by_iceberg(transform, column),
        },
        Transform::Bucket(_) => by_iceberg(transform, column),
        Transform::Unknown => Err(ArrowError::NotYetImplemented("an unknown partition transform".into())),
    }
}

/// iceberg's functions know 32-bit offsets only for strings and binaries.
fn by_iceberg(transform: Transform, column: &ArrayRef) -> Result<ArrayRef, ArrowError> {
    let column = match column.data_type() {
        DataType::LargeUtf8 | DataType::Utf8View => cast(column, &DataType::Utf8)?,
        DataType::LargeBinary | DataType::BinaryView => cast(column, &DataType::Binary)?,
        _ => column.clone(),
    };
    create_transform_function(&transform)
        .and_then(|function| function.transform(column))
        .map_err(|error| ArrowError::InvalidArgumentError(error.to_string()))
}

/// Days since the epoch.
fn days(column: &ArrayRef) -> Result<Date32Array, ArrowError> {
    if column.data_type() == &DataType::Date32 {
        return Ok(column.as_primitive::<Date32Type>().clone());
    }
    Ok(hours(column)?.unary(|hour| i64::from(hour).div_euclid(HOURS_PER_DAY) as i32))
}

/// Hours since the epoch; 32 bits hold them for any timestamp in microseconds up to the year 246,953.
fn hours(column: &ArrayRef) -> Result<Int32Array, ArrowError> {
    Ok(match column.data_type() {
        DataType::Timestamp(TimeUnit::Microsecond, _) => {
            column.as_primitive::<TimestampMicrosecondType>().unary(|micros| micros.div_euclid(MICROS_PER_HOUR) as i32)
        }
        DataType::Timestamp(TimeUnit::Nanosecond, _) => column
            .as_primitive::<TimestampNanosecondType>()
            .unary(|nanos| nanos.div_euclid(MICROS_PER_HOUR * 1000) as i32),
        other => return Err(ArrowError::InvalidArgumentError(format!("{other} has no time to partition by"))),
    })
}

/// Year and month (from 1) of a day since the epoch, in the proleptic Gregorian calendar: years are counted from March,
/// so that the leap day is a year's last.
pub fn civil(day: i32) -> (i32, i32) {
    let day = i64::from(day) + 719_468;
    let era = day.div_euclid(146_097);
    let day = day.rem_euclid(146_097);
    let year = (day - day / 1_460 + day / 36_524 - day / 146_096) / 365;
    let day_of_year = day - (365 * year + year / 4 - year / 100);
    let month = (5 * day_of_year + 2) / 153;
    let month = if month < 10 { month + 3 } else { month - 9 };
    let year = year + era * 400 + i64::from(month <= 2);
    (year as i32, month as i32)
}

#[cfg(test)]
mod tests {
    use arrow::array::{
        Array, BinaryViewArray, Decimal128Array, Int64Array, LargeBinaryArray, StringArray, StringViewArray,
        TimestampMicrosecondArray,
    };
    use chrono::{DateTime, Datelike, NaiveDate};

    use super::*;

    const DAY: i64 = 86_400_000_000;

    #[test]
    fn times_are_floored_on_both_sides_of_the_epoch() {
        let mut micros =
            vec![0, -1, 1, DAY - 1, DAY, -DAY, -DAY - 1, -DAY - 500_000, -DAY + 1, -62_135_596_800_000_000];
        micros.extend((0..500).map(|step: i64| step * 7_919 * 1_000_003 * 77 - 5_000_000_000_000_000));
        let column: ArrayRef = Arc::new(TimestampMicrosecondArray::from(micros.clone()).with_timezone("+00:00"));
        let of = |transform| apply(transform, &column).unwrap();
        let day = of(Transform::Day);
        let (year, month, hour) = (of(Transform::Year), of(Transform::Month), of(Transform::Hour));
        for (row, value) in micros.iter().enumerate() {
            let time = DateTime::from_timestamp_micros(*value).unwrap();
            let epoch = NaiveDate::from_ymd_opt(1970, 1, 1).unwrap();
            let days = (time.date_naive() - epoch).num_days() as i32;
            assert_eq!(day.as_primitive::<Date32Type>().value(row), days, "{time}");
            assert_eq!(year.as_primitive::<Int32Type>().value(row), time.year() - 1970, "{time}");
            let months = (time.year() - 1970) * 12 + time.month0() as i32;
            assert_eq!(month.as_primitive::<Int32Type>().value(row), months, "{time}");
            assert_eq!(
                i64::from(hour.as_primitive::<Int32Type>().value(row)),
                value.div_euclid(3_600_000_000),
                "{time}"
            );
        }
    }

    /// The values of the specification's appendix B.
    #[test]
    fn buckets_hash_as_the_specification_says() {
        let bucket = |column: ArrayRef| {
            apply(Transform::Bucket(i32::MAX as u32), &column).unwrap().as_primitive::<Int32Type>().value(0)
        };
        let expected = |hash: i32| (hash & i32::MAX) % i32::MAX;
        assert_eq!(bucket(Arc::new(Int32Array::from(vec![34]))), expected(2_017_239_379));
        assert_eq!(bucket(Arc::new(Int64Array::from(vec![34]))), expected(2_017_239_379));
        assert_eq!(bucket(Arc::new(StringViewArray::from(vec!["iceberg"]))), expected(1_210_000_089));
        assert_eq!(bucket(Arc::new(BinaryViewArray::from(vec![&[0u8, 1, 2, 3][..]]))), expected(-188_683_207));
        assert_eq!(bucket(Arc::new(LargeBinaryArray::from(vec![&[0u8, 1, 2, 3][..]]))), expected(-188_683_207));
        let decimal = Decimal128Array::from(vec![1420]).with_precision_and_scale(9, 2).unwrap();
        assert_eq!(bucket(Arc::new(decimal)), expected(-500_754_589));
    }

    #[test]
    fn truncation_floors_and_never_overflows() {
        let column: ArrayRef =
            Arc::new(Int64Array::from(vec![Some(-1), Some(19), None, Some(i64::MIN), Some(i64::MAX)]));
        let cut = apply(Transform::Truncate(10), &column).unwrap();
        let cut = cut.as_primitive::<Int64Type>();
        assert_eq!((cut.value(0), cut.value(1)), (-10, 10));
        assert!(cut.is_null(2));
        let column: ArrayRef = Arc::new(StringArray::from(vec!["häßlich"]));
        assert_eq!(apply(Transform::Truncate(3), &column).unwrap().as_string::<i32>().value(0), "häß");
    }
}
