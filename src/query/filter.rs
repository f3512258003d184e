//! SQL filters as Iceberg predicates: what a manifest, a file's bounds or a row group's statistics can answer.
//!
//! Only ever a hint: DataFusion evaluates the filter itself on the rows that remain. So whatever has no counterpart is
//! left out, and a predicate may keep too much but never drops a row that the filter keeps.

use datafusion::common::ScalarValue;
use datafusion::logical_expr::expr::{InList, ScalarFunction};
use datafusion::logical_expr::{Between, BinaryExpr, Expr, Like, Operator};
use iceberg::expr::{Predicate, Reference};
use iceberg::spec::{Datum, NestedFieldRef, PrimitiveType, Schema, Type};

/// The columns of filters, and how a predicate names them.
pub struct Columns<'a> {
    /// The schema that the query was planned on.
    pub query: &'a Schema,
    /// The schema that the predicate is bound to: the snapshot's, where a column may have had another name.
    pub scan: &'a Schema,
}

/// The path of a column or of a field in structs, `["_kafka", "offset"]`; `None` for any other expression.
pub fn field_path(expr: &Expr) -> Option<Vec<&str>> {
    match expr {
        Expr::Alias(alias) => field_path(&alias.expr),
        Expr::Column(column) => Some(vec![column.name.as_str()]),
        Expr::ScalarFunction(ScalarFunction { func, args }) if func.name() == "get_field" => {
            let (base, names) = args.split_first()?;
            let mut path = field_path(base)?;
            for name in names {
                match name {
                    Expr::Literal(ScalarValue::Utf8(Some(name)), _) => path.push(name),
                    _ => return None,
                }
            }
            Some(path)
        }
        _ => None,
    }
}

impl Columns<'_> {
    /// What must hold for a row to pass all of `filters`, as far as Iceberg can say it.
    pub fn predicate<'e>(&self, filters: impl IntoIterator<Item = &'e Expr>) -> Option<Predicate> {
        filters.into_iter().filter_map(|filter| self.necessary(filter)).reduce(Predicate::and)
    }

    /// The primitive field at a path that goes through structs only.
    fn leaf(&self, expr: &Expr) -> Option<(Reference, PrimitiveType)> {
        let path = field_path(expr)?;
        let (first, rest) = path.split_first()?;
        let mut field: NestedFieldRef = self.query.as_struct().fields().iter().find(|f| f.name == *first)?.clone();
        for name in rest {
            let Type::Struct(inner) = field.field_type.as_ref() else { return None };
            let next = inner.fields().iter().find(|f| f.name == *name)?.clone();
            field = next;
        }
        let Type::Primitive(primitive) = field.field_type.as_ref() else { return None };
        let scanned = self.scan.field_by_id(field.id)?;
        if scanned.field_type.as_primitive_type() != Some(primitive) {
            return None;
        }
        Some((Reference::new(self.scan.name_by_field_id(field.id)?), primitive.clone()))
    }

    /// A predicate that holds wherever `expr` does.
    fn necessary(&self, expr: &Expr) -> Option<Predicate> {
        match expr {
            Expr::Alias(alias) => self.necessary(&alias.expr),
            Expr::BinaryExpr(BinaryExpr { left, op: Operator::And, right }) => {
                match (self.necessary(left), self.necessary(right)) {
                    (Some(left), Some(right)) => Some(left.and(right)),
                    (one, other) => one.or(other),
                }
            }
            Expr::BinaryExpr(BinaryExpr { left, op: Operator::Or, right }) => {
                Some(self.necessary(left)?.or(self.necessary(right)?))
            }
            Expr::BinaryExpr(BinaryExpr { left, op, right }) => {
                if let Some((column, of)) = self.leaf(left) {
                    compare(column, &of, *op, literal(right)?)
                } else {
                    let (column, of) = self.leaf(right)?;
                    compare(column, &of, op.swap()?, literal(left)?)
                }
            }
            Expr::Between(Between { expr, negated: false, low, high }) => {
                let (column, of) = self.leaf(expr)?;
                let from = compare(column.clone(), &of, Operator::GtEq, literal(low)?);
                let to = compare(column, &of, Operator::LtEq, literal(high)?);
                match (from, to) {
                    (Some(from), Some(to)) => Some(from.and(to)),
                    (one, other) => one.or(other),
                }
            }
            Expr::InList(InList { expr, list, negated: false }) => {
                let (column, of) = self.leaf(expr)?;
                list.iter()
                    .map(|value| compare(column.clone(), &of, Operator::Eq, literal(value)?))
                    .collect::<Option<Vec<_>>>()?
                    .into_iter()
                    .reduce(Predicate::or)
            }
            Expr::Like(Like { negated: false, expr, pattern, escape_char: None, case_insensitive: false }) => {
                let (column, PrimitiveType::String) = self.leaf(expr)? else { return None };
                let pattern = literal(pattern)?.try_as_str()??;
                let prefix = pattern.split(['%', '_', '\\']).next().unwrap_or_default();
                (!prefix.is_empty()).then(|| column.starts_with(Datum::string(prefix)))
            }
            Expr::IsNull(expr) => Some(self.leaf(expr)?.0.is_null()),
            Expr::IsNotNull(expr) => Some(self.leaf(expr)?.0.is_not_null()),
            Expr::IsTrue(expr) => self.necessary(expr),
            Expr::Column(_) | Expr::ScalarFunction(_) => {
                let (column, PrimitiveType::Boolean) = self.leaf(expr)? else { return None };
                Some(column.equal_to(Datum::bool(true)))
            }
            Expr::Not(expr) => {
                let (column, PrimitiveType::Boolean) = self.leaf(expr)? else { return None };
                Some(column.equal_to(Datum::bool(false)))
            }
            _ => None,
        }
    }
}

fn literal(expr: &Expr) -> Option<&ScalarValue> {
    match expr {
        Expr::Literal(value, _) => Some(value),
        Expr::Alias(alias) => literal(&alias.expr),
        _ => None,
    }
}

fn compare(column: Reference, of: &PrimitiveType, op: Operator, value: &ScalarValue) -> Option<Predicate> {
    let datum = datum(of, value)?;
    // SQL sorts NaN above every number, Iceberg's bounds leave it out: `x > 1` keeps a file whose bounds end at 0.
    let floating = matches!(of, PrimitiveType::Float | PrimitiveType::Double);
    match op {
        Operator::Eq => Some(column.equal_to(datum)),
        Operator::Lt => Some(column.less_than(datum)),
        Operator::LtEq => Some(column.less_than_or_equal_to(datum)),
        Operator::Gt if !floating => Some(column.greater_than(datum)),
        Operator::GtEq if !floating => Some(column.greater_than_or_equal_to(datum)),
        _ => None,
    }
}

/// The literal in the column's own type; `None` where they differ, or where bounds do not order as SQL does.
fn datum(of: &PrimitiveType, value: &ScalarValue) -> Option<Datum> {
    Some(match (of, value) {
        (PrimitiveType::Boolean, ScalarValue::Boolean(Some(v))) => Datum::bool(*v),
        (PrimitiveType::Int, ScalarValue::Int32(Some(v))) => Datum::int(*v),
        (PrimitiveType::Long, ScalarValue::Int64(Some(v))) => Datum::long(*v),
        // Zero has two encodings and NaN many; statistics do not say which they mean.
        (PrimitiveType::Float, ScalarValue::Float32(Some(v))) if !v.is_nan() && *v != 0.0 => Datum::float(*v),
        (PrimitiveType::Double, ScalarValue::Float64(Some(v))) if !v.is_nan() && *v != 0.0 => Datum::double(*v),
        (PrimitiveType::Date, ScalarValue::Date32(Some(v))) => Datum::date(*v),
        (PrimitiveType::Timestamp, ScalarValue::TimestampMicrosecond(Some(v), None)) => Datum::timestamp_micros(*v),
        (PrimitiveType::Timestamptz, ScalarValue::TimestampMicrosecond(Some(v), Some(_))) => {
            Datum::timestamptz_micros(*v)
        }
        (PrimitiveType::String, value) => Datum::string(value.try_as_str()??),
        (PrimitiveType::Decimal { scale, .. }, ScalarValue::Decimal128(Some(v), _, literal_scale))
            if i64::from(*scale) == i64::from(*literal_scale) =>
        {
            Datum::try_from_bytes(&v.to_be_bytes(), of.clone()).ok()?
        }
        _ => return None,
    })
}
