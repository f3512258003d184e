//! A member's place in the group, which its next life takes over at once.
//!
//! A group waits for a member that died until its session is over, ten seconds. A static member (KIP-345) spares that:
//! who comes back under the same `group.instance.id` gets what it had. So that nobody has to invent such ids, each
//! member takes a seat on its machine: the first free number among the daemons of the same group and topics, held by a
//! socket's name, which the kernel frees when the process ends in whatever way. A daemon that was stopped, not killed,
//! still holds its seat, and two daemons configured alike have two.
//!
//! The id says which machine (its boot, and the host's name, which tells containers apart), group, topics and number.
//! Topics, because a broker gives a returning member its old assignment, whatever it subscribes to now. Should two
//! members have the same id all the same (containers of one machine that were given one host name), the broker shuts
//! out the first, which then joins again without an id.

use sha2::{Digest, Sha256};

/// So many members of one group and one set of topics have seats on one machine; further ones have none.
const SEATS: usize = 64;

/// Held as long as the value lives.
#[derive(Debug)]
pub(super) struct Seat {
    /// The `group.instance.id`.
    pub id: String,
    #[cfg(target_os = "linux")]
    _name: std::os::unix::net::UnixListener,
}

impl Seat {
    /// The first free seat; `None` where the system has no names that go with their process.
    #[cfg(target_os = "linux")]
    pub fn take(group: &str, bootstrap_servers: &str, topics: &[String]) -> Option<Seat> {
        use std::os::linux::net::SocketAddrExt;
        use std::os::unix::net::{SocketAddr, UnixListener};

        let of_kernel = |name| std::fs::read_to_string(format!("/proc/sys/kernel/{name}")).ok();
        let machine = [of_kernel("random/boot_id")?, of_kernel("hostname")?];
        let mut topics = topics.to_vec();
        topics.sort();
        let mut hash = Sha256::new();
        let words = machine.iter().map(String::as_str).chain([group, bootstrap_servers]);
        for word in words.chain(topics.iter().map(String::as_str)) {
            hash.update(word.trim().as_bytes());
            hash.update([0]);
        }
        let digest: String = hash.finalize().iter().take(10).map(|byte| format!("{byte:02x}")).collect();
        (0..SEATS).find_map(|number| {
            let id = format!("calve-{digest}-{number}");
            let address = SocketAddr::from_abstract_name(&id).ok()?;
            Some(Seat { _name: UnixListener::bind_addr(&address).ok()?, id })
        })
    }

    #[cfg(not(target_os = "linux"))]
    pub fn take(_group: &str, _bootstrap_servers: &str, _topics: &[String]) -> Option<Seat> {
        None
    }
}

#[cfg(all(test, target_os = "linux"))]
mod tests {
    use super::*;

    #[test]
    fn a_seat_is_free_again_when_its_holder_is_gone() {
        let group = format!("g{}", rand::random::<u64>());
        let take = |topics: &[&str]| {
            let topics: Vec<String> = topics.iter().map(ToString::to_string).collect();
            Seat::take(&group, "127.0.0.1:1", &topics).unwrap()
        };
        let (first, second) = (take(&["a", "b"]), take(&["b", "a"]));
        assert!(first.id.ends_with("-0") && second.id.ends_with("-1"), "{first:?} {second:?}");
        let id = first.id.clone();
        drop(first);
        assert_eq!(take(&["a", "b"]).id, id);
        assert_ne!(take(&["a"]).id, id, "of other topics");
        drop(second);
    }
}
