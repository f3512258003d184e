//! What can be wrong with a topic, in words that say what to do.

use crate::error::Error;

use super::native::{NativeError, code};

/// Records between the ledger and the log's start are gone: retention or DeleteRecords removed them unread.
pub fn log_start_moved(topic: &str, partition: i32, next: i64, log_start: i64) -> Error {
    Error::halt(format!(
        "topic {topic} partition {partition}: {} offsets are gone: the next to read is {next}, but the log now starts \
         at {log_start} (retention or deletion was faster than calve); `calve ledger reset` to {log_start} accepts the \
         loss",
        log_start.saturating_sub(next)
    ))
}

/// The log is shorter than what was already read: it was truncated, or the topic or the cluster is another one.
pub fn end_below_ledger(topic: &str, partition: i32, next: i64, end: i64) -> Error {
    Error::halt(format!(
        "topic {topic} partition {partition}: the log ends at {end}, but offsets below {next} were already read: the \
         topic was recreated or truncated, or this is another cluster; `calve ledger reset` starts the topic anew"
    ))
}

/// The topic of this name is not the one that the ledger counts.
pub fn topic_recreated(topic: &str, ledger_id: &str, found_id: &str) -> Error {
    Error::halt(format!(
        "topic {topic} was recreated: the table's ledger counts offsets of topic id {ledger_id}, the broker now has \
         {found_id}; `calve ledger reset` starts it anew from the new topic's beginning"
    ))
}

/// The broker refuses an offset, but its watermarks do not say why.
pub(super) fn out_of_range(topic: &str, partition: i32, next: i64, error: &NativeError) -> Error {
    Error::halt(format!(
        "topic {topic} partition {partition}: offset {next} cannot be read ({}); `calve topics` shows what the log \
         has, `calve ledger reset` chooses where to go on",
        error.reason
    ))
}

/// An error that librdkafka reports for a topic (`partition` < 0) or one of its partitions.
pub(super) fn of_topic(topic: &str, partition: i32, error: &NativeError) -> Error {
    let place = if partition >= 0 { format!("topic {topic} partition {partition}") } else { format!("topic {topic}") };
    let reason = &error.reason;
    match error.code {
        code::UNKNOWN_TOPIC_OR_PART | code::UNKNOWN_TOPIC | code::UNKNOWN_PARTITION => Error::retry(format!(
            "{place} does not exist on the broker ({reason}): create it, or correct its name in calve.toml; calve goes \
             on looking for it"
        )),
        code::INVALID_TOPIC => Error::halt(format!("{place}: the broker refuses the name ({reason})")),
        code::TOPIC_AUTHORIZATION_FAILED => Error::halt(format!(
            "{place}: not authorized ({reason}): grant this user READ and DESCRIBE on the topic, then resume it"
        )),
        code::GROUP_AUTHORIZATION_FAILED => Error::halt(format!(
            "{place}: not authorized for the consumer group ({reason}): grant this user READ on the group, or set \
             kafka.group_id"
        )),
        code::BAD_MESSAGE | code::BAD_COMPRESSION | code::NOT_IMPLEMENTED => Error::halt(format!(
            "{place}: the log cannot be read ({reason}): a batch is damaged, or its codec is unknown"
        )),
        code::MESSAGE_SIZE_TOO_LARGE => Error::halt(format!(
            "{place}: a record batch is larger than a response may be ({reason}): raise receive.message.max.bytes and \
             fetch.max.bytes in [kafka.properties]"
        )),
        _ => Error::retry(format!("{place}: {reason}; calve goes on trying")),
    }
}

/// Whether what follows such an error in a partition does not join up with what came before it.
pub(super) fn stops_partition(error: &NativeError) -> bool {
    matches!(error.code, code::AUTO_OFFSET_RESET | code::OFFSET_OUT_OF_RANGE) || !of_topic("", 0, error).is_retry()
}

/// What to say where the broker knows no topic of this name.
pub(super) fn no_such_topic(topic: &str, bootstrap_servers: &str) -> String {
    format!(
        "topic {topic} does not exist on the broker at {bootstrap_servers}: create it, or correct its name in calve.toml"
    )
}

/// An error of a request about a topic.
pub(super) fn of_request(what: &str, topic: &str, error: &NativeError, bootstrap_servers: &str) -> Error {
    match error.code {
        code::AUTHENTICATION | code::SSL => Error::halt(format!(
            "{what} of topic {topic}: cannot log in to {bootstrap_servers} ({}): check security.protocol, sasl.* and \
             ssl.* in [kafka.properties]",
            error.reason
        )),
        _ if error.is_transport() => Error::retry(format!(
            "{what} of topic {topic}: no answer from {bootstrap_servers} ({}): is the broker up, and the address right?",
            error.reason
        )),
        _ if error.is_unknown_topic() => Error::retry(no_such_topic(topic, bootstrap_servers)),
        _ => of_topic(topic, -1, error),
    }
}

/// An error that the client cannot recover from.
pub(super) fn of_client(error: &NativeError) -> Error {
    match error.code {
        code::FENCED_INSTANCE_ID => Error::halt(format!(
            "another member took over this daemon's kafka.instance_id ({}): give each daemon its own",
            error.reason
        )),
        _ => Error::halt(format!("the Kafka client failed for good ({}): restart the daemon", error.reason)),
    }
}
