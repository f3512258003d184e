//! The committer against a catalog that fails on demand.

mod fence;
mod lost;
