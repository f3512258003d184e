//! The schemas of `tests/corpus/proto`, and random messages of them.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use buffa_descriptor::DescriptorPool;
use buffa_descriptor::reflect::DynamicMessage;
use calve::batch::{OffsetRange, Permit, RawBatch, RawRecord, Span, TimestampType};
use calve::config::SchemaSource;
use calve::schema::mapping::{Mapping, Options};
use calve::schema::model::{MessageId, Pool};
use calve::schema::{load, model};

use super::wire;

#[path = "../../corpus/generate.rs"]
pub mod generate;

/// The topic messages of the corpus.
pub const MESSAGES: [&str; 21] = [
    "corpus.event.Event",
    "corpus.flat.Flat",
    "corpus.deep.Deep",
    "corpus.wide.Wide",
    "corpus.repeated.Repeated",
    "corpus.maps.Maps",
    "corpus.bytes.Blob",
    "corpus.tiny.Tiny",
    "corpus.large.Document",
    "corpus.legacy.Legacy",
    "corpus.shuffled.Shuffled",
    "corpus.known.Known",
    "corpus.oneofs.Oneofs",
    "corpus.enums.Enums",
    "corpus.numbers.Numbers",
    "corpus.groups.Groups",
    "corpus.extended.Extended",
    "corpus.sets.Sets",
    "corpus.recursive.Node",
    "corpus.circular.Circular",
    "corpus.structs.Structs",
];

pub fn folder() -> PathBuf {
    root().join("proto")
}

/// `tests/corpus`; the fuzz targets' package, which shares this, is a folder below it all.
pub fn root() -> PathBuf {
    let package = Path::new(env!("CARGO_MANIFEST_DIR"));
    let mut roots = package.ancestors().map(|folder| folder.join("tests/corpus"));
    roots.find(|folder| folder.is_dir()).expect("the repository holds the corpus")
}

/// The schema in an edition, which only protoc compiles.
pub fn editions() -> Corpus {
    Corpus::of_set(&root().join("editions/features.binpb"))
}

pub struct Corpus {
    pub pool: Arc<Pool>,
    /// The same types for buffa's reflection, which knows no MessageSets: see [`wire::without_items`].
    pub descriptors: Arc<DescriptorPool>,
}

impl Corpus {
    /// Some items of MessageSets have numbers that no field can have, which no `.proto` file can say.
    pub fn load() -> Self {
        let corpus = Corpus::of_files();
        let mut pool = Arc::unwrap_or_clone(corpus.pool);
        for set in pool.messages.iter_mut().filter(|message| message.message_set) {
            for field in set.fields.iter_mut().filter(|field| (10_000..20_000).contains(&field.number)) {
                field.number += wire::BEYOND_TAGS;
            }
        }
        Corpus { pool: Arc::new(pool), ..corpus }
    }

    /// As the files have it.
    pub fn of_files() -> Self {
        let pool = load(&SchemaSource::Protos(folder())).expect("the corpus is valid");
        let mut compiler = protox::Compiler::new([folder()]).expect("the folder is there");
        compiler.include_imports(true);
        for file in std::fs::read_dir(folder()).expect("the folder is there") {
            let path = file.expect("the folder can be read").path();
            if path.extension().is_some_and(|extension| extension == "proto") {
                compiler.open_file(&path).expect("the corpus is valid");
            }
        }
        let set = compiler.encode_file_descriptor_set();
        Corpus { pool, descriptors: Arc::new(DescriptorPool::decode(&set).expect("the corpus is valid")) }
    }

    /// The types of a descriptor set's file.
    pub fn of_set(path: &Path) -> Self {
        let set = std::fs::read(path).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
        let pool = load(&SchemaSource::DescriptorSet(path.to_owned())).expect("the set is valid");
        Corpus { pool, descriptors: Arc::new(DescriptorPool::decode(&set).expect("the set is valid")) }
    }

    /// A message as the oracle reads it.
    pub fn decode(&self, name: &str, bytes: &[u8]) -> DynamicMessage {
        let index = self.descriptors.message_index(name).expect("both pools hold the same messages");
        let message = DynamicMessage::decode(Arc::clone(&self.descriptors), index, bytes);
        message.unwrap_or_else(|error| panic!("{name} {bytes:02x?}: {error}"))
    }

    pub fn id(&self, name: &str) -> MessageId {
        self.pool.find(name).unwrap_or_else(|| panic!("the corpus has no {name}"))
    }

    pub fn mapping(&self, name: &str) -> Mapping {
        match Mapping::create(self.pool.clone(), self.id(name), &Options::default()) {
            Ok(mapping) => mapping,
            Err(faults) => {
                panic!("{name}: {}", faults.iter().map(ToString::to_string).collect::<Vec<_>>().join("; "))
            }
        }
    }
}

/// Values as the records of a batch, from offset 0.
pub fn batch<'a>(values: impl IntoIterator<Item = Option<&'a [u8]>>) -> RawBatch {
    let mut batch = RawBatch {
        topic: "corpus".into(),
        partition: 3,
        range: OffsetRange { from: 0, to: 0 },
        records: Vec::new(),
        headers: Vec::new(),
        arena: Vec::new(),
        times: None,
        permit: Permit::default(),
    };
    for value in values {
        let value = value.map(|value| {
            let start = batch.arena.len() as u32;
            batch.arena.extend_from_slice(value);
            Span { start, end: batch.arena.len() as u32 }
        });
        batch.records.push(RawRecord {
            offset: batch.range.to,
            timestamp_ms: 1_700_000_000_000 + batch.range.to,
            timestamp_type: TimestampType::CreateTime,
            key: None,
            value,
            headers: Span { start: 0, end: 0 },
        });
        batch.range.to += 1;
    }
    batch.arena.extend([0xff; RawBatch::PADDING]);
    batch
}
