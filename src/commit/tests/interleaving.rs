//! Random interleavings of our commits by several committers (zombies included), crashes, lost and late answers,
//! foreign appends, foreign expiry and rollbacks: at the end every offset is in the table exactly once.
//!
//! `CALVE_SEED=N` runs one seed, `CALVE_SEEDS=N` so many.

use std::collections::BTreeMap;
use std::sync::Arc;

use iceberg::spec::DataFile;
use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};

use super::fence::{FAST, batch, open};
use crate::commit::ancestry::line;
use crate::commit::change::{Append, Outcome};
use crate::commit::committer::Committer;
use crate::commit::decide::{Decision, decide};
use crate::commit::fake::{FakeCatalog, Fault, ident};

const PARTITIONS: [i32; 3] = [0, 1, 2];
const END: i64 = 60;

/// A daemon: its committer, where it reads, and the batch that it has not got rid of.
struct Daemon {
    committer: Option<Committer>,
    at: BTreeMap<i32, i64>,
    pending: Option<Append>,
}

struct World {
    catalog: Arc<FakeCatalog>,
    random: StdRng,
    daemons: Vec<Daemon>,
    decisions: usize,
}

/// The offsets that the table's files say they hold.
fn held(files: &[DataFile]) -> BTreeMap<i32, Vec<(i64, i64)>> {
    let mut held: BTreeMap<i32, Vec<(i64, i64)>> = BTreeMap::new();
    for file in files {
        let name = file.file_path().rsplit('/').next().unwrap();
        let Some((ranges, _)) = name.split_once('@') else { continue };
        for range in ranges.split(',') {
            let numbers: Vec<i64> = range.split(':').map(|number| number.parse().unwrap()).collect();
            held.entry(numbers[0] as i32).or_default().push((numbers[1], numbers[2]));
        }
    }
    held.values_mut().for_each(|ranges| ranges.sort_unstable());
    held
}

impl World {
    async fn new(seed: u64) -> World {
        let mut random = StdRng::seed_from_u64(seed);
        let keep = ["2", "4", "50"][random.random_range(0..3)];
        let log = ["1", "3", "100"][random.random_range(0..3)];
        let catalog = FakeCatalog::with_table(&[
            ("history.expire.min-snapshots-to-keep", keep),
            ("history.expire.max-snapshot-age-ms", "1"),
            ("write.metadata.delete-after-commit.enabled", "true"),
            ("write.metadata.previous-versions-max", log),
        ])
        .await;
        let daemons = (0..3).map(|_| Daemon { committer: None, at: BTreeMap::new(), pending: None }).collect();
        World { catalog, random, daemons, decisions: 0 }
    }

    /// A person looks into the table and says where it goes on; again, if somebody was faster.
    async fn decide(&mut self) {
        self.decisions += 1;
        loop {
            let held = held(&self.catalog.live_files().await);
            let offsets = held.into_iter().map(|(partition, ranges)| (partition, ranges.last().unwrap().1)).collect();
            let decision = Decision::Reset { topic: "orders".to_owned(), offsets, recreated: false };
            match decide(self.catalog.clone(), &ident(), &decision).await {
                Ok(_) => return,
                Err(error) => assert!(error.is_retry(), "{error}"),
            }
        }
    }

    async fn start(&mut self, index: usize) {
        loop {
            match Committer::open(self.catalog.clone(), &ident()).await {
                Ok(mut committer) => {
                    committer.set_limits(FAST);
                    self.daemons[index].committer = Some(committer);
                    break;
                }
                Err(error) => {
                    assert!(!error.is_retry(), "{error}");
                    self.decide().await;
                }
            }
        }
        self.seek(index).await;
    }

    async fn seek(&mut self, index: usize) {
        loop {
            let committer = self.daemons[index].committer.as_mut().unwrap();
            match committer.starts("orders", &PARTITIONS).await {
                Ok(starts) => {
                    self.daemons[index].at = starts.into_iter().map(|(p, at)| (p, at.unwrap_or(0))).collect();
                    self.daemons[index].pending = None;
                    return;
                }
                Err(error) => {
                    assert!(!error.is_retry(), "{error}");
                    self.decide().await;
                }
            }
        }
    }

    /// Reads on and commits, or tries again what is pending.
    async fn work(&mut self, index: usize) {
        if self.daemons[index].committer.is_none() {
            self.start(index).await;
        }
        if self.daemons[index].pending.is_none() {
            let mut ranges = Vec::new();
            for partition in PARTITIONS {
                let at = self.daemons[index].at[&partition];
                if at < END && self.random.random_bool(0.7) {
                    ranges.push((partition, at, (at + self.random.random_range(1..6)).min(END)));
                }
            }
            if ranges.is_empty() {
                return;
            }
            let append = batch(&ranges);
            for file in &append.files {
                self.catalog.io().new_output(file.file_path()).unwrap().write("rows".into()).await.unwrap();
            }
            self.daemons[index].pending = Some(append);
        }
        let daemon = &mut self.daemons[index];
        let append = daemon.pending.take().unwrap();
        let committer = daemon.committer.as_mut().unwrap();
        match committer.commit(&append).await {
            Ok(Outcome::Committed { .. }) => {
                for (partition, range) in &append.ranges {
                    daemon.at.insert(*partition, range.to);
                }
            }
            Ok(Outcome::Moved { .. }) => {
                committer.discard(append.commit_id, &append.files).await;
                self.seek(index).await;
            }
            Err(error) if error.is_retry() => daemon.pending = Some(append),
            Err(_) => {
                // The topic halts; a person decides, and the daemon is started again.
                self.daemons[index].committer = None;
                self.decide().await;
            }
        }
    }

    async fn step(&mut self) {
        let index = self.random.random_range(0..self.daemons.len());
        match self.random.random_range(0..100) {
            0..55 => {
                let faults = [Fault::LostBefore, Fault::LostAfter, Fault::Late, Fault::Unavailable, Fault::Overtaken];
                while self.random.random_bool(0.35) {
                    self.catalog.fail_next([faults[self.random.random_range(0..faults.len())]]);
                }
                self.work(index).await;
            }
            55..65 => self.catalog.deliver().await,
            65..73 => self.daemons[index].committer = None,
            73..81 => drop(self.catalog.foreign_append(2).await),
            81..90 => {
                let metadata = self.catalog.metadata();
                let ancestors = line(&metadata, metadata.current_snapshot_id());
                if let Some(to) = ancestors.get(self.random.random_range(0..4)) {
                    self.catalog.foreign_rollback(to.snapshot_id()).await;
                }
            }
            90..96 => {
                let metadata = self.catalog.metadata();
                let mut ids: Vec<i64> = metadata.snapshots().map(|snapshot| snapshot.snapshot_id()).collect();
                ids.retain(|id| metadata.current_snapshot_id() != Some(*id) && self.random.random_bool(0.6));
                self.catalog.foreign_expire(ids).await;
            }
            _ => {
                if let Some(committer) = self.daemons[index].committer.as_mut()
                    && let Err(error) = committer.write_ledger().await
                {
                    assert!(!error.is_retry() || error.message.contains("came to no end"), "{error}");
                }
            }
        }
    }

    async fn finish(&mut self) {
        self.catalog.forget_faults();
        self.catalog.deliver().await;
        for index in 0..self.daemons.len() {
            self.daemons[index].committer = None;
            self.daemons[index].pending = None;
        }
        self.start(0).await;
        while self.daemons[0].at.values().any(|at| *at < END) {
            self.work(0).await;
        }
    }

    async fn check(&self) {
        let files = self.catalog.live_files().await;
        for (partition, ranges) in held(&files) {
            let mut next = 0;
            for (from, to) in ranges {
                assert_eq!(from, next, "partition {partition}: lost or doubled");
                next = to;
            }
            assert_eq!(next, END, "partition {partition}");
        }
        for file in files.iter().filter(|file| file.file_path().contains('@')) {
            assert!(self.catalog.io().exists(file.file_path()).await.unwrap(), "{} was deleted", file.file_path());
        }
        let committer = open(&self.catalog).await;
        assert_eq!(committer.ledger().offsets("orders"), PARTITIONS.into_iter().map(|p| (p, END)).collect());
        if self.decisions == 0 {
            assert_eq!(committer.ledger().topic("orders").unwrap().rows, 3 * END as u64);
        }
    }
}

#[tokio::test]
async fn every_offset_exactly_once() {
    let number = |key: &str| std::env::var(key).ok().and_then(|value| value.parse::<u64>().ok());
    let seeds: Vec<u64> = match number("CALVE_SEED") {
        Some(seed) => vec![seed],
        None => (0..number("CALVE_SEEDS").unwrap_or(12)).map(|_| rand::random()).collect(),
    };
    for seed in seeds {
        println!("CALVE_SEED={seed}");
        let mut world = World::new(seed).await;
        for _ in 0..120 {
            world.step().await;
        }
        world.finish().await;
        world.check().await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn racing_committers_share_the_work() {
    let catalog = FakeCatalog::with_table(&[]).await;
    let mut tasks = Vec::new();
    for _ in 0..6 {
        let catalog = catalog.clone();
        tasks.push(tokio::spawn(async move {
            let mut committer = open(&catalog).await;
            let mut wins = 0;
            loop {
                let starts = committer.starts("orders", &[0]).await.unwrap();
                let at = starts[&0].unwrap_or(0);
                if at >= 40 {
                    return wins;
                }
                if let Ok(Outcome::Committed { .. }) = committer.commit(&batch(&[(0, at, at + 1)])).await {
                    wins += 1;
                }
            }
        }));
    }
    let mut wins = 0;
    for task in tasks {
        wins += task.await.unwrap();
    }
    assert_eq!(wins, 40);
    let held = held(&catalog.live_files().await);
    assert_eq!(held[&0], (0..40).map(|at| (at, at + 1)).collect::<Vec<_>>());
}
