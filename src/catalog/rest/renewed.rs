//! A value that expires (a token, vended keys), asked for anew in time by whoever needs it first.
//!
//! One asks at a time. While the old value is still good, the others go on with it, and so do all if asking fails.

use std::future::Future;
use std::sync::{Mutex, MutexGuard};
use std::time::{Duration, SystemTime};

/// How long before its end a value is renewed: a third of its life, and no more than this.
const MARGIN_MAX: Duration = Duration::from_secs(300);
/// How long after a failure, at most, it is asked for again while the old one is good.
const AGAIN_MAX: Duration = Duration::from_secs(30);

#[derive(Debug)]
pub(super) struct Renewed<T> {
    held: Mutex<Option<Held<T>>>,
    asking: tokio::sync::Mutex<()>,
}

impl<T> Default for Renewed<T> {
    fn default() -> Self {
        Renewed { held: Mutex::new(None), asking: tokio::sync::Mutex::new(()) }
    }
}

#[derive(Clone, Debug)]
struct Held<T> {
    value: T,
    /// Counts the values, so that a complaint about one is not taken for one about its successor.
    number: u64,
    renew_at: Option<SystemTime>,
    expires_at: Option<SystemTime>,
}

impl<T: Clone> Renewed<T> {
    /// A value that was given without being asked for. `None`: it never expires.
    pub(super) fn put(&self, value: T, expires_at: Option<SystemTime>) {
        let mut held = self.lock();
        let number = held.as_ref().map_or(0, |held| held.number) + 1;
        let now = SystemTime::now();
        let renew_at = expires_at.map(|end| {
            let left = end.duration_since(now).unwrap_or_default();
            end - (left / 3).min(MARGIN_MAX)
        });
        *held = Some(Held { value, number, renew_at, expires_at });
    }

    /// The value of this number is not good any more, whatever its time says.
    pub(super) fn expire(&self, number: u64) {
        if let Some(held) = self.lock().as_mut().filter(|held| held.number == number) {
            (held.renew_at, held.expires_at) = (Some(SystemTime::UNIX_EPOCH), Some(SystemTime::UNIX_EPOCH));
        }
    }

    /// What is held, good or not.
    pub(super) fn last(&self) -> Option<T> {
        self.lock().as_ref().map(|held| held.value.clone())
    }

    /// A good value, with its number. `ask` is only awaited where there is none or its end is near; what it says on a
    /// failure that can be got over goes to `complain`.
    pub(super) async fn get<E>(
        &self,
        ask: impl Future<Output = Result<(T, Option<SystemTime>), E>>,
        complain: impl Fn(&E),
    ) -> Result<(u64, T), E> {
        if let Some(found) = self.found(false) {
            return Ok(found);
        }
        let _one = match self.asking.try_lock() {
            Ok(one) => one,
            Err(_) => {
                // Somebody is asking.
                if let Some(found) = self.found(true) {
                    return Ok(found);
                }
                self.asking.lock().await
            }
        };
        if let Some(found) = self.found(false) {
            return Ok(found);
        }
        match ask.await {
            Ok((value, expires_at)) => {
                self.put(value.clone(), expires_at);
                let number = self.lock().as_ref().map_or(0, |held| held.number);
                Ok((number, value))
            }
            Err(error) => match self.found(true) {
                Some(found) => {
                    complain(&error);
                    self.postpone();
                    Ok(found)
                }
                None => Err(error),
            },
        }
    }

    /// What is held, if it needs no renewal, or, where one is under way, if it is still good.
    fn found(&self, under_way: bool) -> Option<(u64, T)> {
        let held = self.lock();
        let held = held.as_ref()?;
        let end = if under_way { held.expires_at } else { held.renew_at };
        let good = end.is_none_or(|end| SystemTime::now() < end);
        good.then(|| (held.number, held.value.clone()))
    }

    fn postpone(&self) {
        if let Some(held) = self.lock().as_mut()
            && let Some(end) = held.expires_at
        {
            let now = SystemTime::now();
            let left = end.duration_since(now).unwrap_or_default();
            held.renew_at = Some(now + (left / 4).min(AGAIN_MAX));
        }
    }

    fn lock(&self) -> MutexGuard<'_, Option<Held<T>>> {
        self.held.lock().unwrap_or_else(|poisoned| poisoned.into_inner())
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;
    use std::sync::atomic::{AtomicU32, Ordering};

    use super::*;

    fn soon(millis: u64) -> Option<SystemTime> {
        Some(SystemTime::now() + Duration::from_millis(millis))
    }

    #[tokio::test]
    async fn many_that_need_it_ask_once() {
        let renewed = Arc::new(Renewed::default());
        let asked = Arc::new(AtomicU32::new(0));
        let mut all = tokio::task::JoinSet::new();
        for _ in 0..20 {
            let (renewed, asked) = (renewed.clone(), asked.clone());
            all.spawn(async move {
                let ask = async {
                    tokio::time::sleep(Duration::from_millis(30)).await;
                    Ok::<_, ()>((asked.fetch_add(1, Ordering::SeqCst) + 1, soon(60_000)))
                };
                renewed.get(ask, |()| {}).await
            });
        }
        while let Some(got) = all.join_next().await {
            assert_eq!(got.unwrap(), Ok((1, 1)));
        }
        assert_eq!(asked.load(Ordering::SeqCst), 1);
    }

    #[tokio::test]
    async fn a_value_is_renewed_before_its_end_and_kept_while_that_fails() {
        let renewed = Renewed::default();
        let never = async { Err::<(&str, _), _>("not needed") };
        renewed.put("old", soon(900));
        assert_eq!(renewed.get(never, |_| panic!()).await, Ok((1, "old")));
        tokio::time::sleep(Duration::from_millis(650)).await;
        // Two thirds of its life are over.
        let complaints = AtomicU32::new(0);
        let complain = |_: &&str| {
            complaints.fetch_add(1, Ordering::SeqCst);
        };
        assert_eq!(renewed.get(async { Err("down") }, complain).await, Ok((1, "old")));
        assert_eq!(complaints.load(Ordering::SeqCst), 1);
        tokio::time::sleep(Duration::from_millis(260)).await;
        assert_eq!(renewed.get(async { Err("down") }, complain).await, Err("down"));
        assert_eq!(renewed.get(async { Ok(("new", None)) }, complain).await, Ok((2, "new")));
        // A complaint about the old one comes late.
        renewed.expire(1);
        assert_eq!(renewed.get(async { Err("not needed") }, |_| panic!()).await, Ok((2, "new")));
        renewed.expire(2);
        assert_eq!(renewed.get(async { Ok(("newer", None)) }, complain).await, Ok((3, "newer")));
    }
}
