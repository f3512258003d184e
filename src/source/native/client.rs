//! A librdkafka handle: made from properties, destroyed when its last user is gone.

use std::ffi::{CStr, CString, c_char, c_int, c_void};
use std::ptr::{self, NonNull};
use std::sync::Arc;
use std::time::Duration;

use rdkafka_sys as sys;

use super::error::{self, NativeError, code, read_code, text};
use super::messages::OwnedMessage;
use super::offsets::Offsets;
use super::queue::Queue;
use crate::source::inbox::{Command, Inbox, Rebalance, RebalanceKind};

/// A consumer handle of librdkafka; without a group id it only serves requests. Its API is thread safe.
#[derive(Debug)]
pub(in crate::source) struct Client {
    handle: NonNull<sys::rd_kafka_t>,
    /// What callbacks tell; librdkafka has a pointer to it until the handle is destroyed.
    _inbox: Option<Arc<Inbox>>,
}

// SAFETY: "rd_kafka_t is thread safe" (librdkafka's INTRODUCTION.md, Threads and callbacks).
unsafe impl Send for Client {}
unsafe impl Sync for Client {}

/// A configuration that was not made into a handle yet.
struct Conf(*mut sys::rd_kafka_conf_t);

impl Conf {
    fn new() -> Self {
        // SAFETY: no preconditions; never null (it aborts when out of memory).
        Conf(unsafe { sys::rd_kafka_conf_new() })
    }

    fn set(&mut self, key: &str, value: &str) -> Result<(), String> {
        let (Ok(key_c), Ok(value_c)) = (CString::new(key), CString::new(value)) else {
            return Err(format!("property {key:?} or its value contains a zero byte"));
        };
        let mut reason = [0 as c_char; 512];
        // SAFETY: all pointers are valid for the call, the buffer's length is given.
        let result = unsafe {
            sys::rd_kafka_conf_set(self.0, key_c.as_ptr(), value_c.as_ptr(), reason.as_mut_ptr(), reason.len())
        };
        match result {
            sys::rd_kafka_conf_res_t::RD_KAFKA_CONF_OK => Ok(()),
            _ => Err(unsafe { text(reason.as_ptr()) }),
        }
    }
}

impl Drop for Conf {
    fn drop(&mut self) {
        if !self.0.is_null() {
            // SAFETY: owned, and not taken over by a handle.
            unsafe { sys::rd_kafka_conf_destroy(self.0) }
        }
    }
}

/// What librdkafka says about one property.
pub(in crate::source) fn check_property(key: &str, value: &str) -> Result<(), String> {
    Conf::new().set(key, value)
}

impl Client {
    /// `inbox` is told of rebalances, and of errors of the client as a whole.
    pub fn new(properties: &[(String, String)], inbox: Option<Arc<Inbox>>) -> Result<Self, NativeError> {
        let mut conf = Conf::new();
        for (key, value) in properties {
            conf.set(key, value).map_err(|reason| NativeError::new(0, format!("[kafka.properties]: {reason}")))?;
        }
        // SAFETY: the conf is live; the inbox outlives the handle, because `Drop` destroys the handle first.
        unsafe {
            sys::rd_kafka_conf_set_log_cb(conf.0, Some(on_log));
            if let Some(inbox) = &inbox {
                sys::rd_kafka_conf_set_opaque(conf.0, Arc::as_ptr(inbox).cast_mut().cast::<c_void>());
                sys::rd_kafka_conf_set_error_cb(conf.0, Some(on_error));
                sys::rd_kafka_conf_set_rebalance_cb(conf.0, Some(on_rebalance));
            }
        }
        let kind = sys::rd_kafka_type_t::RD_KAFKA_CONSUMER;
        let mut reason = [0 as c_char; 512];
        // SAFETY: on success the handle owns the conf; on failure it stays ours.
        let handle = unsafe { sys::rd_kafka_new(kind, conf.0, reason.as_mut_ptr(), reason.len()) };
        let Some(handle) = NonNull::new(handle) else {
            return Err(NativeError::new(0, unsafe { text(reason.as_ptr()) }));
        };
        conf.0 = ptr::null_mut();
        // SAFETY: live handle. The main queue's events (errors) then come through the consumer queue; without a group
        // there is none, and the call changes nothing.
        unsafe { sys::rd_kafka_poll_set_consumer(handle.as_ptr()) };
        Ok(Client { handle, _inbox: inbox })
    }

    pub(super) fn handle(&self) -> *mut sys::rd_kafka_t {
        self.handle.as_ptr()
    }

    /// Tells it from others of this process.
    pub fn id(&self) -> usize {
        self.handle() as usize
    }

    pub fn subscribe<'a>(&self, topics: impl IntoIterator<Item = &'a str>) -> Result<(), NativeError> {
        let mut list = Offsets::new();
        for topic in topics {
            list.add(topic, -1, None)?;
        }
        // SAFETY: live handle and list; the list is copied.
        check(unsafe { read_return(sys::rd_kafka_subscribe(self.handle(), list.as_ptr())) })
    }

    /// Starts leaving the group, static members too, which would stay in it when they close; rebalances come as ever.
    pub fn unsubscribe(&self) -> Result<(), NativeError> {
        // SAFETY: live handle.
        check(unsafe { read_return(sys::rd_kafka_unsubscribe(self.handle())) })
    }

    /// Whether the group was joined, and not left since.
    pub fn is_member(&self) -> bool {
        // SAFETY: live handle; the string is ours to free with librdkafka's allocator.
        unsafe {
            let id = sys::rd_kafka_memberid(self.handle());
            let is_member = !text(id).is_empty();
            if !id.is_null() {
                sys::rd_kafka_mem_free(self.handle(), id.cast());
            }
            is_member
        }
    }

    /// Reads exactly `partitions`, from their offsets, outside of any group.
    pub fn assign(&self, partitions: &Offsets) -> Result<(), NativeError> {
        // SAFETY: live handle and list; the list is copied.
        check(unsafe { read_return(sys::rd_kafka_assign(self.handle(), partitions.as_ptr())) })
    }

    pub fn incremental_assign(&self, partitions: &Offsets) -> Result<(), NativeError> {
        // SAFETY: live handle and list; the list is copied, the error is ours.
        match unsafe { NativeError::take(sys::rd_kafka_incremental_assign(self.handle(), partitions.as_ptr())) } {
            Some(error) => Err(error),
            None => Ok(()),
        }
    }

    pub fn incremental_unassign(&self, partitions: &Offsets) -> Result<(), NativeError> {
        // SAFETY: as above.
        match unsafe { NativeError::take(sys::rd_kafka_incremental_unassign(self.handle(), partitions.as_ptr())) } {
            Some(error) => Err(error),
            None => Ok(()),
        }
    }

    /// Starts committing group offsets; does not wait for the broker.
    pub fn commit_async(&self, offsets: &Offsets) -> Result<(), NativeError> {
        // SAFETY: live handle and list; the list is copied.
        check(unsafe { read_return(sys::rd_kafka_commit(self.handle(), offsets.as_ptr(), 1)) })
    }

    /// The next message or event of the consumer's own queue; rebalance and error callbacks run here. Waits up to
    /// `timeout`.
    pub fn poll(&self, timeout: Duration) -> Option<OwnedMessage> {
        // SAFETY: live handle; the message is ours.
        unsafe { OwnedMessage::new(sys::rd_kafka_consumer_poll(self.handle(), millis(timeout))) }
    }

    /// Starts leaving the group; what is left to do comes through `queue`.
    pub fn close_begin(&self, queue: &Queue) -> Result<(), NativeError> {
        // SAFETY: live handle and queue.
        match unsafe { NativeError::take(sys::rd_kafka_consumer_close_queue(self.handle(), queue.as_ptr())) } {
            Some(error) => Err(error),
            None => Ok(()),
        }
    }

    pub fn is_closed(&self) -> bool {
        // SAFETY: live handle.
        unsafe { sys::rd_kafka_consumer_closed(self.handle()) != 0 }
    }

    /// The error after which the client does nothing more, if there was one.
    pub fn fatal_error(&self) -> Option<NativeError> {
        // SAFETY: live handle.
        unsafe { fatal_error(self.handle()) }
    }

    /// Asks any broker for its metadata.
    pub fn check(&self, timeout: Duration) -> Result<(), NativeError> {
        let mut metadata = ptr::null();
        // SAFETY: live handle; on success the metadata is ours.
        unsafe {
            let result = sys::rd_kafka_metadata(self.handle(), 0, ptr::null_mut(), &mut metadata, millis(timeout));
            check(read_return(result))?;
            sys::rd_kafka_metadata_destroy(metadata);
        }
        Ok(())
    }

    /// A broker that the metadata names.
    pub fn any_broker(&self, timeout: Duration) -> Result<Option<i32>, NativeError> {
        let mut metadata = ptr::null();
        // SAFETY: live handle; on success the metadata is ours, and has `broker_cnt` brokers.
        unsafe {
            let result = sys::rd_kafka_metadata(self.handle(), 0, ptr::null_mut(), &mut metadata, millis(timeout));
            check(read_return(result))?;
            let brokers = (*metadata).brokers;
            let broker = ((*metadata).broker_cnt > 0).then(|| (*brokers).id);
            sys::rd_kafka_metadata_destroy(metadata);
            Ok(broker)
        }
    }

    /// The id of the cluster, where the broker says.
    pub fn cluster_id(&self, timeout: Duration) -> Option<String> {
        // SAFETY: live handle; the string is ours to free with librdkafka's allocator.
        unsafe {
            let id = sys::rd_kafka_clusterid(self.handle(), millis(timeout));
            if id.is_null() {
                return None;
            }
            let owned = text(id);
            sys::rd_kafka_mem_free(self.handle(), id.cast());
            (!owned.is_empty()).then_some(owned)
        }
    }
}

impl Drop for Client {
    fn drop(&mut self) {
        // SAFETY: the last user is gone (queues hold the client). A group is left by `close_begin`, bounded, or not
        // at all: then the broker's session time-out does it.
        unsafe { sys::rd_kafka_destroy_flags(self.handle(), sys::RD_KAFKA_DESTROY_F_NO_CONSUMER_CLOSE) }
    }
}

pub(super) fn millis(timeout: Duration) -> c_int {
    c_int::try_from(timeout.as_millis()).unwrap_or(c_int::MAX)
}

/// A returned code as a number. (These functions return only codes of librdkafka's own, which the bindings know.)
fn read_return(code: sys::rd_kafka_resp_err_t) -> i32 {
    // SAFETY: a reference is valid for reads.
    unsafe { read_code(&code) }
}

fn check(code: i32) -> Result<(), NativeError> {
    if code == 0 { Ok(()) } else { Err(NativeError::new(code, error::words(code))) }
}

/// Runs on the poll thread, inside a consume call.
unsafe extern "C" fn on_rebalance(
    rk: *mut sys::rd_kafka_t,
    err: sys::rd_kafka_resp_err_t,
    partitions: *mut sys::rd_kafka_topic_partition_list_t,
    opaque: *mut c_void,
) {
    // SAFETY: opaque is the inbox that the client keeps alive; the list is valid during the call.
    let (inbox, partitions, lost) = unsafe {
        let lost = sys::rd_kafka_assignment_lost(rk) != 0;
        (&*opaque.cast::<Inbox>(), Offsets::read_partitions(partitions), lost)
    };
    let kind = match read_return(err) {
        code::ASSIGN_PARTITIONS => RebalanceKind::Assign,
        _ => RebalanceKind::Revoke { lost },
    };
    inbox.push(Command::Rebalance(Rebalance { client: rk as usize, kind, partitions }));
}

unsafe extern "C" fn on_error(rk: *mut sys::rd_kafka_t, err: c_int, reason: *const c_char, opaque: *mut c_void) {
    // SAFETY: as above; the reason is terminated; the handle is live.
    let (inbox, reason, fatal) = unsafe { (&*opaque.cast::<Inbox>(), text(reason), fatal_error(rk)) };
    let (code, reason, fatal) = match fatal {
        Some(error) => (error.code, error.reason, true),
        None => (err, reason, false),
    };
    inbox.push(Command::ClientError { client: rk as usize, code, reason, fatal });
}

/// # Safety
/// The handle must be live.
unsafe fn fatal_error(rk: *mut sys::rd_kafka_t) -> Option<NativeError> {
    let mut words = [0 as c_char; 512];
    // SAFETY: live handle; the buffer's length is given.
    let code = read_return(unsafe { sys::rd_kafka_fatal_error(rk, words.as_mut_ptr(), words.len()) });
    // SAFETY: terminated by the call.
    (code != 0).then(|| NativeError::new(code, unsafe { text(words.as_ptr()) }))
}

/// Runs on librdkafka's threads.
unsafe extern "C" fn on_log(_: *const sys::rd_kafka_t, level: c_int, facility: *const c_char, line: *const c_char) {
    // SAFETY: both strings are terminated, and valid during the call.
    let (facility, line) =
        unsafe { (CStr::from_ptr(facility).to_string_lossy(), CStr::from_ptr(line).to_string_lossy()) };
    // Levels are syslog's. What calve must act on comes as an error too, so nothing here is above a warning.
    match level {
        0..=4 => tracing::warn!(target: "librdkafka", "{facility}: {line}"),
        5 | 6 => tracing::info!(target: "librdkafka", "{facility}: {line}"),
        _ => tracing::debug!(target: "librdkafka", "{facility}: {line}"),
    }
}
