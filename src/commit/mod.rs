//! The only folder that changes a table. Every record of a topic is accounted for exactly once, because a table is
//! its own ledger: rows, schema change and the offsets they came from travel in one snapshot, and a snapshot is only
//! committed onto the very head whose ledger says that these offsets come next.
//!
//! - [`ledger`]: what a table says it has of each topic; how a commit moves it.
//! - [`began`]: where topics began that start late, for verification.
//! - [`ancestry`]: finding the ledger that holds for main's head, and refusing to guess.
//! - [`snapshot`]: data files → manifests, manifest list, snapshot; [`manifests`] keeps their number logarithmic.
//! - [`expire`]: which snapshots go, which are tagged, and which files nothing reaches any more.
//! - [`change`]: what is asked of a committer.
//! - [`committer`]: the fenced commit ([`fence`]), conflicts and lost answers ([`attempt`]).
//! - [`blame`]: who else changed the columns.
//! - [`decide`]: what only a person may decide about a ledger.
//! - [`create`]: tables made by themselves.
//! - [`offsets`], [`verify`]: proving coverage from the table alone.

pub mod ancestry;
pub mod attempt;
pub mod began;
pub mod blame;
pub mod change;
pub mod committer;
pub mod create;
pub mod decide;
pub mod expire;
mod fence;
pub mod ledger;
pub mod manifests;
pub mod offsets;
pub mod snapshot;
pub mod verify;

pub use began::Began;
pub use change::{Append, Change, Outcome, Published, SchemaChange};
pub use committer::{Committer, Missing};
pub use ledger::{Counterpart, Ledger, TopicLedger};

#[cfg(test)]
pub(crate) mod fake;
#[cfg(test)]
mod tests;
