use std::process::ExitCode;

#[global_allocator]
static ALLOCATOR: tikv_jemallocator::Jemalloc = tikv_jemallocator::Jemalloc;

/// What is freed goes back to the system within half a second, so that `memory_limit` means something: row groups, pages
/// and columns are large, and freed on other threads than they were made on. If it went sooner, it would be faulted in
/// again by what comes next.
#[cfg_attr(all(target_os = "linux", target_env = "gnu"), unsafe(export_name = "malloc_conf"))]
#[cfg_attr(not(all(target_os = "linux", target_env = "gnu")), unsafe(export_name = "_rjem_malloc_conf"))]
pub static ALLOCATOR_OPTIONS: &[u8] = b"background_thread:true,narenas:4,dirty_decay_ms:400,muzzy_decay_ms:0\0";

fn main() -> ExitCode {
    #[cfg(target_os = "linux")]
    refuse_large_pages();
    #[cfg(feature = "failpoints")]
    arm_failpoints();
    calve::cli::main()
}

/// Of a page of 2 MiB one byte in use keeps all.
#[cfg(target_os = "linux")]
fn refuse_large_pages() {
    // SAFETY: no memory is passed. Where the kernel knows no such pages, nothing is lost.
    unsafe { libc::prctl(libc::PR_SET_THP_DISABLE, 1, 0, 0, 0) };
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
