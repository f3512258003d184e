//! `calve verify`: whether a table holds what its ledger says, each record once.

use anyhow::Context as _;
use iceberg::TableIdent;
use serde::Serialize;

use super::output::{Grid, thousands};
use super::tables::Found;
use super::{Exit, Global, Usage, tables};
use crate::catalog::Catalog;
use crate::commit::ancestry;
use crate::commit::verify::{self, Options, Report};
use crate::config::TableName;

/// Where a table's rejects are unless its topic says otherwise.
const QUARANTINE_SUFFIX: &str = "__quarantine";

/// Prove what a table holds, against its ledger and, if asked, against the log
#[derive(clap::Args, Debug)]
#[command(after_help = "\
Without --deep, only the table and its quarantine table are read: no offset may be there twice or in both, none at or
above the ledger, and there must be as many rows and rejects as the ledger counts. Rows that other writers deleted are
differences, named with their snapshot.

Examples:
  calve verify bronze.orders
  calve verify bronze.orders --accept-deletes     someone deletes rows on purpose, as for privacy
  calve -o json verify bronze.orders | jq .agrees

Exit codes: 0 all is as it should be, 1 it could not be checked, 2 there is no such table, 3 there are differences.")]
pub struct Args {
    /// The table, like bronze.orders; its quarantine table is verified with it
    table: String,
    /// Rows that other writers deleted are no difference
    #[arg(long)]
    accept_deletes: bool,
}

#[derive(Serialize)]
struct Verified<'a> {
    agrees: bool,
    #[serde(flatten)]
    report: &'a Report,
    /// The differences in words, in the same order.
    words: Vec<String>,
}

pub async fn run(args: Args, global: &Global) -> anyhow::Result<Exit> {
    let project = global.project()?;
    let found = tables::find(&project, &args.table)?;
    let catalog = tables::open(found.catalog).await?;
    let options = Options { accept_deletes: args.accept_deletes, ..Options::default() };

    check_is_fed(&*catalog, &found).await?;
    let quarantine = quarantine_of(&*catalog, &found).await?;
    let ident = tables::ident(&found.name)?;
    let report = verify::verify(&*catalog, &ident, quarantine.as_ref(), &options)
        .await
        .with_context(|| format!("table {} cannot be verified", found.name))?;

    let agrees = report.agrees();
    let words = report.differences.iter().map(ToString::to_string).collect();
    let verified = Verified { agrees, report: &report, words };
    global.output.print(&verified, || text(&verified))?;
    Ok(if agrees { Exit::Done } else { Exit::No })
}

/// Refuses what has no ledger to be verified against: no table, or one that no topic ever filled.
async fn check_is_fed(catalog: &dyn Catalog, found: &Found<'_>) -> anyhow::Result<()> {
    let name = &found.name;
    let Some(table) = tables::load(catalog, name).await? else {
        if let Some(topic) = found.topic.filter(|topic| topic.table == *name) {
            let (topic, catalog) = (&topic.name, catalog.name());
            anyhow::bail!(
                "table {name} is not in catalog {catalog} yet; `calve run` makes it and fills it from {topic}"
            );
        }
        return Err(Usage(format!("table {name} does not exist in catalog {}", catalog.name())).into());
    };
    // The table of a topic that has given nothing yet has no ledger either; where there is one, or where none can be
    // proved, verifying says so.
    let is_fed = match found.topic {
        Some(_) => true,
        None => ancestry::read(&table, catalog.trust_mirror())
            .await
            .map_or(true, |reading| !reading.ledger.topics.is_empty()),
    };
    if !is_fed {
        return Err(Usage(format!(
            "table {name} has no Kafka ledger: no topic ever filled it; a refinement's table is verified with `calve \
             refine verify`"
        ))
        .into());
    }
    Ok(())
}

/// The quarantine table beside a topic's table. That of a table that no topic fills any more is looked for where it is
/// by default.
async fn quarantine_of(catalog: &dyn Catalog, found: &Found<'_>) -> anyhow::Result<Option<TableIdent>> {
    match found.topic {
        Some(topic) if topic.table == found.name => Ok(Some(tables::ident(&topic.quarantine)?)),
        // A quarantine table by itself.
        Some(_) => Ok(None),
        None => {
            let name = format!("{}{QUARANTINE_SUFFIX}", found.name.name);
            let name = TableName { namespace: found.name.namespace.clone(), name };
            Ok(match tables::load(catalog, &name).await? {
                Some(table) => Some(table.identifier().clone()),
                None => None,
            })
        }
    }
}

fn text(verified: &Verified<'_>) -> String {
    let report = verified.report;
    let at = |snapshot: Option<i64>| snapshot.map_or("without snapshots".to_string(), |id| format!("at snapshot {id}"));
    let mut text = format!("table {} {}\n", report.table, at(report.snapshot));
    if let Some(quarantine) = &report.quarantine {
        text += &format!("quarantine {quarantine} {}\n", at(report.quarantine_snapshot));
    }
    let number = |number: u64| thousands(i64::try_from(number).unwrap_or(i64::MAX));
    if !report.topics.is_empty() {
        let mut grid = Grid::new(&["TOPIC", "PARTITIONS", "ROWS", "OF", "REJECTS", "OF"]);
        for topic in &report.topics {
            grid.row(vec![
                topic.topic.clone(),
                number(topic.partitions as u64),
                number(topic.rows),
                number(topic.rows_in_ledger),
                number(topic.rejects),
                number(topic.rejects_in_ledger),
            ]);
        }
        text += &grid.render();
    }
    if report.foreign_added > 0 || report.foreign_deleted > 0 {
        let (added, deleted) = (number(report.foreign_added), number(report.foreign_deleted));
        text += &format!("other writers: {added} rows added, {deleted} deleted\n");
    }
    for words in &verified.words {
        text += &format!("difference: {words}\n");
    }
    let untold = report.differences_total.saturating_sub(verified.words.len() as u64);
    if untold > 0 {
        text += &format!("and {} more differences\n", number(untold));
    }
    text + match verified.agrees {
        true => "verified: each record once, as many as the ledger counts\n",
        false => "",
    }
}
