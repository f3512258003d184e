//! librdkafka's error codes. Kept as numbers: a broker may answer a code that this version does not know.

use std::ffi::{CStr, c_char};
use std::fmt;

use rdkafka_sys as sys;

/// The codes that the source tells apart.
pub(in crate::source) mod code {
    use rdkafka_sys::rd_kafka_resp_err_t as E;

    pub const PARTITION_EOF: i32 = E::RD_KAFKA_RESP_ERR__PARTITION_EOF as i32;
    pub const AUTO_OFFSET_RESET: i32 = E::RD_KAFKA_RESP_ERR__AUTO_OFFSET_RESET as i32;
    pub const OFFSET_OUT_OF_RANGE: i32 = E::RD_KAFKA_RESP_ERR_OFFSET_OUT_OF_RANGE as i32;
    pub const UNKNOWN_TOPIC_OR_PART: i32 = E::RD_KAFKA_RESP_ERR_UNKNOWN_TOPIC_OR_PART as i32;
    pub const UNKNOWN_TOPIC: i32 = E::RD_KAFKA_RESP_ERR__UNKNOWN_TOPIC as i32;
    pub const UNKNOWN_PARTITION: i32 = E::RD_KAFKA_RESP_ERR__UNKNOWN_PARTITION as i32;
    pub const TOPIC_AUTHORIZATION_FAILED: i32 = E::RD_KAFKA_RESP_ERR_TOPIC_AUTHORIZATION_FAILED as i32;
    pub const GROUP_AUTHORIZATION_FAILED: i32 = E::RD_KAFKA_RESP_ERR_GROUP_AUTHORIZATION_FAILED as i32;
    pub const INVALID_TOPIC: i32 = E::RD_KAFKA_RESP_ERR_TOPIC_EXCEPTION as i32;
    pub const FENCED_INSTANCE_ID: i32 = E::RD_KAFKA_RESP_ERR_FENCED_INSTANCE_ID as i32;
    /// Fatal; which error it is must be asked.
    pub const FATAL: i32 = E::RD_KAFKA_RESP_ERR__FATAL as i32;
    pub const BAD_MESSAGE: i32 = E::RD_KAFKA_RESP_ERR__BAD_MSG as i32;
    pub const BAD_COMPRESSION: i32 = E::RD_KAFKA_RESP_ERR__BAD_COMPRESSION as i32;
    /// A codec that this build does not have.
    pub const NOT_IMPLEMENTED: i32 = E::RD_KAFKA_RESP_ERR__NOT_IMPLEMENTED as i32;
    pub const MESSAGE_SIZE_TOO_LARGE: i32 = E::RD_KAFKA_RESP_ERR_MSG_SIZE_TOO_LARGE as i32;
    pub const ALL_BROKERS_DOWN: i32 = E::RD_KAFKA_RESP_ERR__ALL_BROKERS_DOWN as i32;
    pub const TRANSPORT: i32 = E::RD_KAFKA_RESP_ERR__TRANSPORT as i32;
    pub const RESOLVE: i32 = E::RD_KAFKA_RESP_ERR__RESOLVE as i32;
    pub const TIMED_OUT: i32 = E::RD_KAFKA_RESP_ERR__TIMED_OUT as i32;
    pub const AUTHENTICATION: i32 = E::RD_KAFKA_RESP_ERR__AUTHENTICATION as i32;
    pub const SSL: i32 = E::RD_KAFKA_RESP_ERR__SSL as i32;
    pub const ASSIGN_PARTITIONS: i32 = E::RD_KAFKA_RESP_ERR__ASSIGN_PARTITIONS as i32;
}

/// An error code of librdkafka with its words.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(in crate::source) struct NativeError {
    pub code: i32,
    pub reason: String,
}

impl NativeError {
    pub fn new(code: i32, reason: impl Into<String>) -> Self {
        NativeError { code, reason: reason.into() }
    }

    /// Takes over an error object; `None` when it is null, which means success.
    ///
    /// # Safety
    /// `error` is null or a live error object that nobody else will destroy.
    pub(super) unsafe fn take(error: *mut sys::rd_kafka_error_t) -> Option<Self> {
        if error.is_null() {
            return None;
        }
        unsafe {
            let code = read_code(&sys::rd_kafka_error_code(error));
            let reason = text(sys::rd_kafka_error_string(error));
            sys::rd_kafka_error_destroy(error);
            Some(NativeError { code, reason })
        }
    }

    /// Whether the broker knows no such topic, or not yet.
    pub fn is_unknown_topic(&self) -> bool {
        matches!(self.code, code::UNKNOWN_TOPIC_OR_PART | code::UNKNOWN_TOPIC)
    }

    /// Whether only the way to the broker is at fault, so that it may work later.
    pub fn is_transport(&self) -> bool {
        matches!(self.code, code::TRANSPORT | code::ALL_BROKERS_DOWN | code::RESOLVE | code::TIMED_OUT)
            || !(-200..=200).contains(&self.code)
    }
}

impl fmt::Display for NativeError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.reason)
    }
}

impl std::error::Error for NativeError {}

/// The code that a pointer to an enum field holds, read as the number it is.
///
/// # Safety
/// `code` is valid for reads.
pub(super) unsafe fn read_code(code: *const sys::rd_kafka_resp_err_t) -> i32 {
    unsafe { code.cast::<i32>().read() }
}

/// A copy of a C string; empty when null.
///
/// # Safety
/// `string` is null or points to a terminated string.
pub(super) unsafe fn text(string: *const c_char) -> String {
    if string.is_null() { String::new() } else { unsafe { CStr::from_ptr(string) }.to_string_lossy().into_owned() }
}

/// librdkafka's words for a code.
pub(super) fn words(code: i32) -> String {
    // SAFETY: the enum is `repr(i32)` and the function takes any number (unknown ones get "Err-<n>?").
    let err2str: unsafe extern "C" fn(i32) -> *const c_char = unsafe {
        std::mem::transmute(sys::rd_kafka_err2str as unsafe extern "C" fn(sys::rd_kafka_resp_err_t) -> *const c_char)
    };
    unsafe { text(err2str(code)) }
}
