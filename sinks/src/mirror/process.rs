//! Programs of the system: arguments as a list, never a shell; stopped with everything that they started.

use std::ffi::{OsStr, OsString};
use std::process::Stdio;
use std::time::{Duration, Instant};

use cdrvault_pipeline::context::Context;
use cdrvault_pipeline::error::{Error, Kind, Result};
use secrecy::{ExposeSecret as _, SecretString};
use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWriteExt as _};
use tokio::process::Command;

/// A program to be run once.
#[derive(Debug)]
pub(super) struct Program {
    name: &'static str,
    arguments: Vec<OsString>,
    secret: Option<(&'static str, SecretString)>,
    input: Vec<u8>,
    stall: Option<Duration>,
    utc: bool,
}

/// What a program came to.
#[derive(Debug)]
pub(super) struct Outcome {
    pub(super) status: i32,
    pub(super) output: Vec<u8>,
    /// The last part of what it complained of.
    pub(super) complaints: String,
}

/// More complaints than this are cut at their beginning. rdiff-backup may have one for each file.
const COMPLAINTS: usize = 4 << 20;

impl Program {
    pub(super) fn new(name: &'static str) -> Self {
        Self { name, arguments: Vec::new(), secret: None, input: Vec::new(), stall: None, utc: false }
    }

    pub(super) fn arg(mut self, argument: impl AsRef<OsStr>) -> Self {
        self.arguments.push(argument.as_ref().to_owned());
        self
    }

    pub(super) fn args(mut self, arguments: impl IntoIterator<Item = impl AsRef<OsStr>>) -> Self {
        self.arguments.extend(arguments.into_iter().map(|argument| argument.as_ref().to_owned()));
        self
    }

    /// A secret travels in the environment, which nobody else can read, and never among the arguments.
    pub(super) fn secret(mut self, name: &'static str, secret: SecretString) -> Self {
        self.secret = Some((name, secret));
        self
    }

    pub(super) fn input(mut self, input: Vec<u8>) -> Self {
        self.input = input;
        self
    }

    /// Has it tell times in UTC.
    pub(super) fn utc(mut self) -> Self {
        self.utc = true;
        self
    }

    /// Gives it up when it neither reads nor writes anything for so long.
    pub(super) fn stall(mut self, limit: Duration) -> Self {
        self.stall = Some(limit);
        self
    }

    /// Runs it to its end. When we are asked to stop, it is stopped.
    pub(super) async fn run(self, cx: &Context) -> Result<Outcome> {
        let name = self.name;
        let mut command = Command::new(name);
        command
            .args(&self.arguments)
            // Messages that can be understood by programs, and no questions.
            .env("LC_ALL", "C")
            .env_remove("SSH_ASKPASS")
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            // Its ssh ends with it.
            .process_group(0)
            .kill_on_drop(true);
        if self.utc {
            command.env("TZ", "UTC0");
        }
        if let Some((variable, secret)) = &self.secret {
            command.env(variable, secret.expose_secret());
        }
        let mut child = command.spawn().map_err(|error| {
            let made = Error::new(Kind::Config, format!("cannot run `{name}`")).with_source(error);
            made.hint(format!("install {name} on this machine"))
        })?;
        let _group = Group(child.id());
        let stalling = stalled(name, child.id(), self.stall);
        let (mut stdin, stdout, stderr) = (child.stdin.take(), child.stdout.take(), child.stderr.take());
        let input = self.input;
        let feeding = async {
            if let Some(mut stdin) = stdin.take() {
                // Who does not read to the end says so by its exit status.
                let _ = stdin.write_all(&input).await;
            }
        };
        let work = async {
            let (output, complaints, ()) = tokio::join!(read(stdout, usize::MAX), read(stderr, COMPLAINTS), feeding);
            let status =
                child.wait().await.map_err(|error| Error::failed(format!("`{name}` was lost")).with_source(error))?;
            Ok(Outcome {
                status: status.code().unwrap_or(-1),
                output,
                complaints: String::from_utf8_lossy(&complaints).into_owned(),
            })
        };
        let unless_stalled = async {
            tokio::select! {
                done = work => done,
                error = stalling => Err(error),
            }
        };
        cx.unless_cancelled(unless_stalled).await
    }
}

/// Ends with an error when a process has moved nothing for so long: the kernel counts what it reads and writes, proc(5).
/// Nothing ends where there is no limit, or nobody counts.
async fn stalled(name: &'static str, pid: Option<u32>, limit: Option<Duration>) -> Error {
    let (Some(pid), Some(limit)) = (pid, limit) else { return std::future::pending().await };
    let path = format!("/proc/{pid}/io");
    let mut last = (Instant::now(), String::new());
    loop {
        let Ok(moved) = tokio::fs::read_to_string(&path).await else { return std::future::pending().await };
        if moved != last.1 {
            last = (Instant::now(), moved);
        } else if last.0.elapsed() >= limit {
            let message = format!("`{name}` is given up: nothing moved for {} s", limit.as_secs());
            return Error::new(Kind::Transient, message)
                .hint("see whether the program on the other side is still at work; `ssh.stall-timeout` is the limit");
        }
        tokio::time::sleep(limit / 10).await;
    }
}

impl Outcome {
    /// Whether it complained of this; messages that are broken into lines count as one.
    pub(super) fn says(&self, text: &str) -> bool {
        let words: Vec<&str> = self.complaints.split_whitespace().collect();
        words.join(" ").contains(text)
    }
}

async fn read(from: Option<impl AsyncRead + Unpin>, most: usize) -> Vec<u8> {
    let mut all = Vec::new();
    let Some(mut from) = from else { return all };
    let mut buffer = vec![0; 16 << 10];
    while let Ok(count @ 1..) = from.read(&mut buffer).await {
        all.extend_from_slice(&buffer[..count]);
        if all.len() > most.saturating_mul(2) {
            all.drain(..all.len() - most);
        }
    }
    all
}

/// Kills a whole process group when it is dropped; one that has ended is not there any more.
struct Group(Option<u32>);

impl Drop for Group {
    fn drop(&mut self) {
        if let Some(pid) = self.0.and_then(|pid| i32::try_from(pid).ok()).and_then(rustix::process::Pid::from_raw) {
            let _ = rustix::process::kill_process_group(pid, rustix::process::Signal::KILL);
        }
    }
}
