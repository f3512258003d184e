//! The committer against a catalog that fails on demand.

mod ancestry;
mod cost;
mod expiry;
mod fence;
mod interleaving;
mod lost;
mod together;
