//! The daemon: one named task a topic, one cancellation token, an ordered and bounded drain.
//!
//! Order of the drain: topics flush and commit, then refinements finish, then the Kafka client leaves the group, then
//! HTTP ends. What does not make it within `shutdown_timeout` is named and cut off; nothing is lost by that, since
//! what is not committed is read again.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;
use std::time::Duration;

use anyhow::Context as _;
use tokio::sync::OnceCell;
use tokio::task::JoinSet;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use crate::catalog::{self, Catalog};
use crate::config::{self, Project};
use crate::error::Error;
use crate::ingest::{self, patiently};
use crate::refine::Refinements;
use crate::refine::schedule::Ran;
use crate::source::{Admin, Budget, Source, TopicSubscription};
use crate::telemetry::metrics::{Topic as TopicLabel, TopicMetrics};
use crate::telemetry::progress::{Progress, Sample};
use crate::telemetry::{Board, Metrics, TopicState, http};

/// What `calve run` was asked for.
#[derive(Clone, Debug, Default)]
pub struct Options {
    /// Stop once everything up to the ends at start is committed, and refined downstream.
    pub until_caught_up: bool,
    /// Only these topics; empty means all.
    pub topics: Vec<String>,
    /// Serve HTTP here; none: no server.
    pub http: Option<String>,
    /// Where to show how far it is.
    pub progress: Progress,
}

/// How a run ended: which topics halted, and why.
#[derive(Debug, Default)]
pub struct Report {
    pub halted: BTreeMap<String, String>,
}

/// Of `memory_limit`: what the process takes before it holds a record (code, threads, librdkafka, catalogs), but never
/// more than half of it.
const PROCESS_BYTES: u64 = 64 << 20;
/// Of what is left: what was fetched, and what is being shredded and encoded. The rest is for commits, refinements, and
/// what the allocator keeps of what was freed.
const FETCH_PERCENT: u64 = 25;
const WRITE_PERCENT: u64 = 25;
/// How often figures are looked at that nobody tells.
const OBSERVE_INTERVAL: Duration = Duration::from_secs(1);
/// A run that must end by itself waits so long for a catalog.
const CATALOG_WAIT: Duration = Duration::from_secs(60);
/// A topic's loop may hold so much, however many topics there are; most of them are quiet at any time.
const TOPIC_BYTES_MIN: u64 = 8 << 20;

/// Runs until `stop` is cancelled or, with `until_caught_up`, all is done.
pub async fn run(project: &Project, options: &Options, stop: CancellationToken) -> anyhow::Result<Report> {
    let metrics = Metrics::new();
    let board = Board::new(metrics.clone());
    let limit = project.daemon.memory_limit_bytes;
    metrics.memory_limit.set(i64::try_from(limit).unwrap_or(i64::MAX));

    let refinements =
        Refinements::load(project)?.with_metrics(Arc::new(metrics.clone())).with_progress(options.progress.clone());
    let names: Vec<&String> = match options.topics.is_empty() {
        true => project.topics.keys().collect(),
        false => options.topics.iter().collect(),
    };
    let mut topics = Vec::new();
    for name in names {
        let topic = project.topics.get(name).with_context(|| {
            let known: Vec<&str> = project.topics.keys().map(String::as_str).collect();
            format!("topic {name} is not registered in calve.toml; registered: {}", known.join(", "))
        })?;
        board.add(&topic.name, &topic.table.to_string());
        topics.push(topic.clone());
    }

    // The server comes first: an address in use is said before anything is read.
    let drained = CancellationToken::new();
    let server = match &options.http {
        None => None,
        Some(address) => {
            let server = http::Server::bind(address, project.daemon.http_token.clone()).await?;
            tracing::info!("serving http://{}: /metrics /livez /readyz /status", server.address());
            Some(tokio::spawn(server.serve(metrics.clone(), board.clone(), drained.clone())))
        }
    };

    let mut report = Report::default();
    // Each is opened by the topics that need it, as they start: one that is down holds up no other.
    let mut catalogs: HashMap<String, (config::Catalog, Arc<OnceCell<Arc<dyn Catalog>>>)> = HashMap::new();
    for topic in &topics {
        let config = project
            .catalogs
            .get(&topic.catalog)
            .with_context(|| format!("{}: no catalog named {}", topic.place, topic.catalog))?;
        catalogs.entry(topic.catalog.clone()).or_insert_with(|| (config.clone(), Arc::default()));
    }

    let buffers = limit.saturating_sub(PROCESS_BYTES).max(limit / 2);
    let budget = Budget::new(buffers / 100 * FETCH_PERCENT);
    let subscriptions =
        topics.iter().map(|topic| TopicSubscription { name: topic.name.clone(), isolation: topic.isolation }).collect();
    let (source, mut events) = Source::start(&project.kafka, subscriptions, &budget, &metrics.kafka())?;
    let source = Arc::new(source);
    let admin = Admin::new(&project.kafka)?;
    let memory_bytes = (buffers / 100 * WRITE_PERCENT / topics.len().max(1) as u64).max(TOPIC_BYTES_MIN);

    let observing = AbortOnDrop(tokio::spawn(observe(board.clone(), metrics.clone(), budget, refinements.clone())));
    let read = topics.iter().map(|topic| (topic.name.clone(), topic.isolation)).collect();
    let watching = AbortOnDrop(tokio::spawn(ingest::watch_stuck(read, admin.clone(), board.clone(), metrics.clone())));
    let counted: Vec<TopicMetrics> = topics.iter().map(|topic| metrics.topic(&topic.name)).collect();
    let watch = options.progress.watch("reading", move || read_so_far(&counted));

    let cancel = stop.child_token();
    let mut loops = JoinSet::new();
    let mut running = HashMap::new();
    for topic in topics {
        let Some(events) = events.remove(&topic.name) else { continue };
        let (config, opened) = catalogs[&topic.catalog].clone();
        let wait = ingest::Patience {
            topic: topic.name.clone(),
            board: board.clone(),
            limit: options.until_caught_up.then_some(CATALOG_WAIT),
            stall: Some(events.stall()),
        };
        let (source, admin, board, metrics) = (source.clone(), admin.clone(), board.clone(), metrics.clone());
        let (refinements, until_caught_up, cancel) = (refinements.clone(), options.until_caught_up, cancel.clone());
        let name = topic.name.clone();
        let task = loops.spawn(async move {
            let catalog = tokio::select! {
                () = cancel.cancelled() => return Ok(()),
                catalog = open_catalog(&wait, &config, &opened, &metrics) => catalog?,
            };
            let context =
                ingest::Context { catalog, source, admin, board, metrics, refinements, memory_bytes, until_caught_up };
            ingest::run(topic, events, context, cancel).await
        });
        running.insert(task.id(), name);
    }

    // Caught up, they run once, after the topics; else as commits come.
    let stop_refining = stop.child_token();
    let refining = match options.until_caught_up {
        true => None,
        false => Some(tokio::spawn({
            let (refinements, stop) = (refinements.clone(), stop_refining.clone());
            async move { refinements.serve(stop).await }
        })),
    };

    // A daemon goes on with the topics that are left; it ends when it is told to, or when all is caught up.
    let mut deadline = None;
    loop {
        let ended = tokio::select! {
            () = stop.cancelled(), if deadline.is_none() => {
                tracing::info!("shutting down: committing what was read");
                board.stopping();
                deadline = Some(Instant::now() + project.daemon.shutdown_timeout);
                continue;
            }
            () = sleep_until(deadline) => break,
            ended = loops.join_next_with_id(), if !loops.is_empty() => ended,
            () = std::future::pending(), if loops.is_empty() && !options.until_caught_up && deadline.is_none() => None,
            else => None,
        };
        match ended {
            Some(Ok((id, result))) => {
                let name = running.remove(&id).unwrap_or_default();
                match result {
                    Ok(()) => board.set(&name, TopicState::Stopped, None),
                    Err(error) => {
                        source.halt(&name);
                        halt(&board, &mut report, &name, &error.into());
                    }
                }
            }
            Some(Err(error)) => {
                let name = running.remove(&error.id()).unwrap_or_default();
                source.halt(&name);
                halt(&board, &mut report, &name, &anyhow::anyhow!("its task failed: {error}"));
            }
            None => {}
        }
        if loops.is_empty() && (options.until_caught_up || deadline.is_some()) {
            break;
        }
    }
    if !running.is_empty() {
        let stragglers: Vec<&str> = running.values().map(String::as_str).collect();
        tracing::error!(
            topics = stragglers.join(", "),
            "not done within shutdown_timeout; what they had not committed will be read again"
        );
    }
    loops.shutdown().await;

    drop(watch);
    let grace = deadline.map_or(project.daemon.shutdown_timeout, |deadline| {
        deadline.saturating_duration_since(Instant::now()).max(Duration::from_secs(2))
    });
    match refining {
        None if !stop.is_cancelled() => {
            for ran in refinements.run_all_pending(&stop).await {
                match ran.result {
                    Ran::Failed { error } => drop(report.halted.insert(ran.target, error)),
                    Ran::Held { by } => drop(report.halted.insert(ran.target, format!("not run, because {by} failed"))),
                    Ran::UpToDate | Ran::Committed { .. } => {}
                }
            }
        }
        None => {}
        // Each stops between two steps; what it had not committed runs again.
        Some(refining) => {
            stop_refining.cancel();
            if tokio::time::timeout(grace, refining).await.is_err() {
                tracing::error!("refinements did not stop within shutdown_timeout; they will run again");
            }
        }
    }
    if let Ok(source) = Arc::try_unwrap(source) {
        source.shutdown(grace).await;
    }
    drop((observing, watching));
    drained.cancel();
    if let Some(server) = server {
        server.await.context("the HTTP server failed")??;
    }
    Ok(report)
}

/// Keeps up what nobody is told of when it changes: memory, and the age of records that wait.
async fn observe(board: Board, metrics: Metrics, budget: Budget, refinements: Refinements) {
    let (fetched, refining) = (metrics.memory("fetched"), metrics.memory("refining"));
    let mut tick = tokio::time::interval(OBSERVE_INTERVAL);
    loop {
        tick.tick().await;
        fetched.set(i64::try_from(budget.used_bytes()).unwrap_or(i64::MAX));
        refining.set(i64::try_from(refinements.runner().engine().memory_used_bytes()).unwrap_or(i64::MAX));
        for (topic, status) in board.status().topics {
            if let Some(seconds) = status.lag_seconds {
                metrics.lag_seconds.get_or_create(&TopicLabel { topic }).set(seconds);
            }
        }
    }
}

fn read_so_far(topics: &[TopicMetrics]) -> Sample {
    let unread: i64 = topics.iter().map(|topic| topic.unread_records.get()).sum();
    Sample {
        records: topics.iter().map(|topic| topic.records_read.get()).sum(),
        bytes: topics.iter().map(|topic| topic.bytes_read.get()).sum(),
        lag: Some(u64::try_from(unread).unwrap_or(0)),
    }
}

struct AbortOnDrop(tokio::task::JoinHandle<()>);

impl Drop for AbortOnDrop {
    fn drop(&mut self) {
        self.0.abort();
    }
}

async fn open_catalog(
    wait: &ingest::Patience,
    config: &config::Catalog,
    opened: &OnceCell<Arc<dyn Catalog>>,
    metrics: &Metrics,
) -> Result<Arc<dyn Catalog>, Error> {
    let open = || async {
        catalog::open_counted(config, metrics.requests(&config.name)).await.map_err(|error| {
            let error = Error::from(error.at(format_args!("topic {}", wait.topic)));
            match error.is_retry() {
                true => error,
                false => Error::halt(format!(
                    "{error}; mend catalogs/{}.toml, or what its server grants, and start calve again",
                    config.name
                )),
            }
        })
    };
    patiently!(wait, async { opened.get_or_try_init(open).await.cloned() })
}

fn halt(board: &Board, report: &mut Report, topic: &str, error: &anyhow::Error) {
    let line = format!("{error:#}");
    tracing::error!(topic, "halted: {line}");
    board.set(topic, TopicState::Halted, Some(line.clone()));
    report.halted.insert(topic.to_string(), line);
}

async fn sleep_until(deadline: Option<Instant>) {
    match deadline {
        Some(deadline) => tokio::time::sleep_until(deadline).await,
        None => std::future::pending().await,
    }
}
