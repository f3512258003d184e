//! SQL over Iceberg tables: DataFusion on a table provider of our own.
//!
//! A table is read as of one snapshot, columns are found by field id at every depth (so a rename, an added or a
//! reordered field reads right from files of any age), and filters prune manifests, files and row groups before a
//! byte of data is fetched. Reading never changes a table: only `SELECT`, `EXPLAIN`, `SHOW` and `DESCRIBE` get through
//! [`Engine::query`].

mod catalog;
mod engine;
mod filter;
mod project;
mod prune;
mod read;
mod scan;
mod split;
mod table;
#[cfg(test)]
mod tests;

pub use catalog::Catalogs;
pub use engine::{Engine, one_line, plan};
pub use project::{conform, field_id, project};
pub use read::arrow_schema;
pub use scan::{Scanned, TableScan};
pub use table::{Files, IcebergTable};
