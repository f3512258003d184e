//! A list of partitions with offsets, as librdkafka wants it.

use std::ffi::CString;

use rdkafka_sys as sys;

use super::error::{NativeError, read_code, text};

#[derive(Debug)]
pub(in crate::source) struct Offsets(*mut sys::rd_kafka_topic_partition_list_t);

// SAFETY: a plain, owned structure.
unsafe impl Send for Offsets {}

impl Offsets {
    pub fn new() -> Self {
        // SAFETY: no preconditions; never null.
        Offsets(unsafe { sys::rd_kafka_topic_partition_list_new(8) })
    }

    pub fn add(&mut self, topic: &str, partition: i32, offset: Option<i64>) -> Result<(), NativeError> {
        let topic = CString::new(topic)
            .map_err(|_| NativeError::new(0, format!("topic name {topic:?} contains a zero byte")))?;
        // SAFETY: live list; the new element stays valid until the next change of the list.
        unsafe {
            let element = sys::rd_kafka_topic_partition_list_add(self.0, topic.as_ptr(), partition);
            if let Some(offset) = offset {
                (*element).offset = offset;
            }
        }
        Ok(())
    }

    pub(super) fn as_ptr(&self) -> *mut sys::rd_kafka_topic_partition_list_t {
        self.0
    }

    /// # Safety
    /// `list` is valid for reads during the call.
    pub(super) unsafe fn read_partitions(list: *const sys::rd_kafka_topic_partition_list_t) -> Vec<(String, i32)> {
        unsafe { elements(list).map(|element| (text((*element).topic), (*element).partition)).collect() }
    }
}

/// # Safety
/// `list` stays valid while the iterator is used.
unsafe fn elements(
    list: *const sys::rd_kafka_topic_partition_list_t,
) -> impl Iterator<Item = *const sys::rd_kafka_topic_partition_t> {
    let (first, count) = unsafe { ((*list).elems, (*list).cnt.max(0) as usize) };
    (0..count).map(move |index| unsafe { first.add(index).cast_const() })
}

/// `(partition, offset)` of an element, or its error code.
///
/// # Safety
/// `element` is valid for reads.
pub(super) unsafe fn partition_offset(element: *const sys::rd_kafka_topic_partition_t) -> (i32, Result<i64, i32>) {
    unsafe {
        match read_code(&raw const (*element).err) {
            0 => ((*element).partition, Ok((*element).offset)),
            code => ((*element).partition, Err(code)),
        }
    }
}

impl Drop for Offsets {
    fn drop(&mut self) {
        // SAFETY: owned.
        unsafe { sys::rd_kafka_topic_partition_list_destroy(self.0) }
    }
}
