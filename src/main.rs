//! The command. Everything is in the library, where tests and benchmarks reach it too.

fn main() -> std::process::ExitCode {
    limit_arenas();
    cdrvault::cli::main()
}

/// Rows pass from thread to thread, and glibc keeps what was freed in the arena that it came from: with one for each
/// thread, an export holds twice the memory that it needs.
#[cfg(all(target_os = "linux", target_env = "gnu"))]
#[expect(unsafe_code, reason = "mallopt has no safe form")]
fn limit_arenas() {
    // SAFETY: it takes two numbers, and no other thread runs yet.
    unsafe { libc::mallopt(libc::M_ARENA_MAX, 2) };
}

#[cfg(not(all(target_os = "linux", target_env = "gnu")))]
fn limit_arenas() {}
