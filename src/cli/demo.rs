//! `calve demo`: everything embedded, from a broker in the process to a query's result.

use std::path::{Path, PathBuf};
use std::time::Instant;

use anyhow::Context as _;
use arrow::util::pretty::pretty_format_batches;
use iceberg::table::Table;
use serde::Serialize;
use tokio_util::sync::CancellationToken;

use super::orders::Orders;
use super::output::{print, thousands};
use super::{Exit, Global, Output, Usage, init};
use crate::config::{self, Project};
use crate::query::Engine;
use crate::source::demo_broker::{DemoBroker, DemoRecord};
use crate::{catalog, daemon};

/// See it work: a broker in the process, sample orders, ingest, a refinement, a query
#[derive(clap::Args, Debug)]
#[command(after_help = "Examples:
  calve demo
  calve demo --dir /tmp/shop --messages 1000000

Leaves a project: its folder holds calve.toml, catalogs/, proto/, sql/ and the warehouse with both tables.")]
pub struct Args {
    /// Where to make the project; must not exist, or be empty
    #[arg(long, default_value = "calve-demo")]
    dir: PathBuf,
    /// How many orders to produce
    #[arg(long, default_value_t = 100_000, value_parser = clap::value_parser!(u64).range(1..=20_000_000))]
    messages: u64,
}

/// Bytes of an order, about; one in so many is damaged, to show the quarantine.
const ORDER_BYTES: u64 = 230;
const DAMAGED_EVERY: u64 = 25_000;
const SEED: u64 = 7;

const QUERY: &str = "\
SELECT country, count(*) AS lines, sum(quantity) AS pieces, sum(quantity * unit_price) AS turnover
FROM silver.order_lines
WHERE country IS NOT NULL
GROUP BY country
ORDER BY turnover DESC";

#[derive(Serialize)]
struct Shown {
    dir: PathBuf,
    messages: u64,
    ingest_seconds: f64,
    bronze: Opened,
    silver: Opened,
    query: &'static str,
    result: String,
}

#[derive(Serialize)]
struct Opened {
    table: String,
    rows: u64,
    metadata: String,
}

pub async fn run(args: Args, global: &Global) -> anyhow::Result<Exit> {
    if args.dir.read_dir().is_ok_and(|mut entries| entries.next().is_some()) {
        let message = format!("{} is not empty; delete it, or choose another with --dir", args.dir.display());
        return Err(Usage(message).into());
    }
    init::write(&args.dir)?;
    let dir = args.dir.canonicalize().with_context(|| format!("cannot open {}", args.dir.display()))?;
    let say = |line: String| match global.output {
        Output::Text => print(&format!("{line}\n")),
        Output::Json => Ok(()),
    };

    let partitions = DemoBroker::partitions_for(args.messages, ORDER_BYTES);
    say(format!(
        "1. a broker in this process: topic orders, {partitions} partitions, {} orders (shop.v1.Order)",
        thousands(args.messages as i64)
    ))?;
    let broker = produce(args.messages, partitions)?;

    let project = open_project(&dir, &broker.bootstrap_servers())?;
    say("2. ingest: orders → bronze.orders, then sql/silver/order_lines.sql → silver.order_lines".to_string())?;
    let started = Instant::now();
    let options =
        daemon::Options { until_caught_up: true, progress: global.progress.clone(), ..daemon::Options::default() };
    let report = daemon::run(&project, &options, CancellationToken::new()).await?;
    if let Some((name, why)) = report.halted.first_key_value() {
        anyhow::bail!("{name}: {why}");
    }
    let ingest_seconds = started.elapsed().as_secs_f64();

    let bronze = opened(&project, "bronze", "orders").await?;
    let silver = opened(&project, "silver", "order_lines").await?;
    let rejected = args.messages - bronze.rows;
    say(format!(
        "   {} rows in {ingest_seconds:.1} s, {rejected} damaged messages in bronze.orders__quarantine; {} order lines",
        thousands(bronze.rows as i64),
        thousands(silver.rows as i64)
    ))?;

    let batches = Engine::of_project(&project, 50)?.query(QUERY).await?.collect().await?;
    let result = pretty_format_batches(&batches)?.to_string();
    say(format!("3. calve query\n\n{QUERY};\n\n{result}\n"))?;
    say(lines(&dir, &bronze, &silver))?;
    if global.output == Output::Json {
        let shown = Shown { dir, messages: args.messages, ingest_seconds, bronze, silver, query: QUERY, result };
        global.output.print(&shown, String::new)?;
    }
    Ok(Exit::Done)
}

fn produce(messages: u64, partitions: i32) -> anyhow::Result<DemoBroker> {
    let mut broker = DemoBroker::start(&[("orders", partitions)])?;
    let started_ms = chrono::Utc::now().timestamp_millis() - messages as i64 * 8;
    for (number, order) in (1..=messages).zip(Orders::new(SEED, started_ms)) {
        let damaged = number % DAMAGED_EVERY == 0;
        let value = if damaged { &order.value[..order.value.len() - 3] } else { &order.value[..] };
        let record = DemoRecord {
            partition: (number % partitions as u64) as i32,
            key: order.key.as_bytes(),
            value,
            timestamp_ms: order.timestamp_ms,
        };
        broker.produce("orders", record)?;
    }
    broker.flush()?;
    Ok(broker)
}

fn open_project(dir: &Path, bootstrap_servers: &str) -> anyhow::Result<Project> {
    let bootstrap_servers = bootstrap_servers.to_string();
    let environment = move |name: &str| match name {
        "KAFKA_BOOTSTRAP" => Some(bootstrap_servers.clone()),
        name => std::env::var(name).ok(),
    };
    Ok(config::load_with(&dir.join("calve.toml"), &environment)?)
}

async fn opened(project: &Project, namespace: &str, name: &str) -> anyhow::Result<Opened> {
    let catalog = catalog::open(&project.catalogs["local"]).await?;
    let name = config::TableName { namespace: vec![namespace.to_string()], name: name.to_string() };
    let table = catalog.load(&catalog::ident(&name)?).await?;
    Ok(Opened {
        table: name.to_string(),
        rows: total_records(&table),
        metadata: table.metadata_location_result()?.to_string(),
    })
}

fn total_records(table: &Table) -> u64 {
    let snapshot = table.metadata().current_snapshot();
    let total = snapshot.and_then(|snapshot| snapshot.summary().additional_properties.get("total-records"));
    total.and_then(|total| total.parse().ok()).unwrap_or(0)
}

/// The lines that open both tables elsewhere.
fn lines(dir: &Path, bronze: &Opened, silver: &Opened) -> String {
    let dir = dir.display();
    let plain = |location: &str| location.trim_start_matches("file://").to_string();
    format!(
        "4. the same tables elsewhere

   DuckDB (INSTALL iceberg; LOAD iceberg; first):
     SELECT * FROM iceberg_scan('{bronze}') LIMIT 5;
     SELECT * FROM iceberg_scan('{silver}') LIMIT 5;

   PyIceberg (pip install 'pyiceberg[sql-sqlite,pyarrow]'):
     from pyiceberg.catalog import load_catalog; local = load_catalog('local', type='sql', uri='sqlite:///{dir}/warehouse/catalog.db', warehouse='file://{dir}/warehouse')
     print(local.load_table('bronze.orders').scan(limit=5).to_arrow())
     print(local.load_table('silver.order_lines').scan(limit=5).to_arrow())

   calve itself:
     calve -c {dir} query 'SELECT count(*) FROM bronze.orders'
     calve -c {dir} verify bronze.orders",
        bronze = plain(&bronze.metadata),
        silver = plain(&silver.metadata),
    )
}
