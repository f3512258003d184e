//! Descriptor sets and `.proto` files that nobody meant: an error or a pool, never a panic, never a long wait.

use std::fs;
use std::sync::{Arc, OnceLock};

use proptest::prelude::*;

use super::super::mapping::Mapping;
use super::super::model::MessageId;
use super::super::{protos, resolve};
use super::OPTIONS;

const SOURCE: &str = r#"
syntax = "proto2";
package h;
import "calve/v1/options.proto";

// The record.
message M {
  required int64 id = 1;
  optional string name = 2 [default = "none"];
  repeated sint32 packed = 3 [packed = true];
  map<string, Inner> inner = 4;
  optional group Old = 5 { optional int32 x = 1; }
  oneof pick { Colour colour = 6; bytes data = 7; }
  message Inner { optional M back = 1; repeated Colour colours = 2; extensions 10 to 20; }
  enum Colour { option allow_alias = true; RED = 1; ROT = 1; BLUE = -4; }
  reserved 40 to 50;
}
extend M.Inner { optional M more = 11; repeated M.Colour paint = 12; }
message N { optional M.Inner inner = 1; }
"#;

/// The set without its imports' files, so that mutations hit what matters.
fn seed() -> &'static [u8] {
    static SEED: OnceLock<Vec<u8>> = OnceLock::new();
    SEED.get_or_init(|| {
        let folder = tempfile::tempdir().unwrap();
        let source = SOURCE.replace("import \"calve/v1/options.proto\";", "");
        fs::write(folder.path().join("h.proto"), source).unwrap();
        let bytes = protos::compile(folder.path()).unwrap();
        assert!(bytes.len() < 5000, "{}", bytes.len());
        bytes
    })
}

/// Everything that a descriptor set goes through before a topic runs.
fn digest(bytes: &[u8]) {
    let Ok(pool) = resolve::pool(bytes) else { return };
    let pool = Arc::new(pool);
    for id in 0..pool.messages.len() as u32 {
        // A refusal is as good as a table here.
        let _ = Mapping::create(pool.clone(), MessageId(id), &OPTIONS);
    }
}

#[derive(Clone, Debug)]
enum Mutation {
    Set { at: prop::sample::Index, byte: u8 },
    Insert { at: prop::sample::Index, bytes: Vec<u8> },
    Remove { at: prop::sample::Index, count: usize },
    Copy { from: prop::sample::Index, to: prop::sample::Index, count: usize },
    Truncate { at: prop::sample::Index },
}

fn mutation() -> impl Strategy<Value = Mutation> {
    let index = any::<prop::sample::Index>;
    prop_oneof![
        8 => (index(), any::<u8>()).prop_map(|(at, byte)| Mutation::Set { at, byte }),
        1 => (index(), prop::collection::vec(any::<u8>(), 1..5)).prop_map(|(at, bytes)| Mutation::Insert { at, bytes }),
        1 => (index(), 1usize..9).prop_map(|(at, count)| Mutation::Remove { at, count }),
        2 => (index(), index(), 1usize..40).prop_map(|(from, to, count)| Mutation::Copy { from, to, count }),
        1 => index().prop_map(|at| Mutation::Truncate { at }),
    ]
}

fn apply(bytes: &mut Vec<u8>, mutation: &Mutation) {
    if bytes.is_empty() {
        return;
    }
    match mutation {
        Mutation::Set { at, byte } => {
            let at = at.index(bytes.len());
            bytes[at] = *byte;
        }
        Mutation::Insert { at, bytes: more } => {
            let at = at.index(bytes.len());
            bytes.splice(at..at, more.iter().copied());
        }
        Mutation::Remove { at, count } => {
            let at = at.index(bytes.len());
            let end = (at + count).min(bytes.len());
            bytes.drain(at..end);
        }
        Mutation::Copy { from, to, count } => {
            let (from, to) = (from.index(bytes.len()), to.index(bytes.len()));
            let count = (*count).min(bytes.len() - from).min(bytes.len() - to);
            bytes.copy_within(from..from + count, to);
        }
        Mutation::Truncate { at } => {
            let at = at.index(bytes.len());
            bytes.truncate(at);
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 3000, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn mutated_descriptor_sets(mutations in prop::collection::vec(mutation(), 1..6)) {
        let mut bytes = seed().to_vec();
        mutations.iter().for_each(|mutation| apply(&mut bytes, mutation));
        digest(&bytes);
    }

    #[test]
    fn random_bytes(bytes in prop::collection::vec(any::<u8>(), 0..200)) {
        digest(&bytes);
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 300, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn mutated_sources(mutations in prop::collection::vec(mutation(), 1..4)) {
        let mut bytes = SOURCE.as_bytes().to_vec();
        mutations.iter().for_each(|mutation| apply(&mut bytes, mutation));
        let folder = tempfile::tempdir().unwrap();
        fs::write(folder.path().join("h.proto"), &bytes).unwrap();
        if let Ok(bytes) = protos::compile(folder.path()) {
            digest(&bytes);
        }
    }
}

#[test]
fn names_that_begin_with_a_dot() {
    // FileDescriptorSet { file { name: "a" package: ".p" message_type { name: "M" enum_type { name: "E" value { name: "V" number: 0 } } } } }
    let value = b"\x0a\x01V\x10\x00";
    let enumeration = [b"\x0a\x01E\x12".as_slice(), &[value.len() as u8], value].concat();
    let message = [b"\x0a\x01M\x22".as_slice(), &[enumeration.len() as u8], &enumeration].concat();
    let file = [b"\x0a\x01a\x12\x02.p\x22".as_slice(), &[message.len() as u8], &message].concat();
    let set = [b"\x0a".as_slice(), &[file.len() as u8], &file].concat();
    assert_eq!(resolve::pool(&set).unwrap_err().to_string(), "a: \"\" is not a name for a package");
}

#[test]
fn nesting_without_end() {
    // A message in a message in a message, 20,000 deep.
    let mut message: Vec<u8> = b"\x0a\x01M".to_vec();
    for _ in 0..20_000 {
        message = [b"\x0a\x01M\x1a".to_vec(), varint(message.len()), message].concat();
    }
    let file = [b"\x0a\x01a\x22".to_vec(), varint(message.len()), message].concat();
    let set = [b"\x0a".to_vec(), varint(file.len()), file].concat();
    assert!(resolve::pool(&set).is_err());
}

fn varint(mut value: usize) -> Vec<u8> {
    let mut bytes = Vec::new();
    while value >= 0x80 {
        bytes.push(value as u8 | 0x80);
        value >>= 7;
    }
    bytes.push(value as u8);
    bytes
}
