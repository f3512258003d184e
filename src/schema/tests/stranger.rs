//! Columns that somebody else dropped and made again under the same name: other columns, whatever their type.

use std::sync::Arc;

use iceberg::spec::{ListType, MapType, NestedField, NestedFieldRef, PrimitiveType, Schema, StructType, Type};

use super::super::evolve::Existing;
use super::super::mapping::Options;
use super::evolve::{NEW_COLUMN, evolve, existing};
use super::others::changed_by_others;
use super::{OPTIONS, check, create, proto3};

const BODY: &str = "message M { int32 a = 1; N n = 2; repeated N list = 3; map<string, N> m = 4; }
                    message N { int32 x = 1; string s = 2; }";

fn table(body: &str) -> Existing {
    existing(&create(&proto3(body), "t.M", &OPTIONS).unwrap())
}

/// The table after somebody dropped the column at a dotted path and added one of its name, the last of its level, under
/// the next id.
fn made_again(table: &Existing, path: &str, kind: Type) -> Existing {
    let path: Vec<&str> = path.split('.').collect();
    let new = NestedField::optional(table.last_column_id + 1, path[path.len() - 1], kind);
    let fields = level(table.schema.as_struct().fields(), &path, &new);
    let schema = Schema::builder().with_fields(fields).build().unwrap();
    let last_column_id = schema.highest_field_id().max(table.last_column_id);
    Existing { schema: Arc::new(schema), last_column_id, written: Some(table.schema.clone()), ..table.clone() }
}

fn level(fields: &[NestedFieldRef], path: &[&str], new: &NestedField) -> Vec<NestedFieldRef> {
    let mut left = Vec::new();
    for field in fields {
        if field.name != path[0] {
            left.push(field.clone());
        } else if path.len() > 1 {
            let mut field = NestedField::clone(field);
            *field.field_type = below(&field.field_type, &path[1..], new);
            left.push(Arc::new(field));
        }
    }
    if path.len() == 1 {
        left.push(Arc::new(new.clone()));
    }
    left
}

/// Elements and values are no part of the path.
fn below(kind: &Type, path: &[&str], new: &NestedField) -> Type {
    let changed = |field: &NestedFieldRef| {
        let mut field = NestedField::clone(field);
        *field.field_type = below(&field.field_type, path, new);
        Arc::new(field)
    };
    match kind {
        Type::Primitive(_) => panic!("nothing is below a leaf"),
        Type::Struct(inner) => Type::Struct(StructType::new(level(inner.fields(), path, new))),
        Type::List(list) => Type::List(ListType::new(changed(&list.element_field))),
        Type::Map(map) => Type::Map(MapType::new(map.key_field.clone(), changed(&map.value_field))),
    }
}

/// `again` is the id that the name has now.
fn refused(path: &str, id: i32, again: i32) -> String {
    format!(
        "refused t.M.{path}: somebody else dropped its column (field id {id}) from the table; the column of that name that it has now is another one (field id {again}); leave the field out with `exclude`, or have a new column for it with on_incompatible = \"new_column\"\n"
    )
}

fn ignored(path: &str) -> String {
    format!("ignored t.M.{path}: no field fills the column; it stays, null from now on\n")
}

#[test]
fn a_column_made_again_is_not_filled_whatever_its_type_and_depth() {
    let table = table(BODY);
    for (path, number) in [("a", "1"), ("n.x", "2.1"), ("list.x", "3.1"), ("m.x", "4.2.1")] {
        let name = path.rsplit('.').next().unwrap();
        let gone = table.column_map.get(&number.parse().unwrap()).unwrap().id;
        // The same type, a wider one, another one.
        for kind in [PrimitiveType::Int, PrimitiveType::Long, PrimitiveType::String] {
            let again = made_again(&table, path, Type::Primitive(kind.clone()));
            let theirs = format!("{name} {kind} =- #{}\n", again.last_column_id);
            let (text, evolved) = evolve(&again, BODY, &OPTIONS);
            check(&text, &(refused(path, gone, again.last_column_id) + &ignored(path)));
            assert!(evolved.is_none());

            let exclude = Options { exclude: vec![path.to_string()], ..OPTIONS };
            let (text, _) = evolve(&again, BODY, &exclude);
            assert!(text.starts_with(&ignored(path)) && text.contains(&theirs), "{path} {kind}: {text}");

            let (text, evolved) = evolve(&again, BODY, &NEW_COLUMN);
            let ours = format!("{name}_2 int ={number} #{}\n", again.last_column_id + 1);
            let expected = format!("applied t.M.{path}: a new column\n{}", ignored(path));
            assert!(text.starts_with(&expected), "{path} {kind}: {text}");
            assert!(text.contains(&ours) && text.contains(&theirs), "{path} {kind}: {text}");
            let kept = evolved.unwrap().column_map;
            assert_eq!(kept.get(&number.parse().unwrap()).unwrap().id, again.last_column_id + 1, "{path} {kind}");
            assert!(
                kept.iter().all(|(_, entry)| entry.id != gone && entry.id != again.last_column_id),
                "{path} {kind}"
            );
        }
    }
}

#[test]
fn a_struct_made_again_is_another_one_with_all_that_is_in_it() {
    let body = "message M { int32 a = 1; N n = 2; } message N { int32 x = 1; }";
    let table = table(body);
    let x = NestedField::optional(90, "x", Type::Primitive(PrimitiveType::Int));
    let again = made_again(&table, "n", Type::Struct(StructType::new(vec![Arc::new(x)])));
    let (text, _) = evolve(&again, body, &OPTIONS);
    check(&text, &(refused("n", 2, 17) + &ignored("n")));
    let (text, _) = evolve(&again, body, &NEW_COLUMN);
    check(
        &text,
        "
        applied t.M.n: a new column
        ignored t.M.n: no field fills the column; it stays, null from now on
        a int =1 #1
        n_2 struct =2 #91
          x int =2.1 #92
        n struct =- #17
          x int =- #90
        ",
    );
}

#[test]
fn a_name_moved_to_another_column_does_not_take_the_field_along() {
    let body = "message M { int32 a = 1; int32 b = 2; }";
    let table = table(body);
    let taken = changed_by_others(&table, |field| match field.name.as_str() {
        "a" => None,
        "b" => Some(NestedField { name: "a".to_string(), ..field }),
        _ => Some(field),
    });
    check(&evolve(&taken, body, &OPTIONS).0, &refused("a", 1, 2));
    // A field that comes to be called like a column that was renamed.
    let renamed = changed_by_others(&table, |field| {
        let name = if field.name == "a" { "amount".to_string() } else { field.name.clone() };
        Some(NestedField { name, ..field })
    });
    let amount = "message M { int32 a = 1; int32 b = 2; string amount = 3; }";
    let (text, evolved) = evolve(&renamed, amount, &OPTIONS);
    assert!(evolved.is_none());
    check(
        &text,
        "
        applied t.M.amount: a new column
        refused t.M.amount: the name amount is taken by another column: its field is gone, or somebody else added it or named it so; give the field another name, or set on_incompatible = \"new_column\"
        ",
    );
    let (text, _) = evolve(&renamed, amount, &NEW_COLUMN);
    assert!(text.contains("amount int =1 #1\n") && text.contains("amount_2 string =3 "), "{text}");
}

#[test]
fn the_column_of_an_empty_message_is_missed_like_any_other() {
    let body = "message M { int32 a = 1; E e = 2; } message E {}";
    let table = table(body);
    let again = made_again(&table, "e._present", Type::Primitive(PrimitiveType::Boolean));
    check(
        &evolve(&again, body, &OPTIONS).0,
        &(refused("e._present", 5, again.last_column_id) + &ignored("e._present")),
    );
}

#[test]
fn our_own_columns_made_again_must_be_what_they_were() {
    let body = "message M { int32 a = 1; }";
    let table = table(body);
    for (path, kind) in [
        ("_raw", PrimitiveType::String),
        ("_kafka.schema_id", PrimitiveType::Long),
        // It is the last now.
        ("_kafka.offset", PrimitiveType::Long),
    ] {
        let (text, _) = evolve(&made_again(&table, path, Type::Primitive(kind)), body, &OPTIONS);
        let column = path.split('.').next().unwrap();
        check(&text, &format!("refused t.M: the table's column {column} is not of the type that calve gave it"));
    }
    for (path, kind) in [("_raw", PrimitiveType::Binary), ("_kafka.schema_id", PrimitiveType::Int)] {
        let again = made_again(&table, path, Type::Primitive(kind));
        let (text, evolved) = evolve(&again, body, &OPTIONS);
        check(&text, "a int =1 #1");
        let written = evolved.unwrap().schema;
        assert_eq!(written.field_by_id(again.last_column_id).unwrap().name, path.rsplit('.').next().unwrap());
    }
}
