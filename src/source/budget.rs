//! The bytes that raw batches of all topics may hold together, shared so that no topic can starve another.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError, Weak};

use crate::batch::Permit;

use super::inbox::Inbox;

/// A limit in bytes over all topics' [`Account`]s.
///
/// Taking never waits, because the bytes are already in memory when they are counted; instead a topic is not read
/// from while its account is crowded. An account is crowded when it holds more than twice what is still free: so one
/// stuck topic ends at two thirds of the limit, n stuck topics together leave 1/(2n+1) of it free for the others
/// (dynamic thresholds of Choudhury and Hahne, as switches share packet memory between ports).
#[derive(Clone, Debug)]
pub struct Budget {
    shared: Arc<Shared>,
}

#[derive(Debug)]
struct Shared {
    limit_bytes: u64,
    used_bytes: AtomicU64,
    /// Poll threads that may wait for bytes to come back.
    waiters: Mutex<Vec<Weak<Inbox>>>,
}

impl Budget {
    /// Half of `limit_bytes` is for batches, half for what librdkafka prefetches.
    pub fn new(limit_bytes: u64) -> Self {
        let shared =
            Shared { limit_bytes: limit_bytes.max(1), used_bytes: AtomicU64::new(0), waiters: Mutex::new(Vec::new()) };
        Budget { shared: Arc::new(shared) }
    }

    pub fn limit_bytes(&self) -> u64 {
        self.shared.limit_bytes
    }

    /// Bytes held by batches of all topics now.
    pub fn used_bytes(&self) -> u64 {
        self.shared.used_bytes.load(Ordering::Relaxed)
    }

    /// A new account, of one topic or one reader.
    pub fn account(&self) -> Account {
        Account { budget: self.clone(), held_bytes: Arc::new(AtomicU64::new(0)) }
    }

    /// What librdkafka may prefetch for all topics together.
    pub(super) fn prefetch_bytes(&self) -> u64 {
        self.shared.limit_bytes / 2
    }

    fn batches_bytes(&self) -> u64 {
        self.shared.limit_bytes - self.prefetch_bytes()
    }

    pub(super) fn wake_on_release(&self, inbox: &Arc<Inbox>) {
        let mut waiters = self.shared.waiters.lock().unwrap_or_else(PoisonError::into_inner);
        waiters.retain(|waiter| waiter.strong_count() > 0);
        waiters.push(Arc::downgrade(inbox));
    }
}

/// One topic's part of a [`Budget`].
#[derive(Clone, Debug)]
pub struct Account {
    budget: Budget,
    held_bytes: Arc<AtomicU64>,
}

impl Account {
    /// Counts `bytes` as held until the permit is dropped.
    pub fn take(&self, bytes: u64) -> Permit {
        self.held_bytes.fetch_add(bytes, Ordering::Relaxed);
        self.budget.shared.used_bytes.fetch_add(bytes, Ordering::Relaxed);
        Permit::new(Held { account: self.clone(), bytes })
    }

    pub fn held_bytes(&self) -> u64 {
        self.held_bytes.load(Ordering::Relaxed)
    }

    /// Whether this account has had its share, and must give back before it takes more.
    pub fn is_crowded(&self) -> bool {
        let free = self.budget.batches_bytes().saturating_sub(self.budget.used_bytes());
        let held = self.held_bytes();
        // An account that holds nothing may always take one batch: else a full budget could stand still for ever.
        held > 0 && held >= free.saturating_mul(2)
    }
}

struct Held {
    account: Account,
    bytes: u64,
}

impl Drop for Held {
    fn drop(&mut self) {
        self.account.held_bytes.fetch_sub(self.bytes, Ordering::Relaxed);
        let shared = &self.account.budget.shared;
        shared.used_bytes.fetch_sub(self.bytes, Ordering::Relaxed);
        for waiter in shared.waiters.lock().unwrap_or_else(PoisonError::into_inner).iter() {
            if let Some(inbox) = waiter.upgrade() {
                inbox.space();
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_permit_gives_back_when_its_last_clone_is_dropped() {
        let budget = Budget::new(2_000);
        let account = budget.account();
        let permit = account.take(300);
        let clone = permit.clone();
        drop(permit);
        assert_eq!((account.held_bytes(), budget.used_bytes()), (300, 300));
        drop(clone);
        assert_eq!((account.held_bytes(), budget.used_bytes()), (0, 0));
    }

    #[test]
    fn stuck_topics_leave_room_for_the_others() {
        let budget = Budget::new(2_000_000);
        let stuck: Vec<_> = (0..5).map(|_| budget.account()).collect();
        let mut permits = Vec::new();
        loop {
            let before = permits.len();
            permits.extend(stuck.iter().filter(|account| !account.is_crowded()).map(|account| account.take(100)));
            if permits.len() == before {
                break;
            }
        }
        let free = 1_000_000 - budget.used_bytes();
        assert!(free >= 1_000_000 / 11 - 500, "five stuck topics left {free} bytes");
        assert!(!budget.account().is_crowded());
    }

    #[test]
    fn a_batch_larger_than_the_budget_passes_alone() {
        let account = Budget::new(100).account();
        assert!(!account.is_crowded());
        let permit = account.take(5_000);
        assert!(account.is_crowded());
        drop(permit);
        assert!(!account.is_crowded());
    }
}
