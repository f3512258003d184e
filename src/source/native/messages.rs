//! Messages: lent by librdkafka during a callback, or given away by a poll.

use std::ptr::{self, NonNull};
use std::slice;

use rdkafka_sys as sys;

use super::error::{read_code, text, words};
use crate::batch::TimestampType;

/// A message that librdkafka gave away.
#[derive(Debug)]
pub(in crate::source) struct OwnedMessage(NonNull<sys::rd_kafka_message_t>);

// SAFETY: messages are not tied to a thread.
unsafe impl Send for OwnedMessage {}

impl OwnedMessage {
    /// # Safety
    /// `message` is null or live, and nobody else will destroy it.
    pub(super) unsafe fn new(message: *mut sys::rd_kafka_message_t) -> Option<Self> {
        NonNull::new(message).map(OwnedMessage)
    }

    pub fn get(&self) -> Message<'_> {
        // SAFETY: live until dropped.
        Message(unsafe { self.0.as_ref() })
    }
}

impl Drop for OwnedMessage {
    fn drop(&mut self) {
        // SAFETY: owned.
        unsafe { sys::rd_kafka_message_destroy(self.0.as_ptr()) }
    }
}

/// A record, or an event of its partition when [`Message::error`] is not 0.
#[derive(Clone, Copy)]
pub(in crate::source) struct Message<'a>(&'a sys::rd_kafka_message_t);

impl<'a> Message<'a> {
    pub(super) fn new(message: &'a sys::rd_kafka_message_t) -> Self {
        Message(message)
    }

    pub fn error(&self) -> i32 {
        // SAFETY: a field of a live message.
        unsafe { read_code(&raw const self.0.err) }
    }

    /// What an event says, or librdkafka's words for its code.
    pub fn error_reason(&self) -> String {
        if self.0.payload.is_null() {
            words(self.error())
        } else {
            String::from_utf8_lossy(self.payload()).into_owned()
        }
    }

    /// Empty when an event is not about a topic.
    pub fn topic(&self) -> String {
        if self.0.rkt.is_null() {
            return String::new();
        }
        // SAFETY: the message holds a reference to its topic.
        unsafe { text(sys::rd_kafka_topic_name(self.0.rkt)) }
    }

    pub fn partition(&self) -> i32 {
        self.0.partition
    }

    pub fn offset(&self) -> i64 {
        self.0.offset
    }

    fn payload(&self) -> &'a [u8] {
        // SAFETY: not null, and `len` bytes long while the message lives.
        unsafe { slice::from_raw_parts(self.0.payload.cast(), self.0.len) }
    }

    /// `None` is a tombstone.
    pub fn value(&self) -> Option<&'a [u8]> {
        (!self.0.payload.is_null()).then(|| self.payload())
    }

    pub fn key(&self) -> Option<&'a [u8]> {
        // SAFETY: as for the payload.
        (!self.0.key.is_null()).then(|| unsafe { slice::from_raw_parts(self.0.key.cast(), self.0.key_len) })
    }

    /// Milliseconds since the epoch, and who stamped them.
    pub fn timestamp(&self) -> (i64, TimestampType) {
        let mut kind = sys::rd_kafka_timestamp_type_t::RD_KAFKA_TIMESTAMP_NOT_AVAILABLE;
        // SAFETY: live message.
        let millis = unsafe { sys::rd_kafka_message_timestamp(self.0, &mut kind) };
        match kind {
            sys::rd_kafka_timestamp_type_t::RD_KAFKA_TIMESTAMP_CREATE_TIME => (millis, TimestampType::CreateTime),
            sys::rd_kafka_timestamp_type_t::RD_KAFKA_TIMESTAMP_LOG_APPEND_TIME => {
                (millis, TimestampType::LogAppendTime)
            }
            sys::rd_kafka_timestamp_type_t::RD_KAFKA_TIMESTAMP_NOT_AVAILABLE => (0, TimestampType::NotAvailable),
        }
    }

    /// Calls `each` with every header in order: its name's bytes and its value. False when the record's headers
    /// cannot be parsed.
    pub fn headers(&self, mut each: impl FnMut(&[u8], Option<&[u8]>)) -> bool {
        if self.says_no_headers() {
            return true;
        }
        let mut headers = ptr::null_mut();
        // SAFETY: live message (librdkafka parses the headers into it, hence its mutable pointer); the headers stay
        // the message's.
        unsafe {
            let result = sys::rd_kafka_message_headers(ptr::from_ref(self.0).cast_mut(), &mut headers);
            match read_code(&result) {
                0 => {}
                code => return code == sys::rd_kafka_resp_err_t::RD_KAFKA_RESP_ERR__NOENT as i32,
            }
            for index in 0.. {
                let (mut name, mut value, mut size) = (ptr::null(), ptr::null(), 0);
                let result = sys::rd_kafka_header_get_all(headers, index, &mut name, &mut value, &mut size);
                if read_code(&result) != 0 {
                    break;
                }
                let name = std::ffi::CStr::from_ptr(name).to_bytes();
                let value = (!value.is_null()).then(|| slice::from_raw_parts(value.cast::<u8>(), size));
                each(name, value);
            }
        }
        true
    }

    /// Whether the log says right behind the value that there are no headers. False is no answer: then librdkafka is asked,
    /// which allocates twice to say the same.
    ///
    /// The value lies in the log's bytes, where a record of version 2 goes on with the number of its headers, one byte for
    /// none (Kafka's documentation, Record). Earlier versions have no headers, whatever comes next.
    fn says_no_headers(&self) -> bool {
        /// No processor that this runs on has smaller ones.
        const PAGE_BYTES: usize = 4096;
        let end = self.0.payload.cast::<u8>().wrapping_add(self.0.len);
        // An empty value lies elsewhere; and the next page need not be there.
        if self.0.len == 0 || self.0.payload.is_null() || (end as usize).is_multiple_of(PAGE_BYTES) {
            return false;
        }
        // SAFETY: on the page that the value ends on, which can be read. Should the log end with it, against the format,
        // the byte is anything: volatile, for that is for this code to know and not for the compiler.
        unsafe { end.read_volatile() == 0 }
    }
}
