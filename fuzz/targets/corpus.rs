//! `corpus seed`: what the fuzzer starts from, and its dictionaries. `corpus pack TARGET`: what it found, into
//! `tests/corpus/hostile/TARGET.txt`, one input a line in base64. `corpus unpack`: the way back.

#![allow(dead_code, unused_imports)] // Of the tests, which are shared.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};

use base64::Engine;
use base64::engine::general_purpose::STANDARD as BASE64;
use rand::SeedableRng;
use rand::rngs::StdRng;

mod input;
#[path = "../../tests/it/rebuild.rs"]
mod rebuild;
#[path = "../../tests/it/shred.rs"]
mod shred;
mod support;

use support::corpus::generate::{self, Style};
use support::corpus::{folder, root};
use support::hostile::{Hostile, Input};

const TARGETS: [&str; 3] = ["shred", "rebuild", "descriptors"];

fn main() {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    match arguments.iter().map(String::as_str).collect::<Vec<_>>().as_slice() {
        ["seed"] => seed(),
        ["pack", target] => pack(target),
        ["unpack"] => TARGETS.into_iter().for_each(unpack),
        _ => {
            eprintln!("usage: corpus seed | pack TARGET | unpack");
            std::process::exit(2);
        }
    }
}

/// Where cargo-fuzz keeps a target's inputs.
fn inputs(target: &str) -> PathBuf {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("corpus").join(target);
    fs::create_dir_all(&folder).expect("the folder can be made");
    folder
}

fn write(path: PathBuf, bytes: impl AsRef<[u8]>) {
    fs::write(&path, bytes).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
}

fn seed() {
    let hostile = Hostile::new();
    let styles = [("plain", Style::PLAIN), ("wild", Style::WILD), ("refused", Style::REFUSED)];
    for (number, topic) in hostile.topics.iter().enumerate() {
        for (name, style) in styles {
            let mut rng = StdRng::seed_from_u64(number as u64);
            let style = Style { presence: 0.3, elements_max: 2, text_max: 8, ..style };
            let mut record = || generate::message(&topic.mapping.pool, topic.mapping.message, style, &mut rng);
            let records = vec![record(), record()];
            let bytes = Input { topic: number as u8, flags: 0, records }.bytes();
            write(inputs("shred").join(format!("{number}-{name}")), &bytes);
            write(inputs("rebuild").join(format!("{number}-{name}")), &bytes);
        }
    }
    for file in fs::read_dir(folder()).expect("the folder is there").flatten() {
        let Ok(source) = fs::read(file.path()) else { continue };
        write(inputs("descriptors").join(file.file_name()), [vec![1], source].concat());
    }
    let set = fs::read(root().join("editions/features.binpb")).expect("the file is there");
    write(inputs("descriptors").join("features.binpb"), [vec![0], set].concat());
    dictionaries(&hostile);
}

/// The schemas' tags and names for records; words and keywords for descriptors.
fn dictionaries(hostile: &Hostile) {
    let mut words: BTreeSet<Vec<u8>> = BTreeSet::new();
    for message in &hostile.corpus.pool.messages {
        for field in &message.fields {
            for wire in [0, 1, 2, 3, 4, 5] {
                let mut tag = u64::from(field.number) << 3 | wire;
                let mut bytes = Vec::new();
                while tag >= 0x80 {
                    bytes.push(tag as u8 | 0x80);
                    tag >>= 7;
                }
                bytes.push(tag as u8);
                words.insert(bytes);
            }
        }
    }
    words.insert(b"type.googleapis.com/".to_vec());
    words.extend(hostile.corpus.pool.messages.iter().map(|message| message.full_name.clone().into_bytes()));
    let mut text = String::new();
    for word in words {
        let escaped: String = word.iter().map(|byte| format!("\\x{byte:02x}")).collect();
        text += &format!("\"{escaped}\"\n");
    }
    write(Path::new(env!("CARGO_MANIFEST_DIR")).join("corpus/records.dict"), text);
    let keywords = "syntax = \"proto2\"; |syntax = \"proto3\"; |package |import |public |message |enum |extend |group \
        |oneof |map<string, |repeated |optional |required |extensions |reserved |option |to max|[packed = true]\
        |[default = |[deprecated = true]|(calve.v1.column)|(calve.v1.table)|message_set_wire_format = true\
        |allow_alias = true|json_name = |google/protobuf/any.proto|google/protobuf/timestamp.proto\
        |calve/v1/options.proto|google.protobuf.Any|google.protobuf.Struct|int32 |uint64 |string |bytes |536870911\
        |2147483647|-1|0x|{|}|;";
    let quoted = keywords.split('|').map(|word| {
        let escaped: String = word.trim_start_matches('\n').bytes().map(|byte| format!("\\x{byte:02x}")).collect();
        format!("\"{escaped}\"\n")
    });
    write(Path::new(env!("CARGO_MANIFEST_DIR")).join("corpus/descriptors.dict"), quoted.collect::<String>());
}

fn packed(target: &str) -> PathBuf {
    root().join("hostile").join(format!("{target}.txt"))
}

fn pack(target: &str) {
    let files = fs::read_dir(inputs(target)).expect("the folder is there").flatten();
    let lines: BTreeSet<String> =
        files.filter_map(|file| fs::read(file.path()).ok()).map(|bytes| BASE64.encode(bytes)).collect();
    write(packed(target), lines.into_iter().map(|line| line + "\n").collect::<String>());
}

fn unpack(target: &str) {
    let text = fs::read_to_string(packed(target)).expect("the file is there");
    for (number, line) in text.lines().enumerate() {
        let bytes = BASE64.decode(line).unwrap_or_else(|error| panic!("{target}, line {}: {error}", number + 1));
        write(inputs(target).join(format!("packed-{number}")), bytes);
    }
}
