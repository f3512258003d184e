//! One partition's records between two offsets, read again outside of the group: for deep verification and replay.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use tokio::sync::mpsc;

use crate::batch::{OffsetRange, RawBatch};
use crate::config::{Isolation, Kafka};
use crate::error::{Error, Result};

use super::assemble::Assembly;
use super::budget::{Account, Budget};
use super::faults;
use super::native::{Client, Message, NativeError, Offsets, code};
use super::properties::{self, FetchLimits};

/// Batches that may wait for the reader.
const BATCHES_MAX: usize = 4;
const POLL_WAIT: Duration = Duration::from_millis(50);
/// A reader that hears nothing at all for this long gives up.
const SILENCE_MAX: Duration = Duration::from_secs(60);

/// Reads `[from, to)` of one partition. Dropping it stops the reading.
#[derive(Debug)]
pub struct RangeReader {
    batches: mpsc::Receiver<Result<RawBatch>>,
    stop: Arc<AtomicBool>,
}

impl RangeReader {
    /// Starts a consumer of its own that joins no group and commits nothing. With `read_committed`, records of
    /// aborted transactions are left out, as everywhere.
    pub fn start(
        kafka: &Kafka,
        topic: &str,
        partition: i32,
        range: OffsetRange,
        isolation: Isolation,
        budget: &Budget,
    ) -> Result<Self> {
        let entries = properties::consumer(kafka, None, isolation, FetchLimits::new(budget, 8));
        let failed = |error: NativeError| Error::halt(format!("cannot start a Kafka consumer: {error}"));
        let client = Client::new(&entries, None).map_err(failed)?;
        let mut list = Offsets::new();
        list.add(topic, partition, Some(range.from)).map_err(failed)?;
        if range.from < range.to {
            client.assign(&list).map_err(failed)?;
        }
        let (sender, batches) = mpsc::channel(BATCHES_MAX);
        let stop = Arc::new(AtomicBool::new(false));
        let reading = Reading {
            client,
            topic: Arc::from(topic),
            partition,
            range,
            account: budget.account(),
            sender,
            stop: stop.clone(),
        };
        thread::Builder::new()
            .name("kafka-range".into())
            .spawn(move || reading.run())
            .map_err(|error| Error::halt("cannot start a Kafka reader thread").caused_by(error))?;
        Ok(RangeReader { batches, stop })
    }

    /// The next batch, in offset order, ranges joining up; `None` when everything below the range's end was
    /// delivered (the last batch's range may end earlier: nothing follows it below the end).
    pub async fn next(&mut self) -> Result<Option<RawBatch>> {
        self.batches.recv().await.transpose()
    }
}

impl Drop for RangeReader {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
        self.batches.close();
    }
}

enum Step {
    More,
    Ended,
}

struct Reading {
    client: Client,
    topic: Arc<str>,
    partition: i32,
    range: OffsetRange,
    account: Account,
    sender: mpsc::Sender<Result<RawBatch>>,
    stop: Arc<AtomicBool>,
}

impl Reading {
    fn run(self) {
        if let Err(error) = self.read() {
            // Nobody to tell is nobody to mind.
            let _ = self.sender.blocking_send(Err(error));
        }
    }

    fn read(&self) -> Result<()> {
        let mut next = self.range.from;
        let mut heard = Instant::now();
        while next < self.range.to && !self.stop.load(Ordering::Relaxed) {
            let mut assembly = Assembly::new(next);
            // The first message is waited for, what follows is taken while there is any.
            let mut wait = POLL_WAIT;
            let outcome = loop {
                let Some(message) = self.client.poll(wait) else { break Ok(Step::More) };
                wait = Duration::ZERO;
                heard = Instant::now();
                match self.take(message.get(), &mut next, &mut assembly) {
                    Ok(Step::More) if !assembly.is_full() => {}
                    outcome => break outcome,
                }
            };
            if self.send(assembly) {
                // The reader may have kept us waiting; that was not the broker's silence.
                heard = Instant::now();
            }
            match outcome {
                Err(error) => return Err(self.failed(next, &error)),
                Ok(Step::Ended) => return Ok(()),
                Ok(Step::More) if heard.elapsed() > SILENCE_MAX => {
                    return Err(Error::retry(format!(
                        "topic {} partition {}: no answer for {} s while reading from offset {next} to {}",
                        self.topic,
                        self.partition,
                        SILENCE_MAX.as_secs(),
                        self.range.to
                    )));
                }
                Ok(Step::More) => {}
            }
        }
        Ok(())
    }

    fn take(&self, message: Message<'_>, next: &mut i64, assembly: &mut Assembly) -> Result<Step, NativeError> {
        let past = message.offset() >= self.range.to;
        match message.error() {
            0 | code::PARTITION_EOF if past => return Ok(Step::Ended),
            code::PARTITION_EOF => {
                let reason = format!("the log ends at {} already", message.offset());
                return Err(NativeError::new(code::PARTITION_EOF, reason));
            }
            0 if message.offset() < *next => {}
            0 if assembly.push(message) => *next = message.offset() + 1,
            0 => {
                let reason = format!("the headers of offset {} cannot be parsed", message.offset());
                return Err(NativeError::new(code::BAD_MESSAGE, reason));
            }
            code => {
                let error = NativeError::new(code, message.error_reason());
                if !error.is_transport() {
                    return Err(error);
                }
            }
        }
        Ok(Step::More)
    }

    /// Hands over what there is, when the reader has room for it; false if there was nothing.
    fn send(&self, assembly: Assembly) -> bool {
        let Some((mut batch, bytes)) = assembly.finish(&self.topic, self.partition) else { return false };
        batch.permit = self.account.take(bytes);
        if self.sender.blocking_send(Ok(batch)).is_err() {
            self.stop.store(true, Ordering::Relaxed);
        }
        true
    }

    fn failed(&self, next: i64, error: &NativeError) -> Error {
        let (topic, partition) = (&self.topic, self.partition);
        match error.code {
            code::PARTITION_EOF => Error::halt(format!(
                "topic {topic} partition {partition}: cannot read offsets {next} to {}: {}",
                self.range.to, error.reason
            )),
            code::AUTO_OFFSET_RESET | code::OFFSET_OUT_OF_RANGE => Error::halt(format!(
                "topic {topic} partition {partition}: offset {next} is no longer in the log ({}): retention or \
                 deletion removed it",
                error.reason
            )),
            _ => faults::of_topic(topic, partition, error),
        }
    }
}
