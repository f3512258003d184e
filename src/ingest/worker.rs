//! One share of a topic's partitions on one task: shred, then write. Workers share nothing but the memory count, so
//! that partitions use several cores.
//!
//! A worker stages; it never commits. After a failure it stages nothing more until it is told to abort, and says what
//! failed when it is asked to finish.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use arrow::array::RecordBatch;
use arrow::error::ArrowError;
use iceberg::table::Table;
use tokio::sync::{mpsc, oneshot};
use tokio::task::{JoinHandle, block_in_place};

use super::open::{Opened, Rejects};
use crate::batch::{RawBatch, StagedFiles};
use crate::error::{Error, Result};
use crate::shred::Shredder;
use crate::telemetry::metrics::{Share, TopicMetrics};
use crate::write::{Limits, TableWriter};

/// Batches that may wait for a worker: one in hand, one ready.
const QUEUE_MAX: usize = 2;

/// What a worker has for the next commit.
#[derive(Debug, Default)]
pub struct Staged {
    pub rows: StagedFiles,
    pub row_count: u64,
    pub rejects: StagedFiles,
    pub reject_count: u64,
    /// The partitions that they are from.
    pub rejected: BTreeSet<i32>,
}

impl Staged {
    pub fn merge(&mut self, other: Staged) {
        self.rows.files.extend(other.rows.files);
        self.row_count += other.row_count;
        self.rejects.files.extend(other.rejects.files);
        self.reject_count += other.reject_count;
        self.rejected.extend(other.rejected);
    }
}

/// What the loop watches while a worker works.
#[derive(Debug, Default)]
pub struct Load {
    /// Memory held by columns and open row groups.
    pub buffered_bytes: AtomicU64,
    /// A file has reached its target size: time to commit.
    pub full: AtomicBool,
}

enum Work {
    Batch(RawBatch),
    Finish(oneshot::Sender<Result<Staged>>),
    Abort(oneshot::Sender<()>),
}

pub struct Worker {
    work: mpsc::Sender<Work>,
    pub load: Arc<Load>,
    task: JoinHandle<()>,
}

impl Worker {
    pub fn start(
        target: Arc<Opened>,
        rejects: Arc<Rejects>,
        limits: Limits,
        metrics: TopicMetrics,
        memory: Share,
        open_files: Share,
    ) -> Worker {
        let (sender, receiver) = mpsc::channel(QUEUE_MAX);
        let load = Arc::new(Load::default());
        let state = State {
            target,
            rejects,
            limits,
            metrics,
            memory,
            open_files,
            load: load.clone(),
            shredder: None,
            writer: None,
            reject_writer: None,
            row_count: 0,
            reject_count: 0,
            rejected: BTreeSet::new(),
            failure: None,
        };
        Worker { work: sender, load, task: tokio::spawn(state.run(receiver)) }
    }

    /// Waits while the worker has enough to do.
    pub async fn take(&self, batch: RawBatch) -> Result<()> {
        self.work.send(Work::Batch(batch)).await.map_err(|_| stopped())
    }

    /// Closes all files; they are durable when this returns. On failure nothing is left staged.
    pub async fn finish(&self) -> Result<Staged> {
        let (reply, answer) = oneshot::channel();
        self.work.send(Work::Finish(reply)).await.map_err(|_| stopped())?;
        answer.await.map_err(|_| stopped())?
    }

    /// Drops everything that is not committed.
    pub async fn abort(&self) {
        let (reply, answer) = oneshot::channel();
        if self.work.send(Work::Abort(reply)).await.is_ok() {
            // Without an answer the task is gone, and its files with it (or left to the orphan sweep).
            let _ = answer.await;
        }
    }
}

impl Drop for Worker {
    fn drop(&mut self) {
        self.task.abort();
    }
}

fn stopped() -> Error {
    Error::halt("a worker stopped unexpectedly; its log says why")
}

struct State {
    target: Arc<Opened>,
    rejects: Arc<Rejects>,
    limits: Limits,
    metrics: TopicMetrics,
    memory: Share,
    open_files: Share,
    load: Arc<Load>,
    shredder: Option<Shredder>,
    writer: Option<TableWriter>,
    /// With the table that it writes to as it was then.
    reject_writer: Option<(Table, TableWriter)>,
    row_count: u64,
    reject_count: u64,
    rejected: BTreeSet<i32>,
    failure: Option<Error>,
}

impl State {
    async fn run(mut self, mut work: mpsc::Receiver<Work>) {
        while let Some(work) = work.recv().await {
            match work {
                Work::Batch(batch) if self.failure.is_none() => {
                    if let Err(error) = self.add(&batch).await {
                        self.failure = Some(error);
                        // The loop should ask soon.
                        self.load.full.store(true, Ordering::Relaxed);
                    }
                }
                Work::Batch(_) => {}
                Work::Finish(reply) => {
                    let staged = self.finish().await;
                    // A loop that is gone does not want the answer.
                    let _ = reply.send(staged);
                }
                Work::Abort(reply) => {
                    self.abort().await;
                    let _ = reply.send(());
                }
            }
            self.weigh();
        }
    }

    async fn add(&mut self, batch: &RawBatch) -> Result<()> {
        fail::fail_point!("ingest::shred");
        let shredder = match &mut self.shredder {
            Some(shredder) => shredder,
            empty => {
                let shredder = Shredder::new(&self.target.mapping, self.target.shred).map_err(|error| {
                    Error::halt(format!("table {} cannot be shredded into", self.target.table.identifier()))
                        .caused_by(error)
                })?;
                empty.insert(shredder)
            }
        };
        let rows_before = shredder.rows();
        let rejects = block_in_place(|| shredder.append(batch));
        let added = (shredder.rows() - rows_before) as u64;
        self.row_count += added;
        self.metrics.rows.inc_by(added);
        if !rejects.is_empty() {
            self.reject(batch, &rejects).await?;
        }
        self.encode(Shredder::take_full).await
    }

    async fn reject(&mut self, batch: &RawBatch, rejects: &[crate::batch::Reject]) -> Result<()> {
        self.reject_count += rejects.len() as u64;
        self.rejected.insert(batch.partition);
        for reject in rejects {
            self.metrics.rejected(reject.code);
        }
        let (table, writer) = match &mut self.reject_writer {
            Some(known) => known,
            empty => {
                let table = self.rejects.table().await?;
                let writer = TableWriter::new(&table, self.limits)?;
                empty.insert((table, writer))
            }
        };
        let rows = block_in_place(|| self.rejects.rows(batch, rejects, table))?;
        writer.write(rows).await?;
        if writer.closed_files() > 0 {
            self.load.full.store(true, Ordering::Relaxed);
        }
        Ok(())
    }

    /// Hands shredded rows to the Parquet encoder.
    async fn encode(
        &mut self,
        take: impl FnOnce(&mut Shredder) -> std::result::Result<Vec<RecordBatch>, ArrowError>,
    ) -> Result<()> {
        let Some(shredder) = &mut self.shredder else { return Ok(()) };
        let batches = take(shredder).map_err(|error| {
            Error::halt(format!("rows of table {} do not fit its columns", self.target.table.identifier()))
                .caused_by(error)
        })?;
        if batches.is_empty() {
            return Ok(());
        }
        let writer = match &mut self.writer {
            Some(writer) => writer,
            empty => {
                let schema = self.target.mapping.iceberg.clone();
                empty.insert(TableWriter::with_schema(&self.target.table, schema, self.limits)?)
            }
        };
        for rows in batches {
            writer.write(rows).await?;
        }
        if writer.closed_files() > 0 {
            self.load.full.store(true, Ordering::Relaxed);
        }
        Ok(())
    }

    async fn finish(&mut self) -> Result<Staged> {
        if self.failure.is_none()
            && let Err(error) = self.encode(Shredder::take).await
        {
            self.failure = Some(error);
        }
        if let Some(error) = self.failure.take() {
            self.abort().await;
            return Err(error);
        }
        let mut staged = Staged {
            row_count: std::mem::take(&mut self.row_count),
            reject_count: std::mem::take(&mut self.reject_count),
            rejected: std::mem::take(&mut self.rejected),
            ..Staged::default()
        };
        if let Some(writer) = self.writer.take() {
            staged.rows = writer.finish().await?;
        }
        if let Some((_, writer)) = self.reject_writer.take() {
            match writer.finish().await {
                Ok(rejects) => staged.rejects = rejects,
                Err(error) => {
                    crate::write::discard(&self.target.table, staged.rows).await;
                    return Err(error);
                }
            }
        }
        Ok(staged)
    }

    async fn abort(&mut self) {
        // Columns hold only what is not committed.
        self.shredder = None;
        self.failure = None;
        (self.row_count, self.reject_count) = (0, 0);
        self.rejected.clear();
        let reject_writer = self.reject_writer.take().map(|(_, writer)| writer);
        for writer in [self.writer.take(), reject_writer].into_iter().flatten() {
            writer.abort().await;
        }
    }

    fn weigh(&mut self) {
        let shredded = self.shredder.as_ref().map_or(0, |shredder| shredder.bytes() as u64);
        let writers = || self.writer.iter().chain(self.reject_writer.iter().map(|(_, writer)| writer));
        let encoded: u64 = writers().map(TableWriter::buffered_bytes).sum();
        let open_files: usize = writers().map(TableWriter::open_files).sum();
        self.load.buffered_bytes.store(shredded + encoded, Ordering::Relaxed);
        self.memory.set((shredded + encoded) as i64);
        self.open_files.set(open_files as i64);
        if self.writer.is_none() && self.reject_writer.is_none() && self.failure.is_none() {
            self.load.full.store(false, Ordering::Relaxed);
        }
    }
}
