//! Protobuf's official conformance suite, against the shredder: a binary input goes through a row and comes back.
//!
//! The suite's runner wants a program to talk to; that is this test binary again, running [`testee`] alone. Inputs and
//! outputs in JSON and text format are skipped: calve reads neither.

use std::collections::{BTreeMap, HashMap};
use std::fs::{self, File};
use std::io::{ErrorKind, Read, Write};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::Command;

use arrow::array::Array;
use buffa_descriptor::reflect::Value;
use calve::schema::mapping::Mapping;
use calve::shred::{Framing, Options, Shredder, rebuild};

use crate::support::corpus::{Corpus, batch};
use crate::support::needs;
use crate::support::oracle::Oracle;
use crate::support::parts::{schema_sets, script};

/// Where the testee finds its schemas, and where it notes what became of each input.
const SCHEMAS: &str = "CALVE_CONFORMANCE_SCHEMAS";
const NOTES: &str = "CALVE_CONFORMANCE_NOTES";
/// What it answers on; the test harness around it writes to the usual place.
const ANSWERS: &str = "/dev/fd/3";

#[test]
fn binary_inputs_come_back_from_rows() {
    let folder = tempfile::tempdir().expect("a temp folder");
    let testee = folder.path().join("testee");
    let notes = folder.path().join("notes");
    let wrapper = "#!/bin/sh\nexec 3>&1 1>&2\nexec \"$CALVE_CONFORMANCE_BINARY\" conformance::testee --exact --ignored --nocapture --test-threads=1\n";
    fs::write(&testee, wrapper).expect("the temp folder is writable");
    fs::set_permissions(&testee, fs::Permissions::from_mode(0o755)).expect("the temp folder is ours");
    let known = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/conformance/known.txt");
    let schemas = schema_sets().join("conformance.binpb");
    let output = Command::new(script("conformance"))
        .args(["runner", "--maximum_edition", "2023", "--enforce_recommended", "--failure_list"])
        .arg(known)
        .arg("--output_dir")
        .arg(folder.path())
        .arg(&testee)
        .env(SCHEMAS, &schemas)
        .env(NOTES, &notes)
        .env("CALVE_CONFORMANCE_BINARY", std::env::current_exe().expect("a test is a file"))
        .output()
        .expect("the runner runs");
    let said = String::from_utf8_lossy(&output.stderr);
    let notes =
        fs::read_to_string(&notes).unwrap_or_else(|error| panic!("no input reached the testee ({error}): {said}"));
    let mut counts: BTreeMap<&str, usize> = BTreeMap::new();
    notes.lines().for_each(|note| *counts.entry(note).or_default() += 1);
    let count = |note: &str| counts.get(note).copied().unwrap_or(0);
    println!("{counts:#?}");
    println!("{}", said.lines().filter(|line| line.starts_with("CONFORMANCE")).collect::<Vec<_>>().join("\n"));
    assert!(output.status.success(), "{said}");
    // The suite has thousands of binary inputs, legal and not; fewer would mean that it was not run.
    assert!(count("row from columns alone") > 1000 && count("reject") > 300, "{counts:?}");
}

/// Answers the runner's requests, each behind its length, until there are no more.
#[test]
#[ignore = "the program that the conformance runner starts, no test by itself"]
fn testee() {
    let setting = |name| PathBuf::from(std::env::var_os(name).expect("the runner's own test starts this one"));
    let mut testee = Testee { corpus: Corpus::of_set(&setting(SCHEMAS)), shredders: HashMap::new() };
    // The runner starts the testee for each of its suites.
    let mut notes = File::options().create(true).append(true).open(setting(NOTES)).expect("the notes can be written");
    let mut answers = File::options().write(true).open(ANSWERS).expect("the script opens it");
    let mut requests = std::io::stdin().lock();
    loop {
        let mut length = [0; 4];
        match requests.read_exact(&mut length) {
            Err(error) if error.kind() == ErrorKind::UnexpectedEof => return,
            read => read.expect("the runner keeps its pipe open"),
        }
        let mut request = vec![0; u32::from_le_bytes(length) as usize];
        requests.read_exact(&mut request).expect("a request is as long as it says");
        let answer = testee.answer(&request);
        writeln!(notes, "{}", answer.note()).expect("the notes can be written");
        let response = answer.encode();
        answers.write_all(&(response.len() as u32).to_le_bytes()).expect("the runner listens");
        answers.write_all(&response).expect("the runner listens");
    }
}

/// A ConformanceResponse.
enum Answer {
    ParseError(String),
    RuntimeError(String),
    Message {
        bytes: Vec<u8>,
        raw: Option<&'static str>,
    },
    Skipped(&'static str),
    /// The runner asks first which tests are known to fail; that is in its own list.
    NoFailures,
}

impl Answer {
    fn note(&self) -> String {
        match self {
            Answer::ParseError(_) => "reject".into(),
            Answer::RuntimeError(error) => format!("error: {error}"),
            Answer::Message { raw: None, .. } => "row from columns alone".into(),
            Answer::Message { raw: Some(reason), .. } => format!("row from _raw: {reason}"),
            Answer::Skipped(reason) => format!("skipped: {reason}"),
            Answer::NoFailures => "handshake".into(),
        }
    }

    fn encode(&self) -> Vec<u8> {
        let (number, value): (u8, &[u8]) = match self {
            Answer::ParseError(error) => (1, error.as_bytes()),
            Answer::RuntimeError(error) => (2, error.as_bytes()),
            Answer::Message { bytes, .. } => (3, bytes),
            Answer::Skipped(reason) => (5, reason.as_bytes()),
            Answer::NoFailures => (3, b""),
        };
        let mut response = vec![number << 3 | 2];
        let mut length = value.len();
        while length >= 0x80 {
            response.push(length as u8 | 0x80);
            length >>= 7;
        }
        response.push(length as u8);
        response.extend(value);
        response
    }
}

struct Testee {
    corpus: Corpus,
    shredders: HashMap<String, (Mapping, Shredder)>,
}

impl Testee {
    /// Reads a ConformanceRequest (conformance.proto) and answers it.
    fn answer(&mut self, request: &[u8]) -> Answer {
        let request = self.corpus.decode("conformance.ConformanceRequest", request);
        let name = match request.field_by_number(4) {
            Some(Value::String(name)) => name.clone(),
            _ => return Answer::RuntimeError("a request without a message type".into()),
        };
        let payload = match request.field_by_number(1) {
            Some(Value::Bytes(payload)) => Some(payload),
            _ => None,
        };
        let output = request.field_by_number(3);
        const PROTOBUF: Value = Value::EnumNumber(1);
        match payload {
            _ if name == "conformance.FailureSet" => Answer::NoFailures,
            None => Answer::Skipped("an input in JSON or text format"),
            Some(_) if output != Some(&PROTOBUF) => Answer::Skipped("an output in JSON or text format"),
            Some(payload) => self.through_a_row(&name, payload).unwrap_or_else(Answer::RuntimeError),
        }
    }

    fn through_a_row(&mut self, name: &str, payload: &[u8]) -> Result<Answer, String> {
        let corpus = &self.corpus;
        let (mapping, shredder) = self.shredders.entry(name.to_owned()).or_insert_with(|| {
            let mapping = corpus.mapping(name);
            let shredder =
                Shredder::new(&mapping, Options::default()).unwrap_or_else(|error| panic!("{name}: {error}"));
            (mapping, shredder)
        });
        if let Some(reject) = shredder.append(&batch([Some(payload)])).pop() {
            return Ok(Answer::ParseError(reject.detail));
        }
        let batches = shredder.take().map_err(|error| error.to_string())?;
        let [row] = batches.as_slice() else { return Err("neither row nor reject".into()) };
        let raw = !row.columns().last().is_none_or(|raw| raw.is_null(0));
        let rebuilt = rebuild(mapping, Framing::None, row, 0).map_err(|error| error.to_string())?;
        let bytes = rebuilt.ok_or("a message was taken for a tombstone")?;
        let oracle = Oracle { pool: &corpus.pool, descriptors: &corpus.descriptors };
        let reason = needs::raw(&corpus.descriptors, &oracle.decode(mapping.message, payload)?);
        match (raw, reason) {
            (false, _) => Ok(Answer::Message { bytes, raw: None }),
            (true, Some(reason)) => Ok(Answer::Message { bytes, raw: Some(reason) }),
            (true, None) => Err(format!("_raw without need for {payload:02x?}")),
        }
    }
}
