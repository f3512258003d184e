//! What only a person may decide: `calve ledger show | accept | reset TABLE`.

use std::collections::BTreeMap;
use std::sync::Arc;

use iceberg::TableIdent;

use super::ancestry::{self, Reading};
use super::began::Began;
use super::committer::{self, Committer};
use super::ledger::{Ledger, Mirror};
use crate::catalog::Catalog;
use crate::error::{Error, Result};

/// The summary key that marks a snapshot that a person's decision made.
pub const KEY: &str = "calve.decision";

/// What a table says it has, and what of it can be proved.
#[derive(Debug)]
pub struct Shown {
    /// The ledger that holds at main's head, or why none can be proved.
    pub reading: Result<Reading>,
    /// The mirror in the table's properties, whether proved or not.
    pub mirror: Option<Mirror>,
    pub head: Option<i64>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Decision {
    /// Go on from what the ledger says; where that cannot be proved, from the mirror, without one from nothing. Rejects
    /// that are not there are not waited for.
    Accept,
    /// The topic goes on at these offsets; a partition that is not named starts as the topic is configured to.
    /// `recreated`: the topic lost its earlier life, the offsets already in the table may come again.
    Reset { topic: String, offsets: BTreeMap<i32, i64>, recreated: bool },
}

pub async fn show(catalog: &dyn Catalog, ident: &TableIdent) -> Result<Shown> {
    let table = committer::load(catalog, ident).await?;
    let mirror = ancestry::mirror(table.metadata())?;
    let reading = match ancestry::read(&table, catalog.trust_mirror()).await {
        Err(error) if error.is_retry() => return Err(error),
        reading => reading,
    };
    Ok(Shown { reading, mirror, head: table.metadata().current_snapshot_id() })
}

/// Writes the decision as a snapshot without rows, onto the head that it was taken for. The ledger as it is then.
pub async fn decide(catalog: Arc<dyn Catalog>, ident: &TableIdent, decision: &Decision) -> Result<Ledger> {
    let table = committer::load(&*catalog, ident).await?;
    let reading = match ancestry::read(&table, true).await {
        Err(error) if error.is_retry() => return Err(error),
        Err(_) => None,
        Ok(reading) => Some(reading),
    };
    let mut ledger = reading.map(|reading| reading.ledger).unwrap_or_default();
    let mut began = Began::of(table.metadata());
    let word = match decision {
        Decision::Accept => {
            ledger.forget_counterparts();
            "accept"
        }
        Decision::Reset { topic, offsets, recreated } => {
            ledger.reset(topic, offsets, *recreated, table.metadata().last_sequence_number());
            began.reset(topic, offsets, *recreated);
            "reset"
        }
    };
    let head = table.metadata().current_snapshot_id();
    let properties = began.changed(table.metadata());
    // No reading: should the commit have to look again, it must not stumble over what the person just decided about.
    let mut committer = Committer::new(catalog, table, None);
    committer.allow_unproved();
    let summary = BTreeMap::from([(KEY.to_owned(), word.to_owned())]);
    let done = committer.commit_ledger(ledger.clone(), head, summary, properties).await?;
    committer.close().await;
    match done {
        true => Ok(ledger),
        false => Err(Error::retry(format!(
            "table {ident}: somebody committed to it meanwhile; stop what writes to it, look again with \
             `calve ledger show {ident}`, and repeat"
        ))),
    }
}
