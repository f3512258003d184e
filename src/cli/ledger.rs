//! `calve ledger`: what a table says it has, and the decisions that only a person may take.

use std::collections::BTreeMap;
use std::sync::Arc;

use anyhow::Context as _;
use clap::Subcommand;
use serde::Serialize;

use super::{Exit, Global, Usage, probe, tables};
use crate::catalog::{self, Catalog};
use crate::commit::ancestry::Found;
use crate::commit::decide::{self, Decision};
use crate::commit::{Committer, Ledger, TopicLedger};
use crate::config::{Project, TableName, Topic, units};
use crate::error::Error;
use crate::ingest;
use crate::source::{Admin, Watermarks};

/// What a table says it has
#[derive(clap::Args, Debug)]
pub struct Args {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Print a table's ledger: the next offset of every partition, and how it was found
    Show {
        /// The table, like bronze.orders
        table: String,
    },
    /// Go on from the ledger that the table has, where nothing proves it
    #[command(after_help = "Use it when a topic halts because its table's history expired past the last ledger.")]
    Accept {
        /// The table, like bronze.orders
        table: String,
    },
    /// Decide where a topic goes on
    #[command(after_help = "\
Without --to, it accepts what stopped the topic: offsets that are gone are given up, and a topic that was recreated is
read from its beginning. A topic that nothing stopped needs --to; records that are read again become rows again.

Examples:
  calve ledger reset bronze.orders
  calve ledger reset bronze.orders --to earliest
  calve ledger reset bronze.orders --to 2026-01-31T00:00:00Z
  calve ledger reset bronze.orders --to 0=1200,3=980     other partitions stay where they are")]
    Reset {
        /// The table, like bronze.orders
        table: String,
        /// Which topic, where several fill the table
        #[arg(long)]
        topic: Option<String>,
        /// earliest, latest, start (as the topic is configured), a time, or PARTITION=OFFSET with commas between
        #[arg(long, value_name = "WHERE")]
        to: Option<String>,
        /// The topic was deleted and made anew: offsets that the table has already may come again
        #[arg(long)]
        recreated: bool,
    },
}

#[derive(Serialize)]
struct Shown {
    table: String,
    catalog: String,
    head: Option<i64>,
    /// Where the ledger was found: nothing, snapshot, older_metadata, mirror, trusted_mirror; null where none can be
    /// proved.
    found: Option<&'static str>,
    found_snapshot: Option<i64>,
    /// Snapshots of other writers above it.
    foreign_above: Option<usize>,
    /// Why none can be proved.
    reason: Option<String>,
    ledger: Option<Ledger>,
    mirror_snapshot: Option<i64>,
}

#[derive(Serialize)]
struct Decided {
    table: String,
    decision: &'static str,
    ledger: Ledger,
}

pub async fn run(args: Args, global: &Global) -> anyhow::Result<Exit> {
    let project = global.project()?;
    match args.command {
        Command::Show { table } => show(&project, &table, global).await,
        Command::Accept { table } => accept(&project, &table, global).await,
        Command::Reset { table, topic, to, recreated } => {
            reset(&project, &table, topic.as_deref(), to.as_deref(), recreated, global).await
        }
    }
}

async fn show(project: &Project, table: &str, global: &Global) -> anyhow::Result<Exit> {
    let found = tables::find(project, table)?;
    let catalog = tables::open(found.catalog).await?;
    let shown = decide::show(&*catalog, &catalog::ident(&found.name)?).await?;
    let (reading, reason) = match shown.reading {
        Ok(reading) => (Some(reading), None),
        Err(error) => (None, Some(error.to_string())),
    };
    let (word, snapshot) = reading.as_ref().map_or((None, None), |reading| match reading.found {
        Found::Nothing => (Some("nothing"), None),
        Found::Snapshot(id) => (Some("snapshot"), Some(id)),
        Found::OlderMetadata(id) => (Some("older_metadata"), Some(id)),
        Found::Mirror(id) => (Some("mirror"), Some(id)),
        Found::TrustedMirror(id) => (Some("trusted_mirror"), Some(id)),
    });
    let shown = Shown {
        table: found.name.to_string(),
        catalog: found.catalog.name.clone(),
        head: shown.head,
        found: word,
        found_snapshot: snapshot,
        foreign_above: reading.as_ref().map(|reading| reading.foreign_above),
        reason,
        mirror_snapshot: shown.mirror.as_ref().map(|mirror| mirror.snapshot),
        ledger: reading.map(|reading| reading.ledger),
    };
    global.output.print(&shown, || {
        let number = |id: Option<i64>| id.map_or("none".to_string(), |id| id.to_string());
        let mut text = format!("table    {} in catalog {}\n", shown.table, shown.catalog);
        text += &format!("head     {}\n", number(shown.head));
        match (shown.found, &shown.reason) {
            (Some(word), _) => {
                text +=
                    &format!("ledger   {word} {}\n", shown.found_snapshot.map_or(String::new(), |id| id.to_string()))
            }
            (None, Some(reason)) => text += &format!("ledger   not proved: {reason}\n"),
            (None, None) => {}
        }
        text += &format!("mirror   {}\n", number(shown.mirror_snapshot));
        text + &shown.ledger.as_ref().map_or(String::new(), described)
    })?;
    Ok(Exit::Done)
}

fn described(ledger: &Ledger) -> String {
    let mut text = String::new();
    for (name, topic) in &ledger.topics {
        let id = |id: &Option<String>| id.as_deref().unwrap_or("unknown").to_string();
        text += &format!(
            "\ntopic {name}: {} rows, {} rejects (topic id {}, cluster {})\n",
            topic.rows,
            topic.rejects,
            id(&topic.id),
            id(&topic.cluster)
        );
        for (partition, next) in topic.offsets() {
            text += &format!("  partition {partition}: next {next}\n");
        }
    }
    if ledger.foreign.added > 0 || ledger.foreign.deleted > 0 {
        text += &format!("\nother writers: {} rows added, {} deleted\n", ledger.foreign.added, ledger.foreign.deleted);
    }
    text
}

async fn accept(project: &Project, table: &str, global: &Global) -> anyhow::Result<Exit> {
    let found = tables::find(project, table)?;
    let catalog = tables::open(found.catalog).await?;
    let ident = catalog::ident(&found.name)?;
    // Accepted is what cannot be mended.
    if let (Some(topic), Ok(reading)) = (found.topic, decide::show(&*catalog, &ident).await?.reading)
        && let Err(error) = make_up(&catalog, topic, &reading.ledger).await
    {
        if error.downcast_ref::<Error>().is_some_and(Error::is_retry) {
            return Err(error);
        }
        tracing::warn!(table = %found.name, "{error:#}; going on without");
    }
    let ledger = decide::decide(catalog, &ident, &Decision::Accept).await?;
    print(global, Decided { table: found.name.to_string(), decision: "accept", ledger })
}

fn print(global: &Global, decided: Decided) -> anyhow::Result<Exit> {
    global
        .output
        .print(&decided, || format!("table {}: the ledger says now\n{}", decided.table, described(&decided.ledger)))?;
    Ok(Exit::Done)
}

async fn reset(
    project: &Project,
    table: &str,
    topic: Option<&str>,
    to: Option<&str>,
    recreated: bool,
    global: &Global,
) -> anyhow::Result<Exit> {
    let found = tables::find(project, table)?;
    let catalog = tables::open(found.catalog).await?;
    let ident = catalog::ident(&found.name)?;
    let shown = decide::show(&*catalog, &ident).await?;
    let ledger = match shown.reading {
        Ok(reading) => reading.ledger,
        Err(_) => shown.mirror.map(|mirror| mirror.ledger).unwrap_or_default(),
    };
    let topic = which_topic(project, topic, found.topic, &ledger)?;
    let told = ledger.topic(&topic.name);
    let going_on = target(project, topic, told, to, recreated).await?;

    if topic.table == found.name {
        make_up(&catalog, topic, &ledger).await?;
    }
    // The quarantine table goes first, as in every commit: what it has already stays there, unless offsets come again.
    if topic.table == found.name
        && let Some(theirs) = quarantine_ledger(&*catalog, &topic.quarantine).await?
        && let Some(theirs) = theirs.topic(&topic.name)
    {
        let offsets = match going_on.recreated {
            true => going_on.offsets.clone(),
            false => ahead(theirs, &going_on.offsets),
        };
        decided(catalog.clone(), &topic.quarantine, topic, offsets, going_on.recreated).await?;
    }
    let ledger = decided(catalog, &found.name, topic, going_on.offsets, going_on.recreated).await?;
    print(global, Decided { table: found.name.to_string(), decision: "reset", ledger })
}

/// Rejects that the ledger says are there are so before it is moved.
async fn make_up(catalog: &Arc<dyn Catalog>, topic: &Topic, ledger: &Ledger) -> anyhow::Result<()> {
    let counterparts = ledger.topic(&topic.name).map_or(&[][..], |entry| &entry.counterparts);
    if counterparts.is_empty() {
        return Ok(());
    }
    for counterpart in counterparts {
        if let Some(mut quarantine) = Committer::open_if_there(catalog.clone(), &counterpart.table).await? {
            ingest::make_up(&mut quarantine, &topic.name, counterpart).await?;
            quarantine.close().await;
        }
    }
    // From now on nothing is to be made up for, whatever becomes of the quarantine table's ledger.
    decide::decide(catalog.clone(), &catalog::ident(&topic.table)?, &Decision::Accept).await?;
    Ok(())
}

async fn decided(
    catalog: Arc<dyn Catalog>,
    table: &TableName,
    topic: &Topic,
    offsets: BTreeMap<i32, i64>,
    recreated: bool,
) -> anyhow::Result<Ledger> {
    let decision = Decision::Reset { topic: topic.name.clone(), offsets, recreated };
    Ok(decide::decide(catalog, &catalog::ident(table)?, &decision).await?)
}

/// Where the quarantine table's ledger stands beside the main table's new one: never behind what it has.
fn ahead(theirs: &TopicLedger, wanted: &BTreeMap<i32, i64>) -> BTreeMap<i32, i64> {
    let mut offsets = theirs.offsets();
    for (partition, offset) in wanted {
        let entry = offsets.entry(*partition).or_insert(*offset);
        *entry = (*entry).max(*offset);
    }
    offsets
}

async fn quarantine_ledger(catalog: &dyn Catalog, name: &TableName) -> anyhow::Result<Option<Ledger>> {
    if tables::load(catalog, name).await?.is_none() {
        return Ok(None);
    }
    let shown = decide::show(catalog, &catalog::ident(name)?).await?;
    Ok(Some(shown.reading.with_context(|| format!("table {name} needs a decision of its own first"))?.ledger))
}

fn which_topic<'a>(
    project: &'a Project,
    asked: Option<&str>,
    fills: Option<&'a Topic>,
    ledger: &Ledger,
) -> anyhow::Result<&'a Topic> {
    if let Some(name) = asked {
        return Ok(tables::topic(project, name)?);
    }
    if let Some(topic) = fills {
        return Ok(topic);
    }
    let names: Vec<&str> = ledger.topics.keys().map(String::as_str).collect();
    match names.as_slice() {
        [one] => Ok(tables::topic(project, one)?),
        [] => Err(Usage("no topic fills this table; there is no ledger to reset".to_string()).into()),
        many => {
            Err(Usage(format!("several topics fill this table; choose one with --topic: {}", many.join(", "))).into())
        }
    }
}

#[derive(Debug, PartialEq)]
struct GoingOn {
    /// Partitions that are not named start as the topic is configured to.
    offsets: BTreeMap<i32, i64>,
    recreated: bool,
}

async fn target(
    project: &Project,
    topic: &Topic,
    told: Option<&TopicLedger>,
    to: Option<&str>,
    recreated: bool,
) -> anyhow::Result<GoingOn> {
    let now = told.map(TopicLedger::offsets).unwrap_or_default();
    if to == Some("start") {
        return Ok(GoingOn { offsets: BTreeMap::new(), recreated });
    }
    if let Some(named) = to.filter(|to| to.contains('=')) {
        let mut offsets = if recreated { BTreeMap::new() } else { now };
        offsets.extend(named_offsets(named)?);
        return Ok(GoingOn { offsets, recreated });
    }
    // A word that cannot be right needs no broker to be refused.
    let time = match to {
        None | Some("earliest" | "latest") => None,
        Some(text) => Some(units::timestamp(text).map_err(|_| {
            Usage(format!(
                "--to {text} is none of earliest, latest, start, a time like 2026-01-31T00:00:00Z, and PARTITION=OFFSET"
            ))
        })?),
    };
    let admin = Admin::new(&project.kafka)?;
    let log = admin.watermarks(&topic.name, topic.isolation).await?;
    let ends = |end: fn(&Watermarks) -> i64| log.iter().map(|(partition, of)| (*partition, end(of))).collect();
    let offsets = match (to, time) {
        (Some("earliest"), _) => ends(|of| of.low),
        (Some("latest"), _) => ends(|of| of.end),
        (_, Some(ms)) => {
            let partitions: Vec<i32> = log.keys().copied().collect();
            admin.offsets_for_time(&topic.name, &partitions, ms, topic.isolation).await?
        }
        _ if recreated => ends(|of| of.low),
        _ => {
            let Some(reason) = probe::contradiction(topic, &admin, told, &log).await? else {
                let hint = "say where it goes on with --to; records that are read again become rows again";
                return Err(Usage(format!("nothing stops topic {}: {hint}", topic.name)).into());
            };
            tracing::info!("accepting: {reason}");
            return Ok(accepted(told, &log, is_another_log(topic, &admin, told, &log).await?));
        }
    };
    Ok(GoingOn { offsets, recreated })
}

/// Whether the ledger counts another log than this one: recreated, truncated, or on another cluster.
async fn is_another_log(
    topic: &Topic,
    admin: &Admin,
    told: Option<&TopicLedger>,
    log: &BTreeMap<i32, Watermarks>,
) -> anyhow::Result<bool> {
    let Some(told) = told else { return Ok(false) };
    let differ = |known: &Option<String>, found: Option<String>| matches!((known, found), (Some(known), Some(found)) if *known != found);
    let past_end = told.offsets().iter().any(|(partition, next)| log.get(partition).is_some_and(|of| *next > of.end));
    Ok(past_end
        || differ(&told.id, admin.topic_id(&topic.name).await?)
        || differ(&told.cluster, admin.cluster_id().await?))
}

/// Another log is read from its beginning; of the same log, what is gone is given up and the rest stays.
fn accepted(told: Option<&TopicLedger>, log: &BTreeMap<i32, Watermarks>, another: bool) -> GoingOn {
    if another {
        let offsets = log.iter().map(|(partition, of)| (*partition, of.low)).collect();
        return GoingOn { offsets, recreated: true };
    }
    let mut offsets = told.map(TopicLedger::offsets).unwrap_or_default();
    for (partition, next) in &mut offsets {
        *next = log.get(partition).map_or(*next, |of| (*next).max(of.low));
    }
    GoingOn { offsets, recreated: false }
}

fn named_offsets(text: &str) -> Result<BTreeMap<i32, i64>, Usage> {
    let mut offsets = BTreeMap::new();
    for pair in text.split(',') {
        let parsed = pair.split_once('=').and_then(|(partition, offset)| {
            let partition = partition.trim().parse::<i32>().ok().filter(|partition| *partition >= 0)?;
            let offset = offset.trim().parse::<i64>().ok().filter(|offset| *offset >= 0)?;
            Some((partition, offset))
        });
        let Some((partition, offset)) = parsed else {
            return Err(Usage(format!("--to {pair} is not PARTITION=OFFSET, like 0=1200")));
        };
        if offsets.insert(partition, offset).is_some() {
            return Err(Usage(format!("--to names partition {partition} twice")));
        }
    }
    Ok(offsets)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn log(ends: &[(i32, i64, i64)]) -> BTreeMap<i32, Watermarks> {
        ends.iter().map(|(partition, low, end)| (*partition, Watermarks { low: *low, end: *end })).collect()
    }

    #[test]
    fn accepting_gives_up_only_what_is_gone() {
        let told = TopicLedger { next: vec![5, 50, -1], ..TopicLedger::default() };
        let log = log(&[(0, 20, 100), (1, 20, 100), (2, 20, 100)]);
        let same = accepted(Some(&told), &log, false);
        assert_eq!(same, GoingOn { offsets: BTreeMap::from([(0, 20), (1, 50)]), recreated: false });
        let another = accepted(Some(&told), &log, true);
        assert_eq!(another, GoingOn { offsets: BTreeMap::from([(0, 20), (1, 20), (2, 20)]), recreated: true });
    }

    #[test]
    fn the_quarantine_table_never_goes_back() {
        let theirs = TopicLedger { next: vec![10, 30], ..TopicLedger::default() };
        assert_eq!(
            ahead(&theirs, &BTreeMap::from([(0, 20), (1, 20), (2, 5)])),
            BTreeMap::from([(0, 20), (1, 30), (2, 5)])
        );
    }

    #[test]
    fn offsets_by_partition() {
        assert_eq!(named_offsets("0=12, 3=0").map_err(|e| e.to_string()), Ok(BTreeMap::from([(0, 12), (3, 0)])));
        for (text, says) in [
            ("0=x", "not PARTITION=OFFSET"),
            ("0=-1", "not PARTITION"),
            ("0=1,0=2", "twice"),
            ("0=1,", "not PARTITION"),
        ] {
            assert!(named_offsets(text).expect_err(text).to_string().contains(says), "{text}");
        }
    }
}
