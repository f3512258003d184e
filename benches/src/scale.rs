//! How decoding scales: each partition has a shredder of its own, as in the daemon; one thread a core against one alone.
//! By the clock, so only a quiet machine tells anything.

use std::sync::Barrier;
use std::time::Instant;

use crate::corpus::{self, SCHEMAS};
use crate::decode::{ROUND_BYTES, shred};
use crate::shred::{Options, Shredder};

/// Passes of every thread over its partition in one measurement.
const PASSES: usize = 20;
const ROUNDS: usize = 7;

pub fn run(only: &[&str]) {
    let pool = corpus::pool();
    let cores = std::thread::available_parallelism().map_or(1, usize::from);
    println!("MB/s by the clock  1 thread  {cores} threads  ×");
    for (name, message) in SCHEMAS.into_iter().filter(|(name, _)| only.contains(name)) {
        let records = corpus::records(&pool, name, message, ROUND_BYTES);
        let bytes: usize = records.iter().map(Vec::len).sum();
        let raw = corpus::batches(&records);
        let mapping = corpus::mapping(&pool, message);
        let measure = |threads: usize| {
            let ready = Barrier::new(threads + 1);
            let started = std::thread::scope(|scope| {
                for _ in 0..threads {
                    scope.spawn(|| {
                        let shredder = Shredder::new(&mapping, Options::default());
                        let mut shredder = shredder.expect("the mapping can be shredded");
                        let mut pass = || raw.iter().map(|batch| shred(&mut shredder, batch)).sum::<usize>();
                        assert_eq!(pass(), records.len(), "warming up");
                        ready.wait();
                        (0..PASSES).for_each(|_| assert_eq!(pass(), records.len()));
                    });
                }
                ready.wait();
                Instant::now()
            });
            (threads * PASSES * bytes) as f64 / 1e6 / started.elapsed().as_secs_f64()
        };
        let mut speeds = [Vec::new(), Vec::new()];
        for _ in 0..ROUNDS {
            speeds[0].push(measure(1));
            speeds[1].push(measure(cores));
        }
        let [one, all] = speeds.map(|mut speeds| {
            speeds.sort_by(f64::total_cmp);
            speeds[ROUNDS / 2]
        });
        println!("{name:17}  {one:8.0}  {all:9.0}  {:.2}", all / one);
    }
}
