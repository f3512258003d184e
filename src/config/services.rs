//! `[daemon]`, `[kafka]` and `[schema_registry]`.

use std::collections::BTreeMap;
use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use super::reader::{Located, Section};
use super::{Daemon, Kafka, SchemaRegistry, Secret, units};

/// Properties of librdkafka that calve sets by itself, and why a user's value would break a promise.
pub const OWNED_KAFKA_PROPERTIES: &[(&str, &str)] = &[
    ("allow.auto.create.topics", "a daemon that makes topics would hide a misspelled name"),
    ("auto.commit.enable", "the table is the ledger; group offsets are for lag tools only"),
    ("auto.commit.interval.ms", "the table is the ledger; group offsets are for lag tools only"),
    ("auto.offset.reset", "calve starts where the table's ledger says; see the topic's `start`"),
    ("bootstrap.servers", "set `bootstrap_servers` in [kafka]"),
    ("enable.auto.commit", "the table is the ledger; group offsets are for lag tools only"),
    ("enable.auto.offset.store", "the table is the ledger; group offsets are for lag tools only"),
    ("enable.partition.eof", "calve needs the ends of partitions to know when it has caught up"),
    ("group.id", "set `group_id` in [kafka]"),
    ("group.instance.id", "set `instance_id` in [kafka]"),
    ("group.protocol", "rebalancing is part of the exactly-once promise"),
    ("group.protocol.type", "rebalancing is part of the exactly-once promise"),
    ("group.remote.assignor", "rebalancing is part of the exactly-once promise"),
    ("isolation.level", "set the topic's `isolation`"),
    ("metadata.broker.list", "set `bootstrap_servers` in [kafka]"),
    ("offset.store.method", "the table is the ledger; group offsets are for lag tools only"),
    ("partition.assignment.strategy", "rebalancing is part of the exactly-once promise"),
    ("queued.max.messages.kbytes", "it follows from `memory_limit` in [daemon]"),
    ("queued.min.messages", "it follows from `memory_limit` in [daemon]"),
    ("transactional.id", "calve does not produce"),
];

/// Properties of librdkafka that name files.
const KAFKA_FILES: &[&str] =
    &["ssl.ca.location", "ssl.certificate.location", "ssl.crl.location", "ssl.key.location", "ssl.keystore.location"];

/// Below it not even one topic's buffers fit.
const MEMORY_LIMIT_MIN: u64 = 16 << 20;

pub fn daemon(section: Option<Section<'_>>) -> Daemon {
    let mut daemon = Daemon {
        http: "127.0.0.1:8642".to_string(),
        http_token: None,
        memory_limit_bytes: 1 << 30,
        shutdown_timeout: Duration::from_secs(30),
    };
    let Some(section) = section else { return daemon };
    daemon.http_token =
        section.text("http_token").filter(|token| !token.value.is_empty()).map(|token| Secret(token.value));
    let token_given = section.has("http_token");
    if token_given && daemon.http_token.is_none() {
        section.fault("http_token", "is empty; give it a secret, or remove the key");
    }
    if let Some(http) = section.parsed("http", |text| check_http(text, token_given).map(|()| text.to_string())) {
        daemon.http = http.value;
    }
    let limit = section.parsed("memory_limit", |text| match units::size(text)? {
        bytes if bytes < MEMORY_LIMIT_MIN => Err("is too little to work with; give at least 16MiB".to_string()),
        bytes => Ok(bytes),
    });
    daemon.memory_limit_bytes = limit.map_or(daemon.memory_limit_bytes, |limit| limit.value);
    let timeout = section.parsed("shutdown_timeout", units::duration);
    daemon.shutdown_timeout = timeout.map_or(daemon.shutdown_timeout, |timeout| timeout.value);
    section.finish();
    daemon
}

/// Whether the daemon may serve HTTP there: `IP:PORT` or `localhost:PORT`; anything but loopback needs a token.
pub fn check_http(address: &str, has_token: bool) -> Result<(), String> {
    let loopback = match address.parse::<SocketAddr>() {
        Ok(address) => is_loopback(address.ip()),
        Err(_) => match address.rsplit_once(':') {
            Some(("localhost", port)) if port.parse::<u16>().is_ok() => true,
            _ => {
                return Err(
                    "is no address to serve; write `127.0.0.1:8642`, `0.0.0.0:8642` or `localhost:8642`".to_string()
                );
            }
        },
    };
    match loopback || has_token {
        true => Ok(()),
        false => Err(
            "can be reached from other machines, which needs a token; set `http_token` in [daemon], or serve 127.0.0.1"
                .to_string(),
        ),
    }
}

fn is_loopback(ip: IpAddr) -> bool {
    match ip {
        IpAddr::V4(ip) => ip.is_loopback(),
        IpAddr::V6(ip) => ip.is_loopback() || ip.to_ipv4_mapped().is_some_and(|ip| ip.is_loopback()),
    }
}

pub fn kafka(section: Option<Section<'_>>) -> Kafka {
    let mut kafka = Kafka {
        bootstrap_servers: String::new(),
        group_id: "calve".to_string(),
        instance_id: None,
        properties: BTreeMap::new(),
    };
    let Some(section) = section else { return kafka };
    if let Some(servers) = section.parsed("bootstrap_servers", check_servers) {
        kafka.bootstrap_servers = servers.value;
    }
    let named = |text: &str| match text.trim().is_empty() {
        true => Err("is empty; give it a name, or remove the key".to_string()),
        false => Ok(text.to_string()),
    };
    kafka.group_id = section.parsed("group_id", named).map_or(kafka.group_id, |group| group.value);
    kafka.instance_id = section.parsed("instance_id", named).map(|instance| instance.value);
    for (key, Located { value, line }) in section.properties("properties") {
        if let Some((_, why)) = OWNED_KAFKA_PROPERTIES.iter().find(|(owned, _)| *owned == key) {
            section
                .file
                .fault(line, format!("kafka.properties.\"{key}\" is calve's own to set: {why}; remove the key"));
            continue;
        }
        let path_like = KAFKA_FILES.contains(&key.as_str()) && value != "probe";
        let value = match path_like {
            true => section.file.sources.root.join(&value).to_string_lossy().into_owned(),
            false => value,
        };
        kafka.properties.insert(key, value);
    }
    section.finish();
    kafka
}

fn check_servers(text: &str) -> Result<String, String> {
    let server_is_fine = |server: &str| match server.trim().rsplit_once(':') {
        Some((host, port)) => !host.is_empty() && port.parse::<u16>().is_ok_and(|port| port > 0),
        None => false,
    };
    match text.split(',').all(server_is_fine) {
        true => Ok(text.to_string()),
        false => Err("must be `HOST:PORT`, or several with commas between".to_string()),
    }
}

pub fn schema_registry(section: Section<'_>) -> SchemaRegistry {
    let url = section.text("url");
    match &url {
        Some(url) if !url.value.starts_with("http://") && !url.value.starts_with("https://") => {
            section.fault("url", "must begin with http:// or https://");
        }
        None if !section.has("url") => {
            section.missing("url", "write the registry's address, like \"http://127.0.0.1:8081\"")
        }
        _ => {}
    }
    let username = section.text("username").map(|name| name.value);
    let password = section.text("password").map(|password| Secret(password.value));
    let token = section.text("token").map(|token| Secret(token.value));
    if section.has("token") && section.has("username") {
        section.fault("token", "cannot stand beside username; keep one of them");
    }
    if section.has("password") && !section.has("username") {
        section.fault("password", "needs a username");
    }
    let ca_file = section.text("ca_file").map(|file| section.file.sources.root.join(file.value));
    if let Some(file) = ca_file.as_ref().filter(|file| !file.is_file()) {
        section.fault("ca_file", format!("names {}, which is no file", file.display()));
    }
    section.finish();
    SchemaRegistry { url: url.map(|url| url.value).unwrap_or_default(), username, password, token, ca_file }
}
