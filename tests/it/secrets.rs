//! No secret is ever said: not in logs at their loudest, not in errors, results, metrics, status or Debug output.

use std::time::Duration;

use crate::support::broker::{Broker, Record};
use crate::support::parts::Part;
use crate::support::project::{PROTO, Project, event};
use crate::support::proxy::{Fault, Proxy};

/// Each in one place of the configuration.
const PLANTED: [&str; 14] = [
    "planted-kafka-password",
    "planted-http-token",
    "planted-registry-password",
    "planted-postgres-password",
    "planted-s3-secret-key",
    "planted-s3-session-token",
    "planted-rest-token",
    "planted-rest-credential",
    "planted-rest-header",
    "planted-s3-second-key",
    "planted-jdbc-password",
    "planted-adls-signature",
    "planted-gcs-token",
    "planted-aws-secret-key",
];

fn assert_clean(what: &str, text: &str) {
    for secret in PLANTED {
        let line = text.lines().find(|line| line.contains(secret));
        assert!(line.is_none(), "{what} says {secret}: {}", line.unwrap_or_default());
    }
}

fn topic(name: &str) -> String {
    format!("[topics.{name}]\ncatalog = \"{name}\"\nmessage = \"test.v1.Event\"\nschema = \"proto\"\n")
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn planted_secrets_stay_where_they_were_planted() {
    let (broker, s3, rest) = (Broker::light(), Part::start("s3", &[]), Part::start("rest", &["token=other"]));
    let topics = ["postgres", "token", "store", "local"];
    for topic in topics {
        broker.create_topic(topic, 1, &[]);
        broker.produce(topic, &(0..20).map(|id| Record::new(0, event(id))).collect::<Vec<_>>());
    }
    let port = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
    let project = Project::new(&broker, "");
    let toml = format!(
        "[daemon]\nhttp = \"127.0.0.1:{port}\"\nhttp_token = \"planted-http-token\"\nshutdown_timeout = \"3s\"\n\
         [kafka]\nbootstrap_servers = \"{}\"\n[kafka.properties]\n\"sasl.password\" = \"planted-kafka-password\"\n\
         [schema_registry]\nurl = \"http://127.0.0.1:1\"\nusername = \"me\"\npassword = \"planted-registry-password\"\n",
        broker.bootstrap_servers()
    );
    project.write("calve.toml", &(toml + &topics.map(topic).concat()));
    project.write("proto/test/v1/event.proto", PROTO);
    project.write(
        "catalogs/postgres.toml",
        "type = \"sql\"\nuri = \"postgresql://me:planted-postgres-password@127.0.0.1:1/db\"\nwarehouse = \"w\"\n\
         \"jdbc.user\" = \"me\"\n\"jdbc.password\" = \"planted-jdbc-password\"\n\
         \"adls.sas-token\" = \"sv=1&sig=planted-adls-signature\"\n\"gcs.oauth2.token\" = \"planted-gcs-token\"\n\
         \"client.access-key-id\" = \"k\"\n\"client.secret-access-key\" = \"planted-aws-secret-key\"\n",
    );
    let refused = "{\"error\":{\"message\":\"no such token\",\"type\":\"NotAuthorizedException\",\"code\":401}}";
    let proxy = Proxy::start(&rest.address).await;
    proxy.arm("planted-rest-header", Fault::Say(401, refused), u32::MAX);
    project.write(
        "catalogs/token.toml",
        &format!(
            "type = \"rest\"\nuri = \"{}\"\ntoken = \"planted-rest-token\"\n\"header.X-Api-Key\" = \"planted-rest-header\"\n",
            proxy.url(&rest.address)
        ),
    );
    let store = |keys: &str, endpoint: &str| {
        format!(
            "type = \"sql\"\nuri = \"sqlite:///warehouse/catalog.db\"\nwarehouse = \"s3://lake/w\"\n\
             \"s3.endpoint\" = \"{endpoint}\"\n\"s3.region\" = \"us-east-1\"\n\"s3.path-style-access\" = \"true\"\n\
             \"s3.access-key-id\" = \"calve-access-key\"\n{keys}"
        )
    };
    let keys =
        "\"s3.secret-access-key\" = \"planted-s3-secret-key\"\n\"s3.session-token\" = \"planted-s3-session-token\"\n";
    project.write("catalogs/store.toml", &store(keys, &s3.address));
    let keys = "\"s3.secret-access-key\" = \"planted-s3-second-key\"\n";
    project.write("catalogs/local.toml", &store(keys, "http://127.0.0.1:1"));

    let loud = [("CALVE_LOG", "trace"), ("RUST_BACKTRACE", "1")];
    let daemon = project.start_with(&["-v", "--log-format", "json"], &loud);
    daemon.wait_for("serving http://", Duration::from_secs(20));
    std::thread::sleep(Duration::from_secs(3));
    for arguments in [
        vec!["-o", "json", "status"],
        vec!["status"],
        vec!["-o", "json", "topics"],
        vec!["validate", "--connect"],
        vec!["-o", "json", "validate", "--connect"],
        vec!["-vv", "verify", "bronze.store"],
        vec!["query", "SELECT * FROM bronze.token"],
        vec!["ledger", "show", "bronze.postgres"],
        vec!["schema", "show", "local"],
    ] {
        let (code, out, log) = project.calve_with(&arguments, &loud);
        assert!(code >= 0, "{arguments:?} was killed");
        assert_clean(&format!("{arguments:?}"), &(out + &log));
    }
    for path in ["/metrics", "/status", "/readyz"] {
        let output = std::process::Command::new("curl")
            .args(["-s", "-H", "Authorization: Bearer planted-http-token"])
            .arg(format!("http://127.0.0.1:{port}{path}"))
            .output()
            .unwrap();
        let text = String::from_utf8(output.stdout).unwrap();
        assert!(text.len() > 4, "{path}: {text}");
        assert_clean(path, &text);
    }
    daemon.signal("TERM");
    daemon.wait_for("shutting down", Duration::from_secs(20));
    std::thread::sleep(Duration::from_millis(500));
    let log = daemon.log();
    assert!(log.lines().count() > 100, "the log was not at its loudest:\n{log}");
    assert_clean("the daemon's log", &log);
    drop(daemon);

    // Kafka's own words when it refuses a password.
    project.edit("calve.toml", "\"sasl.password\"", "\"security.protocol\" = \"SASL_PLAINTEXT\"\n\"sasl.mechanism\" = \"PLAIN\"\n\"sasl.username\" = \"me\"\n\"debug\" = \"all\"\n\"sasl.password\"");
    let daemon = project.start_with(&["-v"], &loud);
    std::thread::sleep(Duration::from_secs(2));
    assert_clean("the daemon's log with SASL", &daemon.log());
    drop(daemon);

    // What a panic could print of the configuration.
    let loaded = calve::config::load(&project.path().join("calve.toml")).unwrap();
    assert_clean("Debug", &format!("{loaded:#?}"));
}

/// Faults of the configuration quote what is wrong, and never what is secret.
#[test]
fn faults_of_the_configuration_quote_no_secret() {
    let broker = Broker::light();
    let project = Project::new(&broker, "");
    let toml = "[daemon]\nhttp_token = 5\nhttp = \"0.0.0.0:1\"\n[kafka]\nbootstrap_servers = \"127.0.0.1:1\"\n\
                [kafka.properties]\n\"sasl.pasword\" = \"planted-kafka-password\"\n\"ssl.key.pem\" = \"planted-kafka-password\"\n\
                [schema_registry]\nurl = \"not a url\"\npassword = \"planted-registry-password\"\ntoken = \"planted-http-token\"\n"
        .to_owned();
    project.write("calve.toml", &(toml + &topic("local")));
    project.write(
        "catalogs/local.toml",
        "type = \"rest\"\nuri = \"http://me:planted-postgres-password@ nowhere\"\ntokn = \"planted-rest-token\"\n\
         credential = \"id:planted-rest-credential\"\n\"s3.secret-acces-key\" = \"planted-s3-secret-key\"\n",
    );
    for arguments in [vec!["validate"], vec!["-o", "json", "validate"], vec!["-vvv", "validate", "--connect"]] {
        let (code, out, log) = project.calve(&arguments);
        assert_eq!(code, 2, "{out}\n{log}");
        assert_clean(&format!("{arguments:?}"), &(out + &log));
    }
}
