//! `calve verify`: whether a table holds what its ledger says, each record once.

use std::sync::Arc;

use anyhow::Context as _;
use iceberg::TableIdent;
use serde::Serialize;

use super::output::{Grid, thousands};
use super::tables::Found;
use super::{Exit, Global, Usage, tables};
use crate::catalog::{self, Catalog};
use crate::commit::ancestry;
use crate::commit::verify::{self, Options, Report};
use crate::config::{TableName, Topic};
use crate::telemetry::progress::{self, Tally};
use crate::verify::Depth;

/// Where a table's rejects are unless its topic says otherwise.
const QUARANTINE_SUFFIX: &str = "__quarantine";

/// Prove what a table holds, against its ledger and, if asked, against the log
#[derive(clap::Args, Debug)]
#[command(after_help = "\
Without --deep, only the table and its quarantine table are read: no offset may be there twice or in both, none at or
above the ledger, and there must be as many rows and rejects as the ledger counts. Rows that other writers deleted are
differences, named with their snapshot.

With --deep, the log is read again up to the ledger: each record must be a row, equal in every column to what shredding
it gives today, or a row of the quarantine table with the same bytes and code. A null in a file that is older than its
column is no difference, nor is what a column holds that no field fills any more. A renamed enum value is one: nothing
shows that the old name is right. Records that the log no longer has are counted, not compared.

Examples:
  calve verify bronze.orders
  calve verify bronze.orders --accept-deletes     someone deletes rows on purpose, as for privacy
  calve verify bronze.orders --deep               against the log, value by value
  calve -o json verify bronze.orders | jq .agrees

Exit codes: 0 all is as it should be, 1 it could not be checked, 2 there is no such table, 3 there are differences.")]
pub struct Args {
    /// The table, like bronze.orders; its quarantine table is verified with it
    table: String,
    /// Read the log again, and compare every value
    #[arg(long)]
    deep: bool,
    /// Rows that other writers deleted are no difference
    #[arg(long)]
    accept_deletes: bool,
}

#[derive(Serialize)]
struct Verified<'a> {
    agrees: bool,
    #[serde(flatten)]
    report: &'a Report,
    /// What the log says; null without --deep.
    deep: Option<Depth>,
    /// The differences in words, those of the tables first.
    words: Vec<String>,
}

pub async fn run(args: Args, global: &Global) -> anyhow::Result<Exit> {
    let project = global.project()?;
    let found = tables::find(&project, &args.table)?;
    let catalog = tables::open(found.catalog).await?;
    let options = Options { accept_deletes: args.accept_deletes, ..Options::default() };

    check_is_fed(&*catalog, &found).await?;
    let quarantine = quarantine_of(&*catalog, &found).await?;
    let ident = catalog::ident(&found.name)?;
    let topic = if args.deep { Some(topic_of(&found)?) } else { None };
    // The table first: a daemon that runs meanwhile commits to the quarantine table before it.
    let main = verify::read(&*catalog, &ident).await.with_context(|| cannot(&found))?;
    let main = main.with_context(|| format!("table {} was dropped meanwhile", found.name))?;
    let rejected = match &quarantine {
        Some(quarantine) => verify::read(&*catalog, quarantine).await.with_context(|| cannot(&found))?,
        None => None,
    };
    let report = verify::compare(&main, rejected.as_ref(), quarantine.is_some(), &options);
    let deep = match topic {
        Some(topic) => {
            let options = crate::verify::Options {
                differences_max: options.differences_max,
                accept_deletes: options.accept_deletes,
                memory_bytes: project.daemon.memory_limit_bytes,
            };
            let tally = Arc::new(Tally::default());
            let _shown = global.progress.watch(format!("comparing {}", found.name), progress::of(&tally));
            let deep = crate::verify::deep(&project.kafka, topic, &main, rejected.as_ref(), &options, &tally).await;
            Some(deep.with_context(|| cannot(&found))?)
        }
        None => None,
    };

    let agrees = report.agrees() && deep.as_ref().is_none_or(Depth::agrees);
    let of_log = deep.iter().flat_map(|deep| &deep.differences).map(ToString::to_string);
    let words = report.differences.iter().map(ToString::to_string).chain(of_log).collect();
    let verified = Verified { agrees, report: &report, deep, words };
    global.output.print(&verified, || text(&verified))?;
    Ok(if agrees { Exit::Done } else { Exit::No })
}

fn cannot(found: &Found<'_>) -> String {
    format!("table {} cannot be verified", found.name)
}

/// The topic whose log is read: it must be in calve.toml, which says how its records are read.
fn topic_of<'a>(found: &Found<'a>) -> Result<&'a Topic, Usage> {
    match found.topic {
        Some(topic) if topic.table == found.name => Ok(topic),
        Some(topic) => Err(Usage(format!(
            "table {} is the quarantine of {}; verify that with --deep, both are compared with the log",
            found.name, topic.table
        ))),
        None => Err(Usage(format!(
            "table {}: no topic of calve.toml fills it; --deep needs one, to know how its records are read",
            found.name
        ))),
    }
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
            "table {name} has no Kafka ledger: no topic ever filled it, so there is no log to compare it with; how \
             far a refinement's table is, `calve refine status` says"
        ))
        .into());
    }
    Ok(())
}

/// The quarantine table beside a topic's table. That of a table that no topic fills any more is looked for where it is
/// by default.
async fn quarantine_of(catalog: &dyn Catalog, found: &Found<'_>) -> anyhow::Result<Option<TableIdent>> {
    match found.topic {
        Some(topic) if topic.table == found.name => Ok(Some(catalog::ident(&topic.quarantine)?)),
        // A quarantine table by itself.
        Some(_) => Ok(None),
        None => {
            let name = format!("{}{QUARANTINE_SUFFIX}", found.name.name);
            let name = TableName { namespace: found.name.namespace.clone(), name };
            Ok(tables::load(catalog, &name).await?.map(|table| table.identifier().clone()))
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
    if let Some(deep) = &verified.deep {
        let (records, rows, rejects) = (number(deep.records), number(deep.rows), number(deep.rejects));
        text += &format!("log: {records} records read, {rows} rows and {rejects} rejects compared\n");
        if deep.offsets_gone > 0 {
            let gone = number(deep.offsets_gone);
            text += &format!("log: {gone} offsets are gone and could not be compared\n");
        }
        if deep.accepted > 0 {
            let accepted = number(deep.accepted);
            text += &format!("log: {accepted} records are missing, as other writers deleted rows\n");
        }
        for topic in &deep.other_topics {
            text += &format!("log: topic {topic}, which also filled the table, was not compared\n");
        }
    }
    let total = report.differences_total + verified.deep.as_ref().map_or(0, |deep| deep.differences_total);
    let untold = total.saturating_sub(verified.words.len() as u64);
    if untold > 0 {
        text += &format!("and {} more differences\n", number(untold));
    }
    text + match (verified.agrees, &verified.deep) {
        (true, None) => "verified: each record once, as many as the ledger counts\n",
        (true, Some(_)) => "verified: each record once, as many as the ledger counts, equal to the log\n",
        (false, _) => "",
    }
}
