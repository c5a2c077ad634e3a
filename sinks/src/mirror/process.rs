//! The programs that mirrors are made by.

use std::time::Duration;

use cdrvault_plugin::program::Program;

const STALLED: &str =
    "see whether the program on the other side is still running; `ssh.stall-timeout` says how long to wait";

/// A program whose messages can be understood by programs, and that asks nothing. It is given up when nothing moves for
/// so long.
pub(super) fn program(name: &str, stall: Duration) -> Program {
    Program::new(name).env("LC_ALL", "C").without("SSH_ASKPASS").with_complaints().stall(stall, STALLED)
}
