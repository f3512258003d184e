//! Names of tables and topics.

use std::str::FromStr;

use super::TableName;

impl FromStr for TableName {
    type Err = String;

    /// `namespace.table`, or more levels of namespace.
    fn from_str(text: &str) -> Result<Self, String> {
        let mut levels: Vec<String> = text.split('.').map(str::to_string).collect();
        levels.iter().try_for_each(|level| check_level(level))?;
        match levels.pop() {
            Some(name) if !levels.is_empty() => Ok(TableName { namespace: levels, name }),
            _ => Err("has no namespace; write `namespace.table`".to_string()),
        }
    }
}

/// A namespace of one or more levels.
pub fn namespace(text: &str) -> Result<Vec<String>, String> {
    let levels: Vec<String> = text.split('.').map(str::to_string).collect();
    levels.iter().try_for_each(|level| check_level(level))?;
    Ok(levels)
}

/// A table's name without its namespace, or one with.
pub fn table(text: &str, namespace: &[String]) -> Result<TableName, String> {
    if text.contains('.') {
        return text.parse();
    }
    check_level(text)?;
    Ok(TableName { namespace: namespace.to_vec(), name: text.to_string() })
}

/// The table of a topic that names none: every character outside `[a-z0-9_]` becomes `_`.
pub fn table_of_topic(topic: &str) -> String {
    topic.chars().map(|c| if c.is_ascii_lowercase() || c.is_ascii_digit() || c == '_' { c } else { '_' }).collect()
}

/// Kafka's own rule (`Topic.validate`).
pub fn check_topic(name: &str) -> Result<(), String> {
    let legal = |c: char| c.is_ascii_alphanumeric() || matches!(c, '.' | '_' | '-');
    if name.is_empty() || name.len() > 249 || name == "." || name == ".." || !name.chars().all(legal) {
        return Err(
            "is no topic's name: Kafka takes 1 to 249 of the characters a-z, A-Z, 0-9, `.`, `_` and `-`".to_string()
        );
    }
    Ok(())
}

/// A Protobuf full name: identifiers with dots between.
pub fn check_message(name: &str) -> Result<String, String> {
    let identifier = |part: &str| {
        part.chars().all(|c| c.is_ascii_alphanumeric() || c == '_')
            && part.starts_with(|c: char| c.is_ascii_alphabetic() || c == '_')
    };
    match name.split('.').all(identifier) {
        true => Ok(name.to_string()),
        false => Err("is no message's full name; write one like `shop.v1.Order`".to_string()),
    }
}

fn check_level(level: &str) -> Result<(), String> {
    if level.is_empty() {
        return Err("has an empty part; write `namespace.table`".to_string());
    }
    if level.trim() != level || level.chars().any(|c| c.is_control() || matches!(c, '/' | '\\' | '"' | '`' | '\'')) {
        return Err(
            "has a character that a table's name cannot have (control characters, quotes, slashes, blanks at its ends)"
                .to_string(),
        );
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_of_tables() {
        let name = |namespace: &[&str], name: &str| TableName {
            namespace: namespace.iter().map(|level| level.to_string()).collect(),
            name: name.to_string(),
        };
        assert_eq!("bronze.orders".parse(), Ok(name(&["bronze"], "orders")));
        assert_eq!("a.b.c".parse(), Ok(name(&["a", "b"], "c")));
        assert_eq!(table("orders", &["bronze".to_string()]), Ok(name(&["bronze"], "orders")));
        for wrong in ["orders", "", ".orders", "bronze.", "a..b", "bronze.or/ders", "bronze. orders", "b.\"x\""] {
            assert!(wrong.parse::<TableName>().is_err(), "{wrong}");
        }
    }

    #[test]
    fn a_topic_without_a_table_gives_it_its_name() {
        assert_eq!(table_of_topic("shop.orders-v1"), "shop_orders_v1");
        assert_eq!(table_of_topic("orders_2"), "orders_2");
        assert_eq!(table_of_topic("Orders"), "_rders");
    }
}
