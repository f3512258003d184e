//! `[topics.*.columns]`: what is said of single columns.

use std::collections::BTreeMap;

use super::reader::Section;
use super::{ColumnOptions, ColumnType};

/// Path → options. `"amount.units" = { type = "long" }` and `amount.units.type = "long"` are the same: a table in a
/// table of options is a field below.
pub fn columns(section: Section<'_>) -> BTreeMap<String, ColumnOptions> {
    let mut found = BTreeMap::new();
    for (name, column) in section.sections() {
        read(&name, &column, &mut found);
    }
    found
}

fn read(path: &str, section: &Section<'_>, found: &mut BTreeMap<String, ColumnOptions>) {
    let below = section.named_tables();
    let choices = [ColumnType::Default, ColumnType::Long, ColumnType::Int, ColumnType::Json, ColumnType::Millis];
    let scalar = |key| section.has(key) && !below.iter().any(|(name, _)| name == key);
    let kind = || section.choice("type", &choices.map(|kind| (kind.as_str(), kind)));
    let options = ColumnOptions {
        kind: scalar("type").then(kind).flatten().map(|found| found.value),
        exclude: scalar("exclude").then(|| section.flag("exclude")).flatten().map(|found| found.value),
        case_column: scalar("case_column").then(|| section.flag("case_column")).flatten().map(|found| found.value),
    };
    section.expects(&["type", "exclude", "case_column"]);
    section.finish();
    if options != ColumnOptions::default() {
        let known = found.entry(path.to_string()).or_default();
        *known = over(options, *known);
    }
    for (name, section) in below {
        read(&format!("{path}.{name}"), &section, found);
    }
}

/// Options over those that they win against.
pub fn over(options: ColumnOptions, others: ColumnOptions) -> ColumnOptions {
    ColumnOptions {
        kind: options.kind.or(others.kind),
        exclude: options.exclude.or(others.exclude),
        case_column: options.case_column.or(others.case_column),
    }
}
