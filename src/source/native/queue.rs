//! Queues: one for the group, one per topic that its partitions are forwarded to.

use std::ffi::{CString, c_void};
use std::ptr;
use std::sync::Arc;

use rdkafka_sys as sys;

use super::client::Client;
use super::error::NativeError;
use super::messages::Message;
use crate::source::inbox::Inbox;

/// A queue that messages are consumed from.
#[derive(Debug)]
pub(in crate::source) struct Queue {
    queue: *mut sys::rd_kafka_queue_t,
    /// What librdkafka's "no longer empty" callback points to.
    hook: Option<Box<Hook>>,
    /// Queues must not outlive their handle.
    _client: Arc<Client>,
}

#[derive(Debug)]
struct Hook {
    inbox: Arc<Inbox>,
    number: usize,
}

// SAFETY: queues are thread safe.
unsafe impl Send for Queue {}

impl Queue {
    /// The consumer's own queue: rebalances, errors, and messages of partitions that are not forwarded.
    pub fn of_consumer(client: &Arc<Client>) -> Self {
        // SAFETY: live handle; a consumer with a group id has this queue.
        let queue = unsafe { sys::rd_kafka_queue_get_consumer(client.handle()) };
        Queue { queue, hook: None, _client: client.clone() }
    }

    pub fn new(client: &Arc<Client>) -> Self {
        // SAFETY: live handle.
        let queue = unsafe { sys::rd_kafka_queue_new(client.handle()) };
        Queue { queue, hook: None, _client: client.clone() }
    }

    /// From now on, `inbox` is told when the queue is no longer empty; it knows the queue as `number`.
    pub fn watch(&mut self, inbox: Arc<Inbox>, number: usize) {
        let hook = self.hook.insert(Box::new(Hook { inbox, number }));
        let opaque = ptr::from_ref::<Hook>(hook).cast_mut().cast::<c_void>();
        // SAFETY: the hook lives until `Drop` switches the callback off.
        unsafe { sys::rd_kafka_queue_cb_event_enable(self.queue, Some(on_ready), opaque) }
    }

    /// Calls `each` with every message that is there now; never waits. Only for queues of partitions: rebalances come
    /// through [`Client::poll`].
    pub fn drain<F: FnMut(Message<'_>)>(&self, mut each: F) {
        // SAFETY: live queue; `each` outlives the call, which runs the callback on this thread only.
        unsafe {
            let opaque = (&raw mut each).cast::<c_void>();
            sys::rd_kafka_consume_callback_queue(self.queue, 0, Some(on_message::<F>), opaque);
        }
    }

    pub(super) fn as_ptr(&self) -> *mut sys::rd_kafka_queue_t {
        self.queue
    }
}

impl Drop for Queue {
    fn drop(&mut self) {
        // SAFETY: owned reference; after the first call no callback runs any more (both take the queue's lock).
        unsafe {
            if self.hook.is_some() {
                sys::rd_kafka_queue_cb_event_enable(self.queue, None, ptr::null_mut());
            }
            sys::rd_kafka_queue_destroy(self.queue);
        }
    }
}

/// Runs on librdkafka's threads with the queue locked: it may only tell.
unsafe extern "C" fn on_ready(_: *mut sys::rd_kafka_t, opaque: *mut c_void) {
    // SAFETY: the queue keeps its hook until it switched this callback off.
    let hook = unsafe { &*opaque.cast::<Hook>() };
    hook.inbox.ready(hook.number);
}

/// Runs on the thread that drains. librdkafka keeps the message, and destroys it afterwards.
unsafe extern "C" fn on_message<F: FnMut(Message<'_>)>(message: *mut sys::rd_kafka_message_t, opaque: *mut c_void) {
    // SAFETY: the opaque is what the call that this is part of was given; the message lives during the call.
    unsafe { (*opaque.cast::<F>())(Message::new(&*message)) }
}

/// A partition's own queue, forwarded to its topic's until dropped.
#[derive(Debug)]
pub(in crate::source) struct PartitionQueue {
    queue: *mut sys::rd_kafka_queue_t,
    _client: Arc<Client>,
}

// SAFETY: queues are thread safe.
unsafe impl Send for PartitionQueue {}

impl PartitionQueue {
    /// Sends what comes into the partition's queue on to `to`.
    pub fn forward(client: &Arc<Client>, topic: &str, partition: i32, to: &Queue) -> Result<Self, NativeError> {
        let name = CString::new(topic)
            .map_err(|_| NativeError::new(0, format!("topic name {topic:?} contains a zero byte")))?;
        // SAFETY: live handle and queues.
        unsafe {
            let queue = sys::rd_kafka_queue_get_partition(client.handle(), name.as_ptr(), partition);
            if queue.is_null() {
                return Err(NativeError::new(0, format!("no queue for topic {topic} partition {partition}")));
            }
            sys::rd_kafka_queue_forward(queue, to.queue);
            Ok(PartitionQueue { queue, _client: client.clone() })
        }
    }

    /// Forwards again, with what has come meanwhile. librdkafka ends the forwarding when it stops fetching a partition,
    /// which happens some time after an unassign was answered: perhaps after the partition was assigned anew, and then
    /// its messages would lie in its own queue for ever (`rd_kafka_toppar_fetch_stop`).
    pub fn renew(&self, to: &Queue) {
        // SAFETY: live queues.
        unsafe { sys::rd_kafka_queue_forward(self.queue, to.queue) }
    }
}

impl Drop for PartitionQueue {
    fn drop(&mut self) {
        // SAFETY: owned reference.
        unsafe {
            sys::rd_kafka_queue_forward(self.queue, ptr::null_mut());
            sys::rd_kafka_queue_destroy(self.queue);
        }
    }
}
