//! kill -9 → the next commit, with a supervisor that starts the daemon again at once.

use std::time::{Duration, Instant};

use anyhow::{Result, ensure};
use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};

use crate::running::{Daemon, Feeder, percentile, sorted};
use crate::{Broker, Log, Options, Project};

const KILLS: usize = 25;

pub fn measure(options: &Options, broker: &Broker) -> Result<()> {
    let log = Log::empty(broker.topic("recovery", options.partitions)?);
    let project = Project::new(broker, &log, "512MiB", "500ms")?;
    let feeder = Feeder::start(broker, &log.topic, options.partitions, 2000)?;
    let mut random = StdRng::seed_from_u64(3);
    let mut daemon = Daemon::start(&project, options)?;
    daemon.commit(Duration::from_secs(30))?;
    let mut times = Vec::new();
    for _ in 0..KILLS {
        std::thread::sleep(Duration::from_millis(random.random_range(300..1500)));
        let killed = Instant::now();
        daemon.kill()?;
        daemon = Daemon::start(&project, options)?;
        let (at, _) = daemon.commit(Duration::from_secs(60))?;
        times.push((at - killed).as_secs_f64());
    }
    drop(feeder);
    daemon.stop()?;
    let verified = project.command(options).args(["-q", "verify", "--deep", "bronze.bench"]).output()?;
    ensure!(verified.status.success(), "calve verify: {}", String::from_utf8_lossy(&verified.stdout));
    let times = sorted(times);
    println!(
        "kill -9 → next commit, {KILLS} kills, commit_interval 0.5 s: p50 {:.2} s, p99 {:.2} s, slowest {:.2} s",
        percentile(&times, 0.5),
        percentile(&times, 0.99),
        times[times.len() - 1]
    );
    Ok(())
}
