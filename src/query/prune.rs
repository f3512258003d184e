//! Row groups that cannot hold a row that a predicate keeps, told from a Parquet footer.
//!
//! Iceberg's own evaluator only knows top-level columns; the default partition column `_kafka.timestamp` and the
//! offsets beside it lie in a struct.

use std::cmp::Ordering;

use arrow::datatypes::{DataType, Fields};
use iceberg::expr::{Predicate, PredicateOperator, Reference};
use iceberg::spec::{Datum, PrimitiveLiteral, PrimitiveType, Schema};
use parquet::file::metadata::RowGroupMetaData;
use parquet::file::statistics::Statistics;

use super::project::field_id;

/// A file's row groups under a predicate whose names are those of `schema`.
pub struct Pruner<'a> {
    pub schema: &'a Schema,
    /// The file's columns, with their ids.
    pub file: &'a Fields,
}

enum Leaf<'s> {
    /// No statement is possible.
    Unknown,
    /// The file lacks the column: all its values are null.
    Absent,
    Present {
        statistics: &'s Statistics,
        of: PrimitiveType,
    },
}

impl Pruner<'_> {
    /// Whether a row of this row group may pass. In doubt, yes.
    pub fn may_match(&self, predicate: &Predicate, group: &RowGroupMetaData) -> bool {
        match predicate {
            Predicate::AlwaysFalse => false,
            Predicate::And(both) => both.inputs().iter().all(|input| self.may_match(input, group)),
            Predicate::Or(either) => either.inputs().iter().any(|input| self.may_match(input, group)),
            Predicate::Unary(unary) => match (unary.op(), self.leaf(unary.term(), group)) {
                (PredicateOperator::IsNull, Leaf::Present { statistics, .. }) => statistics.null_count_opt() != Some(0),
                (PredicateOperator::NotNull, Leaf::Present { statistics, .. }) => {
                    statistics.null_count_opt() != u64::try_from(group.num_rows()).ok()
                }
                (PredicateOperator::NotNull, Leaf::Absent) => false,
                _ => true,
            },
            Predicate::Binary(binary) => match self.leaf(binary.term(), group) {
                Leaf::Unknown => true,
                Leaf::Absent => !matches!(
                    binary.op(),
                    PredicateOperator::Eq
                        | PredicateOperator::LessThan
                        | PredicateOperator::LessThanOrEq
                        | PredicateOperator::GreaterThan
                        | PredicateOperator::GreaterThanOrEq
                        | PredicateOperator::StartsWith
                ),
                Leaf::Present { statistics, of } => {
                    let Some((least, most)) = bounds(statistics, &of) else { return true };
                    within(binary.op(), binary.literal(), &least, &most)
                }
            },
            _ => true,
        }
    }

    fn leaf<'s>(&self, column: &Reference, group: &'s RowGroupMetaData) -> Leaf<'s> {
        let Some(field) = self.schema.field_by_name(column.name()) else { return Leaf::Unknown };
        let Some(of) = field.field_type.as_primitive_type() else { return Leaf::Unknown };
        if self.file.iter().any(|field| field_id(field).is_none()) {
            return Leaf::Unknown;
        }
        match leaf_index(self.file, field.id, 0) {
            Ok(index) => match group.columns().get(index).and_then(|column| column.statistics()) {
                Some(statistics) => Leaf::Present { statistics, of: of.clone() },
                None => Leaf::Unknown,
            },
            Err(_) => Leaf::Absent,
        }
    }
}

/// The index of the leaf with this id, or how many leaves there are.
fn leaf_index(fields: &Fields, id: i32, first: usize) -> Result<usize, usize> {
    fields
        .iter()
        .try_fold(first, |next, field| match field.data_type() {
            DataType::Struct(inner) => invert(leaf_index(inner, id, next)),
            DataType::Map(entries, _) => match entries.data_type() {
                DataType::Struct(inner) => invert(leaf_index(inner, id, next)),
                _ => Ok(next + 1),
            },
            DataType::List(element) => invert(leaf_index(&Fields::from(vec![element.clone()]), id, next)),
            _ if field_id(field) == Some(id) => Err(next),
            _ => Ok(next + 1),
        })
        .map_or_else(Ok, Err)
}

/// `try_fold` stops at an error: here, at the leaf that was found.
fn invert(found: Result<usize, usize>) -> Result<usize, usize> {
    found.map_or_else(Ok, Err)
}

fn bounds(statistics: &Statistics, of: &PrimitiveType) -> Option<(Datum, Datum)> {
    Some((bound(statistics, of, true)?, bound(statistics, of, false)?))
}

fn bound(statistics: &Statistics, of: &PrimitiveType, least: bool) -> Option<Datum> {
    macro_rules! pick {
        ($typed:expr) => {
            if least { $typed.min_opt() } else { $typed.max_opt() }
        };
    }
    let decimal = |unscaled: i128| Datum::try_from_bytes(&unscaled.to_be_bytes(), of.clone()).ok();
    match (of, statistics) {
        (PrimitiveType::Boolean, Statistics::Boolean(s)) => pick!(s).map(|v| Datum::bool(*v)),
        (PrimitiveType::Int, Statistics::Int32(s)) => pick!(s).map(|v| Datum::int(*v)),
        (PrimitiveType::Date, Statistics::Int32(s)) => pick!(s).map(|v| Datum::date(*v)),
        (PrimitiveType::Long, Statistics::Int32(s)) => pick!(s).map(|v| Datum::long(*v)),
        (PrimitiveType::Long, Statistics::Int64(s)) => pick!(s).map(|v| Datum::long(*v)),
        (PrimitiveType::Timestamp, Statistics::Int64(s)) => pick!(s).map(|v| Datum::timestamp_micros(*v)),
        (PrimitiveType::Timestamptz, Statistics::Int64(s)) => pick!(s).map(|v| Datum::timestamptz_micros(*v)),
        (PrimitiveType::Float, Statistics::Float(s)) => pick!(s).map(|v| Datum::float(*v)),
        (PrimitiveType::Double, Statistics::Float(s)) => pick!(s).map(|v| Datum::double(f64::from(*v))),
        (PrimitiveType::Double, Statistics::Double(s)) => pick!(s).map(|v| Datum::double(*v)),
        (PrimitiveType::String, Statistics::ByteArray(s)) => pick!(s).and_then(|v| v.as_utf8().ok()).map(Datum::string),
        (PrimitiveType::Decimal { .. }, Statistics::Int32(s)) => pick!(s).and_then(|v| decimal(i128::from(*v))),
        (PrimitiveType::Decimal { .. }, Statistics::Int64(s)) => pick!(s).and_then(|v| decimal(i128::from(*v))),
        (PrimitiveType::Decimal { .. }, Statistics::FixedLenByteArray(s)) => {
            pick!(s).and_then(|v| Datum::try_from_bytes(v.data(), of.clone()).ok())
        }
        _ => None,
    }
}

/// Whether a value between the bounds, themselves included, may satisfy `value op literal`.
fn within(op: PredicateOperator, literal: &Datum, least: &Datum, most: &Datum) -> bool {
    let (Some(from_least), Some(from_most)) = (order(literal, least), order(literal, most)) else { return true };
    match op {
        PredicateOperator::Eq => from_least != Ordering::Less && from_most != Ordering::Greater,
        PredicateOperator::LessThan => from_least == Ordering::Greater,
        PredicateOperator::LessThanOrEq => from_least != Ordering::Less,
        PredicateOperator::GreaterThan => from_most == Ordering::Less,
        PredicateOperator::GreaterThanOrEq => from_most != Ordering::Greater,
        PredicateOperator::StartsWith => match (literal.literal(), least.literal(), most.literal()) {
            (PrimitiveLiteral::String(prefix), PrimitiveLiteral::String(least), PrimitiveLiteral::String(most)) => {
                let head = |value: &str| value.as_bytes()[..value.len().min(prefix.len())].to_vec();
                head(least).as_slice() <= prefix.as_bytes() && head(most).as_slice() >= prefix.as_bytes()
            }
            _ => true,
        },
        _ => true,
    }
}

fn order(one: &Datum, other: &Datum) -> Option<Ordering> {
    match (one.literal(), other.literal()) {
        (PrimitiveLiteral::Int128(one), PrimitiveLiteral::Int128(other)) => Some(one.cmp(other)),
        (PrimitiveLiteral::String(one), PrimitiveLiteral::String(other)) => Some(one.as_bytes().cmp(other.as_bytes())),
        _ => one.partial_cmp(other),
    }
}
