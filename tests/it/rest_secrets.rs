//! What a REST catalog grants and vends is never shown: planted secrets are looked for in all that a run and its commands
//! print, serve and log at their most talkative, when all goes well and when it does not.

use std::time::Duration;

use crate::support::broker::{Broker, Record};
use crate::support::parts::Part;
use crate::support::project::{Project, damaged, event};

const CLIENT: &str = "planted-client-secret";
const WRONG: &str = "planted-wrong-secret";
/// The keys that `tests/parts/s3.sh` knows; the catalog vends them.
const VENDED: &str = "calve-secret-key";
const HEADER: &str = "planted-header-value";
const PASSWORD: &str = "planted-kafka-password";

/// Everything that calve said.
#[derive(Default)]
struct Said(String);

impl Said {
    fn command(&mut self, project: &Project, arguments: &[&str], wanted: &[i32]) {
        let (code, out, errors) = project.calve(arguments);
        assert!(wanted.contains(&code), "{arguments:?}: {code}: {out}\n{errors}");
        self.0.push_str(&out);
        self.0.push_str(&errors);
    }

    fn has(&self, text: &str) {
        assert!(self.0.contains(text), "nothing about {text}:\n{}", self.0);
    }
}

fn catalog(rest: &str, store: &str, secret: &str) -> String {
    format!(
        "type = \"rest\"\nuri = \"{rest}\"\ncredential = \"me:{secret}\"\n\"header.X-Key\" = \"{HEADER}\"\n\
         \"s3.endpoint\" = \"{store}\"\n\"s3.region\" = \"us-east-1\"\n\"s3.access-key-id\" = \"wrong\"\n\"s3.secret-access-key\" = \"{WRONG}\"\n"
    )
}

#[test]
fn no_secret_is_ever_shown() {
    let (broker, s3) = (Broker::light(), Part::start("s3", &[]));
    let rest = Part::start(
        "rest",
        &[
            &format!("auth=me:{CLIENT}"),
            "ttl=2",
            "warehouse=s3://lake/rest",
            "io-impl=org.apache.iceberg.aws.s3.S3FileIO",
            &format!("s3.endpoint={}", s3.address),
            "s3.path-style-access=true",
            "s3.access-key-id=calve-access-key",
            &format!("s3.secret-access-key={VENDED}"),
            "client.region=us-east-1",
            "include-credentials=true",
        ],
    );
    broker.create_topic("events", 2, &[]);
    let records: Vec<Record> =
        (0..200).map(|id| Record::new((id % 2) as i32, if id % 50 == 7 { damaged(id) } else { event(id) })).collect();
    broker.produce("events", &records);
    let project = Project::new(&broker, "commit_interval = \"200ms\"\n");
    project.edit(
        "calve.toml",
        "[kafka.properties]\n",
        &format!("[kafka.properties]\n\"sasl.password\" = \"{PASSWORD}\"\n"),
    );
    project.write("catalogs/local.toml", &catalog(&rest.address, &s3.address, CLIENT));
    let mut said = Said::default();

    let daemon = project.start_with(&["-vvv", "--log-format", "json"], &[]);
    daemon.wait_for_rows("events", 196);
    // Longer than a token lives.
    std::thread::sleep(Duration::from_millis(2500));
    broker.produce("events", &[Record::new(0, event(1000))]);
    daemon.wait_for_rows("events", 197);
    for path in ["/metrics", "/status"] {
        said.0.push_str(&daemon.get(path));
    }
    said.0.push_str(&daemon.log());
    assert_eq!(daemon.terminate(), 0);
    for arguments in [
        &["-vvv", "status", "-o", "json"][..],
        &["-vvv", "topics", "-o", "json"],
        &["-vvv", "validate", "--connect", "-o", "json"],
        &["-vvv", "verify", "bronze.events", "-o", "json"],
        &["-vvv", "verify", "--deep", "bronze.events", "-o", "json"],
        &["-vvv", "ledger", "show", "bronze.events", "-o", "json"],
        &["-vvv", "query", "SELECT count(*) FROM bronze.events"],
    ] {
        said.command(&project, arguments, &[0]);
    }
    said.has("calve_commits_total");
    said.has("197");

    // The wrong secret, a catalog that is away, a store that does not take the keys, a file with faults.
    project.write("catalogs/local.toml", &catalog(&rest.address, &s3.address, WRONG));
    said.command(&project, &["-vvv", "run", "--until-caught-up"], &[1]);
    said.command(&project, &["-vvv", "status", "-o", "json"], &[0, 1]);
    said.command(&project, &["-vvv", "validate", "--connect", "-o", "json"], &[2]);
    said.has("invalid_client");
    project.write("catalogs/local.toml", &catalog("http://127.0.0.1:1", &s3.address, CLIENT));
    said.command(&project, &["-vvv", "validate", "--connect"], &[2]);
    project.write(
        "catalogs/local.toml",
        &format!(
            "type = \"sql\"\nuri = \"sqlite:///catalog.db\"\nwarehouse = \"s3://lake/sql\"\n\"s3.endpoint\" = \"{}\"\n\
             \"s3.region\" = \"us-east-1\"\n\"s3.access-key-id\" = \"calve-access-key\"\n\
             \"s3.secret-access-key\" = \"{WRONG}\"\n",
            s3.address
        ),
    );
    said.command(&project, &["-vvv", "run", "--until-caught-up"], &[1]);
    said.has("SignatureDoesNotMatch");
    project.write(
        "catalogs/local.toml",
        &format!("type = \"rest\"\nuri = \"{WRONG}\"\ntoken = \"{CLIENT}\"\ntoken-file = \"x\"\ntokn = \"{WRONG}\"\n"),
    );
    said.command(&project, &["-vvv", "validate", "-o", "json"], &[2]);
    said.has("unknown key tokn");

    for planted in [CLIENT, WRONG, VENDED, HEADER, PASSWORD] {
        let at = said.0.find(planted);
        let around = at.map(|at| said.0[at.saturating_sub(300)..].chars().take(400).collect::<String>());
        assert_eq!(around, None, "{planted} is shown");
    }
    // Tokens are what RFC 4122 calls random; the server's log of requests has none, so they are caught by their look.
    let bearer = said.0.find("Bearer ").map(|at| said.0[at..].chars().take(60).collect::<String>());
    assert_eq!(bearer, None);
}
