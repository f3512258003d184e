//! Schemas as text in, tables as text out.

mod adopt;
mod choices;
mod ddl;
mod editions;
mod evolve;
mod high;
mod hostile;
mod kinds;
mod mapping;
mod others;
mod partition;
mod settle;
mod show;
mod source;
mod stranger;

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;
use std::sync::Arc;

use super::mapping::{Fault, Mapping, Options};
use super::model::Pool;
use crate::config::{OnIncompatible, SchemaSource};

pub const OPTIONS: Options = options(OnIncompatible::Halt, false);

pub const fn options(on_incompatible: OnIncompatible, records_name_schema: bool) -> Options {
    Options {
        columns_max: 2000,
        json: Vec::new(),
        json_below: None,
        on_incompatible,
        records_name_schema,
        columns: BTreeMap::new(),
        include: Vec::new(),
        exclude: Vec::new(),
    }
}

/// Compiles files given as (import path, source).
pub fn compile(files: &[(&str, &str)]) -> anyhow::Result<Arc<Pool>> {
    let folder = tempfile::tempdir()?;
    for (path, source) in files {
        let path = folder.path().join(path);
        fs::create_dir_all(path.parent().expect("a file lies in a folder"))?;
        fs::write(path, source)?;
    }
    load(folder.path())
}

fn load(folder: &Path) -> anyhow::Result<Arc<Pool>> {
    super::load(&SchemaSource::Protos(folder.to_path_buf()))
}

/// A proto3 file in package `t`; `Timestamp` and its kin can be used.
pub fn proto3(body: &str) -> Arc<Pool> {
    let imports = ["any", "duration", "empty", "field_mask", "struct", "timestamp", "wrappers"];
    let imports: String = imports.map(|name| format!("import \"google/protobuf/{name}.proto\";\n")).concat();
    let source = format!("syntax = \"proto3\";\npackage t;\n{imports}\n{body}");
    compile(&[("t.proto", &source)]).unwrap_or_else(|e| panic!("{e:#}\n{source}"))
}

pub fn create(pool: &Arc<Pool>, message: &str, options: &Options) -> Result<Mapping, Vec<Fault>> {
    let id = pool.find(message).unwrap_or_else(|| panic!("no message {message}"));
    Mapping::create(pool.clone(), id, options)
}

/// The message's own columns, a line each: indented name, type, field path, id.
pub fn render(mapping: &Mapping) -> String {
    let rows = show::rows(mapping);
    let own = rows.iter().filter(|row| !row.column.starts_with("_kafka") && row.column != "_raw");
    own.map(|row| {
        let name = row.column.rsplit('.').next().unwrap_or_default();
        let number = row.number.as_deref().unwrap_or("-");
        format!("{}{name} {} ={number} #{}\n", "  ".repeat(row.depth), row.kind, row.id)
    })
    .collect()
}

pub fn faults(result: Result<Mapping, Vec<Fault>>) -> String {
    match result {
        Ok(mapping) => format!("no fault:\n{}", render(&mapping)),
        Err(faults) => faults.iter().map(|fault| format!("{fault}\n")).collect(),
    }
}

/// Compares texts after the common indentation of `expected` is taken away.
#[track_caller]
pub fn check(actual: &str, expected: &str) {
    let lines: Vec<&str> = expected.lines().skip_while(|line| line.trim().is_empty()).collect();
    let indent = lines.iter().filter(|line| !line.trim().is_empty()).map(|line| line.len() - line.trim_start().len());
    let indent = indent.min().unwrap_or(0);
    let expected: Vec<&str> = lines.iter().map(|line| line.get(indent..).unwrap_or_default().trim_end()).collect();
    assert_eq!(actual.trim_end(), expected.join("\n").trim_end(), "\n--- actual:\n{actual}");
}
