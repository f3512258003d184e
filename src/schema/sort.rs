//! Sort fields as a person writes them, `placed_at desc nulls last`, bound to a table's columns.

use iceberg::spec::{NullOrder, Schema, SortDirection, SortField, SortOrder};

use super::mapping::Fault;
use super::partition::{leaf, split};

/// Parses the fields of `sort_by` against a table's schema; an empty list is the unsorted order. All faults come at
/// once, each with the text that it is about as its path.
///
/// A field is a partition field's text (`path`, `transform(path)`), then `asc` (the default) or `desc`, then
/// `nulls first` or `nulls last`; by default nulls are the smallest values, as in Iceberg and Spark.
pub fn parse(fields: &[String], schema: &Schema) -> Result<SortOrder, Vec<Fault>> {
    let mut faults = Vec::new();
    let mut parsed: Vec<SortField> = Vec::new();
    for text in fields {
        match parse_one(text, schema) {
            Ok(field) => parsed.push(field),
            Err(message) => faults.push(Fault::new(format!("sort field {text:?}"), message)),
        }
    }
    if !faults.is_empty() {
        return Err(faults);
    }
    if parsed.is_empty() {
        return Ok(SortOrder::unsorted_order());
    }
    SortOrder::builder()
        .with_order_id(1)
        .with_fields(parsed)
        .build(schema)
        .map_err(|error| vec![Fault::new("sort_by", error.message().to_string())])
}

fn parse_one(text: &str, schema: &Schema) -> Result<SortField, String> {
    let (text, null_order) = match without(text, &["nulls first", "nulls last"]) {
        (rest, Some(0)) => (rest, Some(NullOrder::First)),
        (rest, Some(_)) => (rest, Some(NullOrder::Last)),
        (rest, None) => (rest, None),
    };
    let (text, direction) = match without(text, &["desc", "asc"]) {
        (rest, Some(0)) => (rest, SortDirection::Descending),
        (rest, _) => (rest, SortDirection::Ascending),
    };
    let (transform, path) = split(text)?;
    if path.contains(char::is_whitespace) {
        return Err("is not `path`, then `asc` or `desc`, then `nulls first` or `nulls last`".to_string());
    }
    let source = leaf(schema, path)?;
    if transform.result_type(&source.field_type).is_err() {
        return Err(format!("the transform {transform} does not take {path}, which is of type {}", source.field_type));
    }
    let null_order = null_order.unwrap_or(match direction {
        SortDirection::Ascending => NullOrder::First,
        SortDirection::Descending => NullOrder::Last,
    });
    Ok(SortField { source_id: source.id, transform, direction, null_order })
}

/// The text without one of these endings, and which it was; case and the width of spaces mean nothing.
fn without<'a>(text: &'a str, endings: &[&str]) -> (&'a str, Option<usize>) {
    let text = text.trim();
    for (index, ending) in endings.iter().enumerate() {
        let mut rest = text;
        let ends = ending.rsplit(' ').all(|word| {
            let at = rest.len().checked_sub(word.len()).filter(|at| rest.is_char_boundary(*at));
            let found =
                at.filter(|at| rest[*at..].eq_ignore_ascii_case(word) && rest[..*at].ends_with(char::is_whitespace));
            found.is_some_and(|at| {
                rest = rest[..at].trim_end();
                true
            })
        });
        if ends {
            return (rest, Some(index));
        }
    }
    (text, None)
}

#[cfg(test)]
mod tests {
    use iceberg::spec::{NestedField, PrimitiveType, StructType, Type};

    use super::*;

    fn schema() -> Schema {
        let inner =
            StructType::new(vec![NestedField::optional(3, "at", Type::Primitive(PrimitiveType::Timestamptz)).into()]);
        let fields = [
            NestedField::optional(1, "id", Type::Primitive(PrimitiveType::Long)).into(),
            NestedField::optional(2, "inner", Type::Struct(inner)).into(),
        ];
        Schema::builder().with_fields(fields).build().unwrap()
    }

    fn parsed(text: &str) -> String {
        match parse(&[text.to_string()], &schema()) {
            Ok(order) => order.fields.iter().map(|field| format!("{} {field}", field.source_id)).collect(),
            Err(faults) => faults[0].to_string(),
        }
    }

    #[test]
    fn a_field_is_a_term_a_direction_and_a_place_for_nulls() {
        for (text, expected) in [
            ("id", "1 SortField { source_id: 1, transform: identity, direction: ascending, null_order: first }"),
            ("id  DESC", "1 SortField { source_id: 1, transform: identity, direction: descending, null_order: last }"),
            (
                "day(inner.at) asc Nulls  Last",
                "3 SortField { source_id: 3, transform: day, direction: ascending, null_order: last }",
            ),
            (
                "bucket[4](id) desc nulls first",
                "1 SortField { source_id: 1, transform: bucket[4], direction: descending, null_order: first }",
            ),
        ] {
            let field = parsed(text);
            assert_eq!(field, expected, "{text}");
        }
    }

    #[test]
    fn what_cannot_be_sorted_by_is_named() {
        assert!(
            parsed("nope desc").starts_with("sort field \"nope desc\": there is no column \"nope\""),
            "{}",
            parsed("nope desc")
        );
        assert!(parsed("id down").contains("is not `path`"), "{}", parsed("id down"));
        assert!(parsed("day(id)").contains("does not take id"), "{}", parsed("day(id)"));
        assert!(parsed("inner").contains("is a struct"), "{}", parsed("inner"));
        assert!(parse(&[], &schema()).unwrap().is_unsorted());
    }
}
