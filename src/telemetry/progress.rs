//! How far long work is: one line each on a terminal, a log line every few seconds elsewhere.
//!
//! Both go to stderr, so that results on stdout stay what they are; on a terminal the log is written above the lines.

use std::io::{IsTerminal, Write};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use indicatif::{HumanCount, MultiProgress, ProgressBar, ProgressStyle};
use tokio::task::JoinHandle;
use tracing_subscriber::fmt::MakeWriter;

use super::logging::Format;

const REDRAW_INTERVAL: Duration = Duration::from_millis(200);
const LOG_INTERVAL: Duration = Duration::from_secs(5);
/// Rates are averaged over about so long.
const RATE_WINDOW: Duration = Duration::from_secs(5);

/// What work has done so far, and what it knows to be left.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Sample {
    pub records: u64,
    pub bytes: u64,
    /// Records; `None` where it is not known.
    pub lag: Option<u64>,
}

/// Counts of work that knows its size when it begins.
#[derive(Debug, Default)]
pub struct Tally {
    records: AtomicU64,
    bytes: AtomicU64,
    lag: AtomicU64,
}

impl Tally {
    /// So many records are to be done.
    pub fn expect(&self, records: u64) {
        self.lag.fetch_add(records, Ordering::Relaxed);
    }

    /// `records` were done, which took care of `covered` of those expected.
    pub fn count(&self, records: u64, bytes: u64, covered: u64) {
        self.records.fetch_add(records, Ordering::Relaxed);
        self.bytes.fetch_add(bytes, Ordering::Relaxed);
        let left = |lag: u64| Some(lag.saturating_sub(covered));
        let _ = self.lag.fetch_update(Ordering::Relaxed, Ordering::Relaxed, left);
    }

    pub fn sample(&self) -> Sample {
        Sample {
            records: self.records.load(Ordering::Relaxed),
            bytes: self.bytes.load(Ordering::Relaxed),
            lag: Some(self.lag.load(Ordering::Relaxed)),
        }
    }
}

/// Where progress is shown. Clones share the screen.
#[derive(Clone, Debug, Default)]
pub struct Progress(Place);

#[derive(Clone, Debug, Default)]
enum Place {
    #[default]
    Nowhere,
    Log,
    Terminal(MultiProgress),
}

impl Progress {
    /// Lines on stderr where it is a terminal and the log is for people; else log lines; nothing when `quiet`.
    pub fn new(format: Format, quiet: bool) -> Progress {
        let dumb = std::env::var_os("TERM").is_none_or(|term| term.is_empty() || term == "dumb");
        Progress(match quiet {
            true => Place::Nowhere,
            false if format == Format::Text && !dumb && std::io::stderr().is_terminal() => {
                Place::Terminal(MultiProgress::new())
            }
            false => Place::Log,
        })
    }

    /// Shows `work`, asking `sample` how far it is, until the watch is dropped. Must be called inside a tokio runtime.
    pub fn watch(&self, work: impl Into<String>, sample: impl Fn() -> Sample + Send + 'static) -> Watch {
        let work = work.into();
        match &self.0 {
            Place::Nowhere => Watch(None),
            Place::Log => Watch(Some((tokio::spawn(log(work, sample)), None))),
            Place::Terminal(screen) => {
                let bar = screen.add(ProgressBar::new(1).with_style(style()).with_prefix(work));
                Watch(Some((tokio::spawn(draw(bar.clone(), sample)), Some(bar))))
            }
        }
    }
}

/// Progress that is shown; taken off the screen when dropped.
#[derive(Debug)]
pub struct Watch(Option<(JoinHandle<()>, Option<ProgressBar>)>);

impl Drop for Watch {
    fn drop(&mut self) {
        let Some((task, bar)) = &self.0 else { return };
        task.abort();
        if let Some(bar) = bar {
            bar.finish_and_clear();
        }
    }
}

fn style() -> ProgressStyle {
    let style = ProgressStyle::with_template("{prefix} {bar:24} {msg}");
    style.unwrap_or_else(|_| ProgressStyle::default_bar()).progress_chars("=> ")
}

async fn draw(bar: ProgressBar, sample: impl Fn() -> Sample) {
    let mut pace = Pace::new(Instant::now(), sample());
    let mut tick = tokio::time::interval(REDRAW_INTERVAL);
    loop {
        tick.tick().await;
        let now = sample();
        pace.see(Instant::now(), now);
        if let Some(lag) = now.lag {
            // A bar of no length would be drawn as done.
            bar.set_length((now.records + lag).max(1));
            bar.set_position(now.records);
        }
        bar.set_message(line(&pace));
    }
}

fn line(pace: &Pace) -> String {
    let mut line = format!("{} records, {:.1} MB/s", HumanCount(pace.last.records), pace.megabytes_per_second());
    if let Some(lag) = pace.last.lag {
        line += &format!(", lag {}", HumanCount(lag));
    }
    if let Some(eta) = pace.eta() {
        line += &format!(", ETA {}", indicatif::FormattedDuration(eta));
    }
    line
}

/// One line whenever something was done since the last, and one when nothing moves any more although something is left.
async fn log(work: String, sample: impl Fn() -> Sample) {
    let mut pace = Pace::new(Instant::now(), sample());
    let mut tick = tokio::time::interval_at(tokio::time::Instant::now() + LOG_INTERVAL, LOG_INTERVAL);
    let mut said_stalled = false;
    loop {
        tick.tick().await;
        let before = pace.last;
        pace.see(Instant::now(), sample());
        let moved = pace.last != before;
        let stalled = !moved && pace.last.lag.is_some_and(|lag| lag > 0);
        if moved || (stalled && !said_stalled) {
            tracing::info!(
                work,
                records = pace.last.records,
                mb_per_second = (pace.megabytes_per_second() * 10.0).round() / 10.0,
                lag = pace.last.lag,
                eta_seconds = pace.eta().map(|eta| eta.as_secs()),
                "progress"
            );
        }
        said_stalled = stalled;
    }
}

/// Rates out of samples, smoothed.
#[derive(Debug)]
struct Pace {
    at: Instant,
    last: Sample,
    records_per_second: f64,
    bytes_per_second: f64,
    /// How much of [`RATE_WINDOW`] the averages are made of, 0 to 1.
    filled: f64,
}

impl Pace {
    fn new(at: Instant, sample: Sample) -> Pace {
        Pace { at, last: sample, records_per_second: 0.0, bytes_per_second: 0.0, filled: 0.0 }
    }

    fn see(&mut self, at: Instant, sample: Sample) {
        let seconds = at.saturating_duration_since(self.at).as_secs_f64();
        if seconds <= 0.0 {
            return;
        }
        // An exponential average that starts as the plain one, so that it is right from the first sample on.
        let weight = (seconds / RATE_WINDOW.as_secs_f64()).min(1.0);
        self.filled = (self.filled + weight).min(1.0);
        let share = weight / self.filled;
        let blend = |average: &mut f64, done: u64| *average += (done as f64 / seconds - *average) * share;
        blend(&mut self.records_per_second, sample.records.saturating_sub(self.last.records));
        blend(&mut self.bytes_per_second, sample.bytes.saturating_sub(self.last.bytes));
        (self.at, self.last) = (at, sample);
    }

    fn megabytes_per_second(&self) -> f64 {
        self.bytes_per_second / 1e6
    }

    /// Until nothing is left, at the present rate; none where nothing is left or nothing moves.
    fn eta(&self) -> Option<Duration> {
        let lag = self.last.lag.filter(|lag| *lag > 0)?;
        Duration::try_from_secs_f64((lag as f64 / self.records_per_second).ceil()).ok()
    }
}

/// Stderr for the log, which steps aside for what is drawn there.
impl<'w> MakeWriter<'w> for Progress {
    type Writer = Stderr;

    fn make_writer(&'w self) -> Stderr {
        Stderr(self.clone())
    }
}

pub struct Stderr(Progress);

impl Write for Stderr {
    fn write(&mut self, text: &[u8]) -> std::io::Result<usize> {
        match &self.0.0 {
            Place::Terminal(screen) => screen.suspend(|| std::io::stderr().write(text)),
            Place::Nowhere | Place::Log => std::io::stderr().write(text),
        }
    }

    fn flush(&mut self) -> std::io::Result<()> {
        std::io::stderr().flush()
    }
}

/// A tally's sample, for [`Progress::watch`].
pub fn of(tally: &Arc<Tally>) -> impl Fn() -> Sample + Send + 'static {
    let tally = tally.clone();
    move || tally.sample()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rates_follow_the_last_seconds_and_tell_when_it_ends() {
        let start = Instant::now();
        let sample = |records, lag| Sample { records, bytes: records * 1000, lag: Some(lag) };
        let mut pace = Pace::new(start, sample(0, 1000));
        assert_eq!(pace.eta(), None, "nothing is known of the rate yet");
        pace.see(start + Duration::from_secs(1), sample(100, 900));
        assert_eq!(pace.records_per_second, 100.0);
        assert_eq!(pace.eta(), Some(Duration::from_secs(9)));
        assert_eq!(line(&pace), "100 records, 0.1 MB/s, lag 900, ETA 00:00:09");
        for second in 2..60 {
            pace.see(start + Duration::from_secs(second), sample(100 + (second - 1) * 50, 10));
        }
        assert!((pace.records_per_second - 50.0).abs() < 0.1, "{pace:?}");
        pace.see(start + Duration::from_secs(61), sample(100 + 60 * 50, 0));
        assert_eq!(pace.eta(), None);
        let idle = Sample { lag: None, ..pace.last };
        for second in 62..200 {
            pace.see(start + Duration::from_secs(second), idle);
        }
        assert_eq!(line(&pace), "3,100 records, 0.0 MB/s");
    }

    #[test]
    fn a_tally_counts_down_what_it_expects() {
        let tally = Tally::default();
        tally.expect(10);
        tally.count(3, 300, 4);
        assert_eq!(tally.sample(), Sample { records: 3, bytes: 300, lag: Some(6) });
        tally.count(1, 100, 99);
        assert_eq!(tally.sample().lag, Some(0));
    }
}
