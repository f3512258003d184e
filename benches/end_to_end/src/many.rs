//! 1, 2 and 4 daemons with one configuration on one topic and one table.

use std::time::Duration;

use anyhow::{Result, ensure};

use crate::running::{Daemon, Feeder};
use crate::{Broker, Log, Options, Project};

const PARTITIONS: i32 = 8;
const SECONDS: u64 = 20;

pub fn measure(options: &Options, broker: &Broker) -> Result<()> {
    println!("daemons  interval  commits  conflicts  a commit  thrown away  commit mean ms");
    for interval in ["1s", "250ms"] {
        for count in [1, 2, 4] {
            let log = Log::empty(broker.topic(&format!("many{count}x{interval}"), PARTITIONS)?);
            let project = Project::new(broker, &log, "256MiB", interval)?;
            let feeder = Feeder::start(broker, &log.topic, PARTITIONS, 4000)?;
            let mut daemons = (0..count).map(|_| Daemon::start(&project, options)).collect::<Result<Vec<_>>>()?;
            for daemon in &mut daemons {
                daemon.commit(Duration::from_secs(30))?;
            }
            // What the rebalances of the start cost is not counted.
            std::thread::sleep(Duration::from_secs(3));
            let names = [
                "calve_commits_total",
                "calve_commit_conflicts_total",
                "calve_discarded_batches_total",
                "calve_commit_seconds_sum",
            ];
            let mut sums = |sign: f64, sums: &mut [f64; 4]| -> Result<()> {
                for daemon in &mut daemons {
                    for (sum, name) in sums.iter_mut().zip(names) {
                        *sum += sign * daemon.metric(name)?;
                    }
                }
                Ok(())
            };
            let mut counted = [0.0; 4];
            sums(-1.0, &mut counted)?;
            std::thread::sleep(Duration::from_secs(SECONDS));
            sums(1.0, &mut counted)?;
            drop(feeder);
            for daemon in daemons {
                daemon.stop()?;
            }
            let verified = project.command(options).args(["-q", "verify", "bronze.bench"]).output()?;
            ensure!(verified.status.success(), "calve verify: {}", String::from_utf8_lossy(&verified.stdout));
            let [commits, conflicts, thrown_away, seconds] = counted;
            println!(
                "{count:7}  {interval:>8}  {commits:7}  {conflicts:9}  {:8.3}  {thrown_away:11}  {:14.1}",
                conflicts / commits,
                seconds / commits * 1e3
            );
        }
    }
    Ok(())
}
