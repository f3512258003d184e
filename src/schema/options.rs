//! What a schema says to calve: the options of `calve/v1/options.proto`, read from descriptors.

use anyhow::{Context, Result, bail};
use buffa::{ExtensionSet, UnknownField, UnknownFieldData, UnknownFields};

use super::model::TableOptions;
use crate::config::{ColumnOptions, ColumnType};

/// The options' extension number, in FieldOptions, MessageOptions and OneofOptions alike.
const NUMBER: u32 = 58610;

/// `(calve.v1.column)` of a field.
pub fn column(options: Option<&impl ExtensionSet>) -> Result<ColumnOptions> {
    let mut column = ColumnOptions::default();
    for field in fields(options, "calve.v1.column")? {
        match (field.number, &field.data) {
            (1, UnknownFieldData::Varint(kind)) => {
                column.kind = Some(match kind {
                    0 => ColumnType::Default,
                    1 => ColumnType::Long,
                    2 => ColumnType::Int,
                    3 => ColumnType::Json,
                    4 => ColumnType::Millis,
                    other => bail!("(calve.v1.column).type {other} is one that this version does not know"),
                });
            }
            (2, UnknownFieldData::Varint(yes)) => column.exclude = Some(*yes != 0),
            _ => return Err(unknown("calve.v1.column", &field)),
        }
    }
    Ok(column)
}

/// `(calve.v1.oneof).case_column` of a oneof.
pub fn case_column(options: Option<&impl ExtensionSet>) -> Result<bool> {
    let mut case_column = false;
    for field in fields(options, "calve.v1.oneof")? {
        match (field.number, &field.data) {
            (1, UnknownFieldData::Varint(yes)) => case_column = *yes != 0,
            _ => return Err(unknown("calve.v1.oneof", &field)),
        }
    }
    Ok(case_column)
}

/// `(calve.v1.table)` of a message; none where it is not written.
pub fn table(options: Option<&impl ExtensionSet>) -> Result<Option<TableOptions>> {
    let fields = fields(options, "calve.v1.table")?;
    if fields.is_empty() {
        return Ok(None);
    }
    let mut table = TableOptions::default();
    for field in fields {
        let text = match &field.data {
            UnknownFieldData::LengthDelimited(bytes) => String::from_utf8(bytes.clone()).ok(),
            _ => None,
        };
        match (field.number, text) {
            (1, Some(name)) => table.name = Some(name),
            (2, Some(partition)) => table.partition_by.push(partition),
            (3, Some(sort)) => table.sort_by.push(sort),
            (4, Some(description)) => table.description = Some(description),
            _ => return Err(unknown("calve.v1.table", &field)),
        }
    }
    Ok(Some(table))
}

/// The fields of an option's message; several occurrences merge by standing behind each other.
fn fields(options: Option<&impl ExtensionSet>, name: &str) -> Result<Vec<UnknownField>> {
    let mut found = Vec::new();
    let Some(options) = options else { return Ok(found) };
    for option in options.unknown_fields().iter().filter(|field| field.number == NUMBER) {
        let UnknownFieldData::LengthDelimited(bytes) = &option.data else { bail!("the option ({name}) is no message") };
        let fields = UnknownFields::decode_from_slice(bytes);
        found.extend(fields.map_err(|e| anyhow::anyhow!("{e}")).with_context(|| format!("the option ({name})"))?);
    }
    Ok(found)
}

/// To pass over what a user asked for would be worse than to refuse it.
fn unknown(name: &str, field: &UnknownField) -> anyhow::Error {
    anyhow::anyhow!("the option ({name}) says something that this version does not know (its field {})", field.number)
}
