//! Whether a row of a table says what shredding its record gives.
//!
//! Equal means the same value: null is not empty, every NaN with the same bits is itself, zero is not minus zero.

use std::collections::HashSet;

use arrow::array::{Array, ArrayRef, AsArray};
use arrow::datatypes::{DataType, Field};
use arrow::util::display::{ArrayFormatter, FormatOptions};

use crate::query::field_id;

/// A value is told up to so many characters.
const SHOWN_MAX: usize = 80;

/// Field ids whose difference has a reason.
pub struct Reasons<'a> {
    /// The row's file was written before these columns came: null is right.
    pub lacking: &'a HashSet<i32>,
    /// These columns came later, and no row up to here has a value in them: null is right.
    pub unfilled: &'a HashSet<i32>,
    /// No field fills these any more: anything is right.
    pub retired: &'a HashSet<i32>,
}

/// Where and how a row differs.
#[derive(Debug, PartialEq, Eq)]
pub struct Found {
    /// The column's path: `inner.x`, `numbers[3]`, `labels[2].value`.
    pub path: String,
    pub in_table: String,
    pub in_log: String,
}

/// The first difference between row `i` of the table's column and row `j` of what the log gives.
pub fn differs(
    field: &Field,
    path: &str,
    table: (&ArrayRef, usize),
    log: (&ArrayRef, usize),
    reasons: &Reasons<'_>,
) -> Option<Found> {
    let ((actual, i), (expected, j)) = (table, log);
    let id = field_id(field);
    let is_in = |ids: &HashSet<i32>| id.is_some_and(|id| ids.contains(&id));
    if is_in(reasons.retired) {
        return None;
    }
    let found = || Some(Found { path: path.to_owned(), in_table: shown(actual, i), in_log: shown(expected, j) });
    match (actual.is_null(i), expected.is_null(j)) {
        (true, true) => return None,
        (true, false) => return if is_in(reasons.lacking) || is_in(reasons.unfilled) { None } else { found() },
        (false, true) => return found(),
        (false, false) => {}
    }
    match (field.data_type(), actual.data_type(), expected.data_type()) {
        (DataType::Struct(fields), DataType::Struct(have), DataType::Struct(want))
            if have.len() == fields.len() && want.len() == fields.len() =>
        {
            let (actual, expected) = (actual.as_struct(), expected.as_struct());
            fields.iter().enumerate().find_map(|(at, field)| {
                let path = format!("{path}.{}", field.name());
                differs(field, &path, (actual.column(at), i), (expected.column(at), j), reasons)
            })
        }
        (DataType::List(element), DataType::List(_), DataType::List(_)) => {
            let (actual, expected) = (actual.as_list::<i32>(), expected.as_list::<i32>());
            let (length, wanted) = (actual.value_length(i), expected.value_length(j));
            if length != wanted {
                return found();
            }
            let (first, wanted_first) = (actual.value_offsets()[i], expected.value_offsets()[j]);
            (0..length).find_map(|at| {
                let path = format!("{path}[{at}]");
                let table = (actual.values(), (first + at) as usize);
                differs(element, &path, table, (expected.values(), (wanted_first + at) as usize), reasons)
            })
        }
        (DataType::Map(entries, _), DataType::Map(..), DataType::Map(..)) => {
            let DataType::Struct(entry) = entries.data_type() else { return found() };
            let (actual, expected) = (actual.as_map(), expected.as_map());
            let (length, wanted) = (actual.value_length(i), expected.value_length(j));
            let [key, value] = entry.as_ref() else { return found() };
            if length != wanted {
                return found();
            }
            let (first, wanted_first) = (actual.value_offsets()[i], expected.value_offsets()[j]);
            (0..length).find_map(|at| {
                let (i, j) = ((first + at) as usize, (wanted_first + at) as usize);
                differs(key, &format!("{path}[{at}].key"), (actual.keys(), i), (expected.keys(), j), reasons).or_else(
                    || {
                        let path = format!("{path}[{at}].value");
                        differs(value, &path, (actual.values(), i), (expected.values(), j), reasons)
                    },
                )
            })
        }
        _ => match actual.slice(i, 1).to_data() == expected.slice(j, 1).to_data() {
            true => None,
            false => found(),
        },
    }
}

/// Adds to `filled` those of `unfilled` that have a value in some row.
pub fn note_filled(field: &Field, array: &ArrayRef, unfilled: &HashSet<i32>, filled: &mut HashSet<i32>) {
    if array.null_count() == array.len() {
        return;
    }
    filled.extend(field_id(field).filter(|id| unfilled.contains(id)));
    let within = |values: &ArrayRef, offsets: &[i32]| {
        let (first, last) = (offsets.first().copied().unwrap_or(0), offsets.last().copied().unwrap_or(0));
        values.slice(first as usize, (last - first) as usize)
    };
    match array.data_type() {
        DataType::Struct(fields) => {
            for (field, column) in fields.iter().zip(array.as_struct().columns()) {
                note_filled(field, column, unfilled, filled);
            }
        }
        DataType::List(element) => {
            let list = array.as_list::<i32>();
            note_filled(element, &within(list.values(), list.value_offsets()), unfilled, filled);
        }
        DataType::Map(entries, _) => {
            let map = array.as_map();
            if let DataType::Struct(entry) = entries.data_type()
                && let [_, value] = entry.as_ref()
            {
                note_filled(value, &within(map.values(), map.value_offsets()), unfilled, filled);
            }
        }
        _ => {}
    }
}

fn shown(array: &ArrayRef, row: usize) -> String {
    if array.is_null(row) {
        return "null".to_owned();
    }
    let options = FormatOptions::default().with_null("null");
    let Ok(format) = ArrayFormatter::try_new(array, &options) else { return "a value".to_owned() };
    let text = format.value(row).to_string();
    let text = match array.data_type() {
        DataType::Utf8 => format!("{text:?}"),
        _ => text,
    };
    match text.char_indices().nth(SHOWN_MAX) {
        Some((at, _)) => format!("{}…", &text[..at]),
        None => text,
    }
}

#[cfg(test)]
mod tests {
    use std::collections::HashMap;
    use std::sync::Arc;

    use arrow::array::{Float64Array, ListArray, StringArray, StructArray};
    use arrow::datatypes::Int32Type;
    use parquet::arrow::PARQUET_FIELD_ID_META_KEY;

    use super::*;

    fn field(name: &str, id: i32, data_type: DataType) -> Field {
        let id = HashMap::from([(PARQUET_FIELD_ID_META_KEY.to_owned(), id.to_string())]);
        Field::new(name, data_type, true).with_metadata(id)
    }

    fn check(table: ArrayRef, log: ArrayRef, lacking: &[i32], retired: &[i32], expected: Option<(&str, &str, &str)>) {
        let field = field("a", 1, table.data_type().clone());
        let (lacking, retired) = (lacking.iter().copied().collect(), retired.iter().copied().collect());
        let reasons = Reasons { lacking: &lacking, unfilled: &HashSet::new(), retired: &retired };
        let found = differs(&field, "a", (&table, 0), (&log, 0), &reasons);
        let expected = expected.map(|(path, in_table, in_log)| Found {
            path: path.to_owned(),
            in_table: in_table.to_owned(),
            in_log: in_log.to_owned(),
        });
        assert_eq!(found, expected);
    }

    fn text(value: Option<&str>) -> ArrayRef {
        Arc::new(StringArray::from(vec![value]))
    }

    #[test]
    fn null_is_not_empty_and_a_reason_excuses_what_it_explains() {
        check(text(Some("x")), text(Some("x")), &[], &[], None);
        check(text(None), text(Some("")), &[], &[], Some(("a", "null", "\"\"")));
        check(text(None), text(Some("")), &[1], &[], None);
        check(text(Some("")), text(None), &[1], &[], Some(("a", "\"\"", "null")));
        check(text(Some("")), text(None), &[], &[1], None);
    }

    #[test]
    fn a_column_is_filled_by_its_first_value() {
        let unfilled = HashSet::from([1, 2]);
        let mut filled = HashSet::new();
        note_filled(&field("a", 1, DataType::Utf8), &text(None), &unfilled, &mut filled);
        assert!(filled.is_empty());
        note_filled(&field("a", 1, DataType::Utf8), &text(Some("")), &unfilled, &mut filled);
        note_filled(&field("c", 3, DataType::Utf8), &text(Some("")), &unfilled, &mut filled);
        assert_eq!(filled, HashSet::from([1]));
        let log = text(Some(""));
        let reasons = Reasons { lacking: &HashSet::new(), unfilled: &unfilled, retired: &HashSet::new() };
        assert_eq!(differs(&field("b", 2, DataType::Utf8), "b", (&text(None), 0), (&log, 0), &reasons), None);
        assert!(differs(&field("c", 3, DataType::Utf8), "c", (&text(None), 0), (&log, 0), &reasons).is_some());
    }

    #[test]
    fn a_not_a_number_is_itself_and_minus_zero_is_not_zero() {
        let float = |value: f64| Arc::new(Float64Array::from(vec![value])) as ArrayRef;
        check(float(f64::NAN), float(f64::NAN), &[], &[], None);
        check(float(0.0), float(-0.0), &[], &[], Some(("a", "0.0", "-0.0")));
    }

    #[test]
    fn nested_values_are_found_by_path() {
        let list = |values: Vec<Option<i32>>| {
            Arc::new(ListArray::from_iter_primitive::<Int32Type, _, _>([Some(values)])) as ArrayRef
        };
        check(list(vec![Some(1), Some(2)]), list(vec![Some(1), Some(3)]), &[], &[], Some(("a[1]", "2", "3")));
        check(list(vec![Some(1)]), list(vec![]), &[], &[], Some(("a", "[1]", "[]")));
        let inner = |note: Option<&str>| {
            let fields = vec![field("note", 2, DataType::Utf8)];
            Arc::new(StructArray::new(fields.into(), vec![text(note)], None)) as ArrayRef
        };
        check(inner(Some("x")), inner(Some("y")), &[], &[], Some(("a.note", "\"x\"", "\"y\"")));
        check(inner(None), inner(Some("y")), &[2], &[], None);
    }
}
