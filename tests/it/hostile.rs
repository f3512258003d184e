//! What the fuzzer found, replayed with the fuzzer's own checks; and the deepest messages, on a small stack.

use std::path::Path;
use std::sync::Arc;
use std::thread;
use std::time::{Duration, Instant};

use base64::Engine;
use base64::engine::general_purpose::STANDARD as BASE64;
use calve::config::SchemaSource;
use calve::schema::mapping::{self, Mapping};
use calve::shred::{Framing, Options, Shredder, rebuild};

use crate::support::corpus::{Corpus, batch, root};
use crate::support::hostile::Hostile;

/// The inputs of a target: one a line, in base64.
fn inputs(target: &str) -> Vec<Vec<u8>> {
    let file = root().join("hostile").join(format!("{target}.txt"));
    let text = std::fs::read_to_string(&file).unwrap_or_else(|error| panic!("{}: {error}", file.display()));
    let inputs: Vec<Vec<u8>> = text.lines().map(|line| BASE64.decode(line).expect("a line is base64")).collect();
    assert!(!inputs.is_empty(), "{} is empty", file.display());
    inputs
}

/// Calls `check` with every input; a failure prints the input, which a fuzz target takes as a file.
fn replay(target: &str, mut check: impl FnMut(&[u8])) {
    for input in inputs(target) {
        let started = Instant::now();
        let told = Told { target, input: &input };
        check(&input);
        std::mem::forget(told);
        assert!(started.elapsed() < Duration::from_secs(20), "{target}: {} took too long", BASE64.encode(&input));
    }
}

/// Says which input it was when a check panics.
struct Told<'a> {
    target: &'a str,
    input: &'a [u8],
}

impl Drop for Told<'_> {
    fn drop(&mut self) {
        eprintln!("the input of {} is {}", self.target, BASE64.encode(self.input));
    }
}

#[test]
fn records_that_the_fuzzer_found() {
    let mut hostile = Hostile::new();
    replay("shred", |input| hostile.shred(input));
}

#[test]
fn rows_that_the_fuzzer_found() {
    let mut hostile = Hostile::new();
    replay("rebuild", |input| hostile.rebuild(input));
}

#[test]
fn schemas_that_the_fuzzer_found() {
    let folder = tempfile::tempdir().unwrap();
    replay("descriptors", |input| Hostile::descriptors(folder.path(), input));
}

/// What shredding and giving back may take of a thread's stack, whatever the record, in a build without optimisation: the
/// runtime's threads have twice as much.
const STACK_BYTES: usize = 4 << 20;

/// Levels beyond which no parser goes.
const LEVELS: usize = 105;

fn delimited(tag: &[u8], body: &[u8]) -> Vec<u8> {
    let mut bytes = tag.to_vec();
    let mut length = body.len();
    while length >= 0x80 {
        bytes.push(length as u8 | 0x80);
        length >>= 7;
    }
    bytes.push(length as u8);
    bytes.extend_from_slice(body);
    bytes
}

/// Shreds a message in a message in a message, within `outer`, and gives every row back; how deep the deepest accepted
/// one is.
fn deepest(mapping: &Mapping, outer: impl Fn(&[u8]) -> Vec<u8>, wrap: impl Fn(&[u8]) -> Vec<u8>) -> usize {
    let mut shredder = Shredder::new(mapping, Options::default()).unwrap();
    let mut inner = Vec::new();
    let mut accepted = 0;
    for level in 1..=LEVELS {
        inner = wrap(&inner);
        let record = outer(&inner);
        let rejects = shredder.append(&batch([Some(record.as_slice())]));
        let rows = shredder.take().unwrap();
        if rejects.is_empty() {
            assert!(rebuild(mapping, Framing::None, &rows[0], 0).unwrap().is_some());
            accepted = level;
        }
    }
    accepted
}

/// A schema in which a hundred messages are nested, all of them structs of the table.
fn chain(folder: &Path) -> Mapping {
    let messages: String = (0..100).map(|n| format!("message M{n} {{ M{} m = 1; int32 n = 2; }}\n", n + 1)).collect();
    let source = format!("syntax = \"proto3\"; package t;\n{messages}message M100 {{ int32 n = 2; }}");
    std::fs::write(folder.join("t.proto"), source).unwrap();
    let pool = calve::schema::load(&SchemaSource::Protos(folder.to_owned())).unwrap();
    let message = pool.find("t.M0").unwrap();
    Mapping::create(pool, message, &mapping::Options::default()).unwrap()
}

#[test]
fn the_deepest_messages_fit_a_small_stack() {
    let corpus = Corpus::load();
    let folder = tempfile::tempdir().unwrap();
    let chain = Arc::new(chain(folder.path()));
    let [node, structs, groups] =
        ["recursive.Node", "structs.Structs", "groups.Groups"].map(|name| corpus.mapping(&format!("corpus.{name}")));
    let run = move || {
        let plain = |body: &[u8]| body.to_vec();
        let field = |tag: u8| move |body: &[u8]| delimited(&[tag], body);
        // The second piece is empty, which is as good as any.
        let pieces = |tag: u8| move |body: &[u8]| [delimited(&[tag], body), vec![tag, 0]].concat();
        let keyed = |body: &[u8]| [b"\x0a\x01k", &*delimited(&[0x12], body)].concat();
        let entry = |body: &[u8]| delimited(&[0x22], &keyed(body));
        let entries = |body: &[u8]| [delimited(&[0x22], &keyed(&[])), delimited(&[0x22], &keyed(body))].concat();
        let url = delimited(&[0x0a], b"type.googleapis.com/google.protobuf.Any");
        // An Any is text where it is in a message that is.
        let within_text = |body: &[u8]| delimited(&[0x12], &delimited(&[0x52], &delimited(&[0x0a], body)));
        let any = |body: &[u8]| [url.clone(), delimited(&[0x12], body)].concat();
        [
            ("structs", deepest(&chain, plain, field(0x0a))),
            ("structs in pieces", deepest(&chain, plain, pieces(0x0a))),
            ("text", deepest(&node, plain, field(0x12))),
            ("text in pieces", deepest(&node, plain, pieces(0x12))),
            ("text in lists", deepest(&node, plain, field(0x1a))),
            ("text in oneofs", deepest(&node, plain, field(0x2a))),
            ("text in maps", deepest(&node, plain, entry)),
            ("text in maps with a key twice", deepest(&node, plain, entries)),
            ("an Any in an Any", deepest(&node, within_text, any)),
            ("lists of values", deepest(&structs, field(0x12), |body| delimited(&[0x32], &delimited(&[0x0a], body)))),
            ("unknown groups", deepest(&groups, plain, |body| [&[0x7b], body, &[0x7c]].concat())),
        ]
    };
    let small = thread::Builder::new().stack_size(STACK_BYTES).spawn(run).unwrap();
    for (what, levels) in small.join().unwrap() {
        println!("{what}: {levels}");
        assert!(levels >= 48, "{what}: only {levels} levels were accepted");
    }
}
