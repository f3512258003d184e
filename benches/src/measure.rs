//! CPU time, and what many rounds of it come to.

use std::fmt;

/// CPU seconds of this thread, and there is no other: what else runs on the machine does not count.
pub fn cpu() -> f64 {
    let time = rustix::time::clock_gettime(rustix::time::ClockId::ThreadCPUTime);
    time.tv_sec as f64 + time.tv_nsec as f64 / 1e9
}

/// What one of the contestants did, round by round, in MB/s.
#[derive(Clone, Debug, Default)]
pub struct Speeds(Vec<f64>);

impl Speeds {
    /// Counts a round in which so many bytes took until now.
    pub fn add(&mut self, bytes: usize, since: f64) {
        self.0.push(bytes as f64 / 1e6 / (cpu() - since));
    }

    fn sorted(&self) -> Vec<f64> {
        let mut sorted = self.0.clone();
        sorted.sort_by(f64::total_cmp);
        sorted
    }

    pub fn median(&self) -> f64 {
        self.sorted().get(self.0.len() / 2).copied().unwrap_or(f64::NAN)
    }
}

/// The median, and the slowest and fastest round.
impl fmt::Display for Speeds {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let sorted = self.sorted();
        match (sorted.first(), sorted.last()) {
            (Some(low), Some(high)) => f.pad(&format!("{:.0} ({low:.0}–{high:.0})", self.median())),
            _ => f.pad("–"),
        }
    }
}
