use std::process::ExitCode;

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

fn main() -> ExitCode {
    give_memory_back();
    #[cfg(feature = "failpoints")]
    arm_failpoints();
    calve::cli::main()
}

/// mimalloc asks for pages of 2 MiB, of which one byte in use keeps all, and keeps for a second what was freed: twice as
/// much memory, measured under a small `memory_limit`, for no time that could be measured.
fn give_memory_back() {
    /// `mi_option_purge_delay` of mimalloc.h, which the crate does not name.
    const PURGE_DELAY: libmimalloc_sys::mi_option_t = 15;
    // SAFETY: no other thread runs yet.
    unsafe { libmimalloc_sys::mi_option_set(PURGE_DELAY, 0) };
    #[cfg(target_os = "linux")]
    // SAFETY: no memory is passed. Where the kernel knows no such pages, nothing is lost.
    unsafe {
        libc::prctl(libc::PR_SET_THP_DISABLE, 1, 0, 0, 0)
    };
}

/// `CALVE_KILL_AT=commit::sent@2` ends the process, as kill -9 would, the third time that it comes to that stage edge.
#[cfg(feature = "failpoints")]
fn arm_failpoints() {
    use std::sync::atomic::{AtomicUsize, Ordering};

    let Ok(place) = std::env::var("CALVE_KILL_AT") else { return };
    let (name, passed) = place.split_once('@').unwrap_or((&place, "0"));
    let left = AtomicUsize::new(passed.parse().expect("CALVE_KILL_AT is NAME@TIMES"));
    let die = move || {
        if left.fetch_update(Ordering::SeqCst, Ordering::SeqCst, |left| left.checked_sub(1)).is_err() {
            std::process::abort();
        }
    };
    fail::cfg_callback(name, die).expect("the failpoint can be armed");
}
