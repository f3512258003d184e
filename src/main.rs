use std::process::ExitCode;

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

fn main() -> ExitCode {
    #[cfg(feature = "failpoints")]
    arm_failpoints();
    calve::cli::main()
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
