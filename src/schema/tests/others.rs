//! Tables that somebody else changed: columns that others added, dropped, renamed, widened or made required.

use std::sync::Arc;

use iceberg::spec::{NestedField, PrimitiveType, Schema, Type};

use super::super::column_map::ColumnMap;
use super::super::evolve::Existing;
use super::super::mapping::{Column, Leaf, Mapping, Shape};
use super::evolve::{NEW_COLUMN, evolve, existing};
use super::{OPTIONS, check, create, proto3};

/// The table as somebody else left it: each column of its top level changed, or dropped where `change` says none.
pub(super) fn changed_by_others(table: &Existing, change: impl Fn(NestedField) -> Option<NestedField>) -> Existing {
    let fields = table.schema.as_struct().fields().iter();
    let fields: Vec<_> = fields.filter_map(|field| change(NestedField::clone(field))).map(Arc::new).collect();
    let schema = Arc::new(Schema::builder().with_fields(fields).build().unwrap());
    Existing { schema, written: Some(table.schema.clone()), ..table.clone() }
}

#[test]
fn a_column_that_others_added_stays_and_is_null() {
    let mapping = create(&proto3("message M { int32 a = 1; }"), "t.M", &OPTIONS).unwrap();
    let mut fields = mapping.iceberg.as_struct().fields().to_vec();
    fields.push(Arc::new(NestedField::optional(90, "foreign", Type::Primitive(PrimitiveType::Date))));
    let schema = Arc::new(Schema::builder().with_fields(fields).build().unwrap());
    let table = Existing { schema, last_column_id: 90, ..existing(&mapping) };
    let (text, after) = evolve(&table, "message M { int32 a = 1; int32 b = 2; }", &OPTIONS);
    check(
        &text,
        "
        applied t.M.b: a new column
        ignored t.M.foreign: no field fills the column; it stays, null from now on
        a int =1 #1
        b int =2 #91
        foreign date =- #90
        ",
    );
    let pool = proto3("message M { int32 a = 1; int32 b = 2; }");
    let again = Mapping::evolve(pool.clone(), pool.find("t.M").unwrap(), &OPTIONS, &after.unwrap()).unwrap();
    let retired =
        Column { name: "foreign".into(), number: 0, shape: Shape::Leaf(Leaf::Retired), delimited: false, doc: None };
    assert_eq!(again.mapping.columns[2], retired);
    // A field that comes to be called like it.
    let (text, _) = evolve(&table, "message M { int32 a = 1; string foreign = 3; }", &OPTIONS);
    assert!(text.contains("refused t.M.foreign: the name foreign is taken by another column: its field is gone, or somebody else added it"), "{text}");
    let (text, _) = evolve(&table, "message M { int32 a = 1; string foreign = 3; }", &NEW_COLUMN);
    assert!(text.contains("foreign_2 string =3 #91") && text.contains("foreign date =- #90"), "{text}");
}

#[test]
fn a_column_that_others_dropped_is_refused_unless_no_field_fills_it() {
    let body = "message M { int32 a = 1; N n = 2; } message N { int32 x = 1; }";
    let table = existing(&create(&proto3(body), "t.M", &OPTIONS).unwrap());
    let dropped = changed_by_others(&table, |field| (field.name != "n").then_some(field));
    let (text, _) = evolve(&dropped, body, &OPTIONS);
    check(
        &text,
        "refused t.M.n: somebody else dropped its column (field id 2) from the table; leave the field out with `exclude`, or have a new column for it with on_incompatible = \"new_column\"",
    );
    let (text, _) = evolve(&dropped, body, &NEW_COLUMN);
    check(&text, "applied t.M.n: a new column\na int =1 #1\nn struct =2 #17\n  x int =2.1 #18");
    // Nobody misses it; should the field come back, it is a new one.
    let (text, after) = evolve(&dropped, "message M { int32 a = 1; }", &OPTIONS);
    check(&text, "a int =1 #1");
    let (text, _) = evolve(&after.unwrap(), body, &OPTIONS);
    check(&text, "applied t.M.n: a new column\na int =1 #1\nn struct =2 #17\n  x int =2.1 #18");
}

#[test]
fn a_column_that_others_renamed_keeps_that_name_until_the_fields_changes() {
    let body = "message M { int32 a = 1; int32 b = 2; }";
    let table = existing(&create(&proto3(body), "t.M", &OPTIONS).unwrap());
    let renamed = changed_by_others(&table, |field| {
        let name = if field.name == "a" { "amount".to_string() } else { field.name.clone() };
        Some(NestedField { name, ..field })
    });
    let (text, after) = evolve(&renamed, body, &OPTIONS);
    check(&text, "amount int =1 #1\nb int =2 #2");
    // What calve wrote since has that name too; only the field's own change is one.
    let after = after.unwrap();
    let after = Existing { written: Some(after.schema.clone()), ..after };
    check(&evolve(&after, body, &OPTIONS).0, "amount int =1 #1\nb int =2 #2");
    let kept = ColumnMap::from_json(&after.column_map.to_json()).unwrap();
    assert_eq!(kept, after.column_map);
    let (text, _) = evolve(&after, "message M { int32 total = 1; int32 b = 2; }", &OPTIONS);
    check(&text, "applied t.M.total: the column amount is renamed to total\ntotal int =1 #1\nb int =2 #2");
}

#[test]
fn a_column_that_others_widened_stays_wide_and_a_required_one_is_refused() {
    let body = "message M { int32 a = 1; float f = 2; uint64 u = 3; }";
    let table = existing(&create(&proto3(body), "t.M", &OPTIONS).unwrap());
    let widened = changed_by_others(&table, |mut field| {
        let wide = match field.name.as_str() {
            "a" => PrimitiveType::Long,
            "f" => PrimitiveType::Double,
            "u" => PrimitiveType::Decimal { precision: 38, scale: 0 },
            _ => return Some(field),
        };
        field.field_type = Box::new(Type::Primitive(wide));
        Some(field)
    });
    let (text, after) = evolve(&widened, body, &OPTIONS);
    check(&text, "a long =1 #1\nf double =2 #2\nu decimal(38, 0) =3 #3");
    // A field that was wide and is narrow now is another matter.
    let (_, after) = evolve(&after.unwrap(), "message M { int64 a = 1; float f = 2; uint64 u = 3; }", &OPTIONS);
    let (text, _) = evolve(&after.unwrap(), body, &OPTIONS);
    assert!(text.contains("refused t.M.a: the field's column type is int, the table's column is long"), "{text}");

    let required = changed_by_others(&table, |field| Some(NestedField { required: field.name == "f", ..field }));
    let (text, _) = evolve(&required, body, &OPTIONS);
    assert!(text.starts_with("refused t.M.f: the table's column is required (NOT NULL)"), "{text}");
}

#[test]
fn a_table_without_our_own_columns_is_none_of_ours() {
    let mapping = create(&proto3("message M { int32 a = 1; }"), "t.M", &OPTIONS).unwrap();
    let table = changed_by_others(&existing(&mapping), |field| (field.name != "_raw").then_some(field));
    let (text, _) = evolve(&table, "message M { int32 a = 1; }", &OPTIONS);
    check(&text, "refused t.M: the table has no column _raw; calve cannot write to it without");
}
