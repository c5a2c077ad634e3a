//! The command. Everything is in the library, where tests and benchmarks reach it too.

fn main() -> std::process::ExitCode {
    cdrvault::cli::main()
}
