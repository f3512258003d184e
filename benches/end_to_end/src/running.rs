//! Daemons that run while something is measured: their log, their metrics, and a steady stream of records for them.

use std::collections::BTreeMap;
use std::io::{BufRead, BufReader};
use std::process::{Child, Command};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, mpsc};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use rand::SeedableRng;
use rand::rngs::StdRng;
use rdkafka::producer::{BaseRecord, Producer};
use serde_json::Value;

use crate::messages::Messages;
use crate::{Broker, Options, Project};

/// A daemon; killed when dropped.
pub struct Daemon {
    child: Child,
    lines: mpsc::Receiver<(Instant, Value)>,
    address: Option<String>,
}

impl Daemon {
    pub fn start(project: &Project, options: &Options) -> Result<Daemon> {
        let mut child = project.daemon(options)?;
        let stderr = BufReader::new(child.stderr.take().context("the daemon's stderr")?);
        let (sender, lines) = mpsc::channel();
        std::thread::spawn(move || {
            for line in stderr.lines().map_while(Result::ok) {
                let Ok(line) = serde_json::from_str(&line) else { continue };
                if sender.send((Instant::now(), line)).is_err() {
                    return;
                }
            }
        });
        Ok(Daemon { child, lines, address: None })
    }

    /// The next line of its log, and when it came.
    pub fn line(&mut self, within: Duration) -> Result<(Instant, Value)> {
        let (at, line) = self.lines.recv_timeout(within).context("the daemon's log says nothing")?;
        if let Some(rest) = message(&line).strip_prefix("serving http://") {
            self.address = rest.split(": ").next().map(str::to_owned);
        }
        Ok((at, line))
    }

    /// The next commit of the topic's table, and when it was logged.
    pub fn commit(&mut self, within: Duration) -> Result<(Instant, Value)> {
        let deadline = Instant::now() + within;
        loop {
            let (at, line) = self.line(deadline.saturating_duration_since(Instant::now()))?;
            if message(&line) == "committed" && line["topic"].is_string() {
                return Ok((at, line));
            }
        }
    }

    /// The sum of all series of a metric.
    pub fn metric(&mut self, name: &str) -> Result<f64> {
        Ok(self.series(name)?.values().sum())
    }

    /// A metric's values by their labels.
    pub fn series(&mut self, name: &str) -> Result<BTreeMap<String, f64>> {
        while self.address.is_none() {
            self.line(Duration::from_secs(10))?;
        }
        let url = format!("http://{}/metrics", self.address.as_deref().unwrap_or_default());
        let output = Command::new("curl").args(["-sf", &url]).output()?;
        ensure!(output.status.success(), "no answer from {url}");
        let text = String::from_utf8(output.stdout)?;
        let lines = text.lines().filter_map(|line| line.strip_prefix(name)?.rsplit_once(' '));
        let lines = lines.filter(|(labels, _)| labels.is_empty() || labels.starts_with('{'));
        Ok(lines.filter_map(|(labels, value)| Some((labels.to_owned(), value.parse().ok()?))).collect())
    }

    pub fn kill(mut self) -> Result<()> {
        self.child.kill()?;
        self.child.wait()?;
        Ok(())
    }

    /// SIGTERM, and waits.
    pub fn stop(mut self) -> Result<()> {
        // SAFETY: the child is ours and was not waited for.
        unsafe { libc::kill(self.child.id() as i32, libc::SIGTERM) };
        let status = self.child.wait()?;
        ensure!(status.success(), "the daemon ended with {status}");
        Ok(())
    }
}

impl Drop for Daemon {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn message(line: &Value) -> &str {
    line["message"].as_str().unwrap_or_default()
}

/// Records at a steady rate, spread over the partitions, until dropped.
pub struct Feeder {
    stop: Arc<AtomicBool>,
    thread: Option<JoinHandle<()>>,
}

impl Feeder {
    pub fn start(broker: &Broker, topic: &str, partitions: i32, records_per_second: u32) -> Result<Feeder> {
        let messages = Messages::of("event-random")?;
        let producer = broker.producer("none")?;
        let topic = topic.to_owned();
        let stop = Arc::new(AtomicBool::new(false));
        let stopped = stop.clone();
        let thread = std::thread::spawn(move || {
            let mut rng = StdRng::seed_from_u64(2);
            let started = Instant::now();
            let mut sent = 0_u32;
            while !stopped.load(Ordering::Relaxed) {
                let due = (started.elapsed().as_secs_f64() * f64::from(records_per_second)) as u32;
                while sent < due {
                    let record = messages.nth(0, &mut rng);
                    let partition = sent as i32 % partitions;
                    let outgoing = BaseRecord::<(), _>::to(&topic).partition(partition).payload(&record);
                    if producer.send(outgoing).is_err() {
                        break;
                    }
                    sent += 1;
                }
                producer.poll(Duration::from_millis(5));
            }
            let _ = producer.flush(Duration::from_secs(20));
        });
        Ok(Feeder { stop, thread: Some(thread) })
    }
}

impl Drop for Feeder {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

/// The value below which `share` of the sorted values lie.
pub fn percentile(sorted: &[f64], share: f64) -> f64 {
    let at = ((sorted.len() as f64 * share).ceil() as usize).clamp(1, sorted.len().max(1));
    sorted.get(at - 1).copied().unwrap_or(f64::NAN)
}

pub fn sorted(mut values: Vec<f64>) -> Vec<f64> {
    values.sort_by(f64::total_cmp);
    values
}
