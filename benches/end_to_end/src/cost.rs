//! What a commit costs at commit 10, 1,000 and 10,000: time, size of metadata, requests to catalog and store.

use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};

use crate::running::{Daemon, Feeder, percentile, sorted};
use crate::{Broker, Log, Options, Project};

/// So many commits around each place.
const WINDOW: usize = 500;

pub fn measure(options: &Options, broker: &Broker) -> Result<()> {
    let log = Log::empty(broker.topic("cost", options.partitions)?);
    let project = Project::new(broker, &log, "512MiB", "1ms")?;
    let feeder = Feeder::start(broker, &log.topic, options.partitions, 500)?;
    let mut daemon = Daemon::start(&project, options)?;
    let started = Instant::now();
    let mut times = Vec::new();
    while times.len() < options.commits {
        let (_, line) = daemon.commit(Duration::from_secs(30))?;
        times.push(line["milliseconds"].as_f64().context("a commit's time")?);
        if times.len() % 1000 == 0 {
            eprintln!("{} commits in {} s", times.len(), started.elapsed().as_secs());
        }
    }
    let requests = requests(&mut daemon, options.commits)?;
    drop(feeder);
    daemon.stop()?;
    println!("commits          p50 ms   p99 ms   (files finished to the catalog's yes)");
    let mut ends = Vec::new();
    for from in [10, 1_000, options.commits.saturating_sub(WINDOW)] {
        let window = sorted(times.get(from..from + WINDOW).context("too few commits")?.to_vec());
        let (middle, high) = (percentile(&window, 0.5), percentile(&window, 0.99));
        println!("{from:6}–{:<6}  {middle:8.2} {high:8.2}", from + WINDOW);
        ends.push((middle, high));
    }
    let (early, late) = (ends[0], ends[ends.len() - 1]);
    println!("late / early: p50 {:.2}, p99 {:.2}", late.0 / early.0, late.1 / early.1);
    sizes(&project)?;
    println!("requests a commit: {requests}");
    let verified = project.command(options).args(["-q", "verify", "bronze.bench"]).output()?;
    ensure!(verified.status.success(), "calve verify: {}", String::from_utf8_lossy(&verified.stdout));
    Ok(())
}

/// To catalog and store, one commit like the other.
fn requests(daemon: &mut Daemon, commits: usize) -> Result<String> {
    let mut all = Vec::new();
    for name in ["calve_catalog_requests_total", "calve_store_requests_total"] {
        for (labels, count) in daemon.series(name)? {
            let request = labels.split("request=\"").nth(1).and_then(|rest| rest.split('"').next()).unwrap_or(&labels);
            all.push(format!("{request} {:.2}", count / commits as f64));
        }
    }
    Ok(all.join(", "))
}

/// The newest metadata file and manifest list.
fn sizes(project: &Project) -> Result<()> {
    let folder = project.folder.path().join("warehouse/bronze/bench/metadata");
    let newest = |begins: &str, ends: &str| -> Result<u64> {
        let mut found = Vec::new();
        for entry in std::fs::read_dir(&folder)? {
            let entry = entry?;
            let name = entry.file_name().to_string_lossy().into_owned();
            if name.starts_with(begins) && name.ends_with(ends) {
                found.push((entry.metadata()?.modified()?, entry.metadata()?.len()));
            }
        }
        Ok(found.into_iter().max().with_context(|| format!("no {begins}*{ends}"))?.1)
    };
    println!(
        "metadata.json {:.1} KB, manifest list {:.1} KB",
        newest("", ".metadata.json")? as f64 / 1e3,
        newest("snap-", ".avro")? as f64 / 1e3
    );
    Ok(())
}
