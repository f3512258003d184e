//! The shredder against the oracle at volume: values, verdicts and `_raw` of a million records, other ones every time.
//!
//! A failure names its seed; `CALVE_SEED=SEED cargo test --test it volume` runs that round alone.

use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::thread;

use calve::schema::mapping::Mapping;
use calve::shred::Shredder;
use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};

use crate::shred::compare;
use crate::support::corpus::{Corpus, MESSAGES, generate};

const RECORDS: usize = 1_000_000;

/// Small records, so that many fit the time: a few fields each, in whatever form is legal.
const SMALL: generate::Style = generate::Style { elements_max: 2, text_max: 12, ..generate::Style::WILD };

struct Topic {
    mapping: Mapping,
    /// Of a field, so that a record has a handful.
    presence: f64,
    /// Records of a round: fewer where a row is wide, since every column of it is compared.
    records: usize,
}

impl Topic {
    fn new(corpus: &Corpus, name: &str) -> Self {
        let mapping = corpus.mapping(name);
        let fields = corpus.pool.message(mapping.message).fields.len();
        let columns = mapping.iceberg.highest_field_id() as usize;
        Topic { presence: (6.0 / fields as f64).clamp(0.02, 0.5), records: (8_000 / columns).clamp(8, 256), mapping }
    }
}

/// One batch of one topic, all of it given by the seed; how many records it had.
fn round(corpus: &Corpus, topics: &[Topic], seed: u64) -> usize {
    let mut rng = StdRng::seed_from_u64(seed);
    let topic = &topics[seed as usize % topics.len()];
    let presence = topic.presence;
    let style = match rng.random_range(0..4) {
        // Without unknown fields, which send every second record to `_raw`.
        0 => generate::Style { presence, unknown: false, ..SMALL },
        1 | 2 => generate::Style { presence, ..SMALL },
        _ => generate::Style { presence, refused: true, ..SMALL },
    };
    let record = || generate::message(&corpus.pool, topic.mapping.message, style, &mut rng);
    let records: Vec<Vec<u8>> = std::iter::repeat_with(record).take(topic.records).collect();
    let mut shredder = Shredder::new(&topic.mapping, Default::default()).expect("the corpus can be shredded");
    compare(corpus, &topic.mapping, &mut shredder, seed, &records, false, |_, _| false);
    records.len()
}

#[test]
fn a_million_records_in_any_legal_form() {
    let corpus = Corpus::load();
    let topics: Vec<Topic> = MESSAGES.into_iter().map(|name| Topic::new(&corpus, name)).collect();
    if let Ok(seed) = std::env::var("CALVE_SEED") {
        round(&corpus, &topics, seed.parse().expect("CALVE_SEED is a number"));
        return;
    }
    let first = rand::rng().random::<u32>().into();
    println!("seeds from {first}");
    let (next, done) = (AtomicU64::new(first), AtomicUsize::new(0));
    let work = || {
        while done.load(Ordering::Relaxed) < RECORDS {
            let records = round(&corpus, &topics, next.fetch_add(1, Ordering::Relaxed));
            done.fetch_add(records, Ordering::Relaxed);
        }
    };
    thread::scope(|scope| {
        let workers = thread::available_parallelism().map_or(2, usize::from);
        let workers: Vec<_> = (0..workers).map(|_| scope.spawn(work)).collect();
        for worker in workers {
            if let Err(panic) = worker.join() {
                // The others stop after their round.
                done.store(RECORDS, Ordering::Relaxed);
                std::panic::resume_unwind(panic);
            }
        }
    });
    println!("{} records, {} rounds", done.load(Ordering::Relaxed), next.load(Ordering::Relaxed) - first);
}
