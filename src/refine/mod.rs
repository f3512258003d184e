//! Refinements: one SELECT per file makes one table out of others, kept up to date.
//!
//! A run reads what its source gained since the snapshot that the target's own summary names, and publishes rows and
//! new watermark in one commit, fenced by the target's head: so a run that is killed, repeated or raced by another
//! adds every row exactly once. A target that is rolled back is refined again from where it was then.

pub mod delta;
pub mod graph;
pub mod maintain;
pub mod model;
mod parse;
pub mod run;
pub mod schedule;
pub mod schema;
pub mod state;
mod yaml;

pub use graph::Graph;
pub use model::Model;
pub use run::{Outcome, Runner};
pub use schedule::Refinements;
