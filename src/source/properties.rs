//! librdkafka's properties: ours, the user's, and the limits that follow from the budget.

use std::collections::BTreeMap;

use crate::config::{Isolation, Kafka};

use super::budget::Budget;
use super::native;

/// Every fault of the user's properties as `(key, what is wrong)`: unknown to librdkafka, or with a value it refuses.
/// Touches no network. Those that calve sets itself are refused by the configuration already.
pub fn check_properties(properties: &BTreeMap<String, String>) -> Vec<(String, String)> {
    let mut faults = Vec::new();
    for (key, value) in properties {
        if let Err(reason) = native::check_property(key, value) {
            faults.push((key.clone(), reason));
        }
    }
    faults
}

const KIB: u64 = 1 << 10;
const MIB: u64 = 1 << 20;

/// How much librdkafka may prefetch. Its queue limits hold for each queue, which here means for each topic, and may be
/// overshot by one response.
///
/// A response is as large as what it may have of one partition, so that under a backlog it is one partition's, the next
/// time another's: messages count themselves in their response and in their partition, on the thread that makes them and
/// on the one that takes them, which get into each other's way when both are at the same response (benches/README.md).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct FetchLimits {
    queue_kbytes: u64,
    queue_messages: u64,
    response_bytes: u64,
    partition_bytes: u64,
}

impl FetchLimits {
    pub fn new(budget: &Budget, topics: usize) -> Self {
        let prefetch = budget.prefetch_bytes();
        let queue_bytes = (prefetch / 2 / topics.max(1) as u64).clamp(64 * KIB, 32 * MIB);
        let partition_bytes = (queue_bytes / 4).clamp(64 * KIB, 2 * MIB);
        FetchLimits {
            queue_kbytes: queue_bytes / KIB,
            // A queued message costs about 300 bytes besides its own.
            queue_messages: (queue_bytes / 512).clamp(100, 100_000),
            // librdkafka refuses less than message.max.bytes, which is 1,000,000 unless set.
            response_bytes: partition_bytes.max(MIB),
            partition_bytes,
        }
    }
}

/// Properties of any client: the user's over our defaults, with what calve owns on top.
pub(super) fn client(kafka: &Kafka) -> Vec<(String, String)> {
    let mut entries = vec![
        entry("client.id", "calve"),
        entry("socket.keepalive.enable", "true"),
        entry("log.connection.close", "false"),
        // New partitions, and topics that are created after the daemon was started, are found within this time.
        entry("topic.metadata.refresh.interval.ms", "10000"),
    ];
    entries.extend(kafka.properties.iter().map(|(key, value)| (key.clone(), value.clone())));
    entries.push(entry("bootstrap.servers", &kafka.bootstrap_servers));
    entries.push(entry("allow.auto.create.topics", "false"));
    entries
}

/// Properties of a consumer; it is a static member of the group when `instance_id` is given.
pub(super) fn consumer(
    kafka: &Kafka,
    instance_id: Option<&str>,
    isolation: Isolation,
    limits: FetchLimits,
) -> Vec<(String, String)> {
    // Less than this librdkafka refuses; it is meant for producers, but some have one set of properties for all.
    let message_bytes = kafka.properties.get("message.max.bytes").and_then(|bytes| bytes.parse::<u64>().ok());
    let mut entries = vec![
        entry("fetch.max.bytes", limits.response_bytes.max(message_bytes.unwrap_or(0))),
        entry("fetch.message.max.bytes", limits.partition_bytes),
        // How soon a full queue is looked at again; the default of a second would starve a small one.
        entry("fetch.queue.backoff.ms", 10),
        entry("check.crcs", "true"),
        // A daemon that died holds its partitions for so long; librdkafka's 45 s is for consumers that fence nothing.
        entry("session.timeout.ms", 10_000),
        entry("heartbeat.interval.ms", 2_000),
        // Nor does the poll thread ever wait for a loop longer than REVOKE_WAIT.
        entry("max.poll.interval.ms", 60_000),
    ];
    entries.extend(client(kafka));
    entries.extend([
        entry("group.id", &kafka.group_id),
        entry("partition.assignment.strategy", "cooperative-sticky"),
        entry("enable.auto.commit", "false"),
        entry("enable.auto.offset.store", "false"),
        entry("auto.offset.reset", "error"),
        entry("enable.partition.eof", "true"),
        entry("queued.max.messages.kbytes", limits.queue_kbytes),
        entry("queued.min.messages", limits.queue_messages),
        entry(
            "isolation.level",
            match isolation {
                Isolation::ReadCommitted => "read_committed",
                Isolation::ReadUncommitted => "read_uncommitted",
            },
        ),
    ]);
    entries.extend(instance_id.map(|id| entry("group.instance.id", id)));
    entries
}

fn entry(key: &str, value: impl ToString) -> (String, String) {
    (key.to_owned(), value.to_string())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::OWNED_KAFKA_PROPERTIES;

    fn properties(pairs: &[(&str, &str)]) -> BTreeMap<String, String> {
        pairs.iter().map(|(key, value)| ((*key).to_owned(), (*value).to_owned())).collect()
    }

    fn kafka(pairs: &[(&str, &str)]) -> Kafka {
        Kafka {
            bootstrap_servers: "127.0.0.1:1".into(),
            group_id: "calve".into(),
            instance_id: None,
            properties: properties(pairs),
        }
    }

    fn faults(pairs: &[(&str, &str)]) -> Vec<String> {
        check_properties(&properties(pairs)).into_iter().map(|(key, reason)| format!("{key}: {reason}")).collect()
    }

    #[test]
    fn every_fault_of_the_properties_is_found_at_once() {
        let faults = faults(&[
            ("security.protocol", "sasl_ssl"),
            ("sasl.username", "me"),
            ("fetch.max.bytes", "lots"),
            ("no.such.thing", "1"),
        ]);
        assert_eq!(faults.len(), 2, "{faults:?}");
        assert!(faults[0].starts_with("fetch.max.bytes: ") && faults[0].contains("fetch.max.bytes"), "{faults:?}");
        assert!(faults[1].starts_with("no.such.thing: ") && faults[1].contains("no.such.thing"), "{faults:?}");
    }

    #[test]
    fn all_that_calve_sets_is_accepted_by_librdkafka() {
        let kafka = kafka(&[]);
        for (budget, topics) in [(1, 1), (1 << 20, 1_000), (1 << 40, 1)] {
            let limits = FetchLimits::new(&Budget::new(budget), topics);
            for (key, value) in consumer(&kafka, Some("a"), Isolation::ReadCommitted, limits) {
                assert_eq!(native::check_property(&key, &value), Ok(()), "{key}={value}");
            }
        }
    }

    /// A user's value that is overridden in silence would be one that does not work.
    #[test]
    fn what_calve_sets_over_the_users_properties_is_refused_by_the_configuration() {
        let kafka = kafka(&[("client.id", "mine")]);
        let limits = FetchLimits::new(&Budget::new(64 << 20), 1);
        let entries = consumer(&kafka, Some("a"), Isolation::ReadCommitted, limits);
        let users = entries.iter().rposition(|(key, value)| key == "client.id" && value == "mine").unwrap();
        for (key, _) in &entries[users + 1..] {
            assert!(OWNED_KAFKA_PROPERTIES.iter().any(|(owned, _)| owned == key), "{key}");
        }
    }

    #[test]
    fn a_users_larger_messages_fit_a_response() {
        let kafka = kafka(&[("message.max.bytes", "20000000")]);
        let limits = FetchLimits::new(&Budget::new(64 << 20), 1);
        let entries = consumer(&kafka, None, Isolation::ReadCommitted, limits);
        assert!(native::Client::new(&entries, None).is_ok());
    }

    #[test]
    fn a_thousand_topics_share_what_one_would_have() {
        let budget = Budget::new(256 << 20);
        assert_eq!(FetchLimits::new(&budget, 1).queue_kbytes, 32 << 10);
        assert_eq!(FetchLimits::new(&budget, 1_000).queue_kbytes, 65);
    }
}
