//! Programs that we start: arguments as a list, never a shell; a limit for each, and nothing that outlives it.
//!
//! A program gets a process group of its own. At its limit, and when we are asked to stop, the whole group is ended: first
//! politely, so that it can put its files in order, then at once. A program has ended when it has ended itself: a child
//! that it left behind may hold its output open for as long as it likes, and is not waited for.

use std::collections::BTreeSet;
use std::ffi::{OsStr, OsString};
use std::io::{self, Read as _};
use std::process::{ExitStatus, Stdio};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::process::{Pid, Signal, kill_process_group};
use secrecy::{ExposeSecret as _, SecretString};
use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWriteExt as _};
use tokio_util::sync::CancellationToken;

use crate::context::Context;
use cdrvault_format::error::{Error, Kind, Result};

/// How long a group may take to end after it was asked to.
const GRACE: Duration = Duration::from_secs(2);

/// How long the output of a program is waited for that has ended.
const LINGER: Duration = Duration::from_secs(2);

/// Between two looks at a program, where nothing wakes us.
const LOOK: Duration = Duration::from_millis(50);

/// More complaints than this are cut at their beginning. rdiff-backup may have one for each file.
const COMPLAINTS: usize = 4 << 20;

/// A program to be run once.
#[derive(Debug)]
pub struct Program {
    name: OsString,
    arguments: Vec<OsString>,
    set: Vec<(&'static str, SecretString)>,
    unset: Vec<&'static str>,
    input: Vec<u8>,
    most: usize,
    complaints: bool,
    limit: Option<Duration>,
    stall: Option<(Duration, &'static str)>,
    leaves_children: bool,
}

/// What a program came to.
#[derive(Debug)]
pub struct Outcome {
    /// How it ended.
    pub status: ExitStatus,
    /// What it wrote.
    pub output: Vec<u8>,
    /// The last part of what it complained of, where that was asked for.
    pub complaints: String,
}

impl Program {
    /// A program by its path, or by its name, which is looked up in `PATH`.
    pub fn new(name: impl AsRef<OsStr>) -> Self {
        Self {
            name: name.as_ref().to_owned(),
            arguments: Vec::new(),
            set: Vec::new(),
            unset: Vec::new(),
            input: Vec::new(),
            most: usize::MAX,
            complaints: false,
            limit: None,
            stall: None,
            leaves_children: false,
        }
    }

    /// Adds an argument.
    #[must_use]
    pub fn arg(mut self, argument: impl AsRef<OsStr>) -> Self {
        self.arguments.push(argument.as_ref().to_owned());
        self
    }

    /// Adds arguments.
    #[must_use]
    pub fn args(mut self, arguments: impl IntoIterator<Item = impl AsRef<OsStr>>) -> Self {
        self.arguments.extend(arguments.into_iter().map(|argument| argument.as_ref().to_owned()));
        self
    }

    /// A variable of its environment, which nobody else can read: there secrets travel, and never among the arguments.
    #[must_use]
    pub fn env(mut self, name: &'static str, value: impl Into<SecretString>) -> Self {
        self.set.push((name, value.into()));
        self
    }

    /// Takes a variable out of its environment.
    #[must_use]
    pub fn without(mut self, name: &'static str) -> Self {
        self.unset.push(name);
        self
    }

    /// What it reads; nothing by default.
    #[must_use]
    pub fn input(mut self, input: Vec<u8>) -> Self {
        self.input = input;
        self
    }

    /// Ends it when it writes more bytes than these.
    #[must_use]
    pub fn at_most(mut self, bytes: usize) -> Self {
        self.most = bytes;
        self
    }

    /// Gathers its complaints, which otherwise go where ours go.
    #[must_use]
    pub fn with_complaints(mut self) -> Self {
        self.complaints = true;
        self
    }

    /// Ends it after so long.
    #[must_use]
    pub fn limit(mut self, limit: Duration) -> Self {
        self.limit = Some(limit);
        self
    }

    /// Ends it when it has neither read nor written anything for so long. `hint` says what to do then.
    #[must_use]
    pub fn stall(mut self, limit: Duration, hint: &'static str) -> Self {
        self.stall = Some((limit, hint));
        self
    }

    /// What it leaves behind when it ends by itself may go on: an agent, or a letter that is being sent.
    #[must_use]
    pub fn leaves_children(mut self) -> Self {
        self.leaves_children = true;
        self
    }

    /// For messages. Not the arguments: people put tokens there.
    pub fn name(&self) -> String {
        self.name.to_string_lossy().into_owned()
    }

    fn command(&self) -> std::process::Command {
        use std::os::unix::process::CommandExt as _;
        let mut command = std::process::Command::new(&self.name);
        command.args(&self.arguments).process_group(0);
        command.stdin(if self.input.is_empty() { Stdio::null() } else { Stdio::piped() });
        command.stdout(if self.most == 0 { Stdio::null() } else { Stdio::piped() });
        if self.complaints {
            command.stderr(Stdio::piped());
        }
        for (name, value) in &self.set {
            command.env(name, value.expose_secret());
        }
        for name in &self.unset {
            command.env_remove(name);
        }
        command
    }

    fn cannot_run(&self, error: io::Error) -> Error {
        let name = self.name();
        let hint = match error.kind() {
            io::ErrorKind::NotFound => format!("install {name} on this machine, or correct PATH: cron has a short one"),
            _ => format!("see whether this account may run {name}"),
        };
        Error::new(Kind::Config, format!("cannot run `{name}`")).with_source(error).hint(hint)
    }

    fn too_slow(&self, limit: Duration) -> Error {
        Error::new(Kind::Transient, format!("`{}` took longer than {} s and was stopped", self.name(), limit.as_secs()))
    }

    fn too_much(&self) -> Error {
        Error::failed(format!("`{}` writes more than {} bytes", self.name(), self.most))
    }

    fn lost(&self, error: io::Error) -> Error {
        Error::failed(format!("`{}` was lost", self.name())).with_source(error)
    }

    /// Runs it to its end, or until we are asked to stop.
    pub async fn run(self, cx: &Context) -> Result<Outcome> {
        self.run_unless(&cx.cancel).await
    }

    /// The same, for those who have to do something when the rest was stopped.
    pub async fn run_unless(self, cancelled: &CancellationToken) -> Result<Outcome> {
        let mut command = tokio::process::Command::from(self.command());
        let mut child = command.kill_on_drop(true).spawn().map_err(|error| self.cannot_run(error))?;
        let pid = child.id();
        let mut group = Group::of(pid);
        let ended = {
            let (output, complaints) = (Mutex::default(), Mutex::default());
            let (mut stdin, stdout, stderr) = (child.stdin.take(), child.stdout.take(), child.stderr.take());
            let feeding = async {
                if let Some(mut stdin) = stdin.take() {
                    // Who does not read to the end says so by its exit status.
                    let _ = stdin.write_all(&self.input).await;
                }
            };
            let reading = async {
                tokio::join!(gather(stdout, &output, self.most, false), gather(stderr, &complaints, COMPLAINTS, true))
            };
            let work = async {
                let mut moving = Box::pin(async { tokio::join!(reading, feeding) });
                let status = tokio::select! {
                    status = child.wait() => {
                        let _ = tokio::time::timeout(LINGER, &mut moving).await;
                        status
                    }
                    ((whole, _), ()) = &mut moving => {
                        if !whole {
                            return Err(self.too_much());
                        }
                        child.wait().await
                    }
                };
                status.map_err(|error| self.lost(error))
            };
            let slow = async {
                match self.limit {
                    Some(limit) => {
                        tokio::time::sleep(limit).await;
                        self.too_slow(limit)
                    }
                    None => std::future::pending().await,
                }
            };
            let done = tokio::select! {
                done = work => done,
                error = slow => Err(error),
                error = self.stalled(pid) => Err(error),
                () = cancelled.cancelled() => Err(Error::interrupted()),
            };
            done.and_then(|status| {
                let output = into_inner(output);
                // It may have ended before all of it was read.
                if output.len() > self.most {
                    return Err(self.too_much());
                }
                let complaints = String::from_utf8_lossy(&into_inner(complaints)).into_owned();
                Ok(Outcome { status, output, complaints })
            })
        };
        match &ended {
            Ok(_) if self.leaves_children => group.release(),
            Ok(_) => {}
            Err(_) => {
                group.signal(Signal::TERM);
                let _ = tokio::time::timeout(GRACE, child.wait()).await;
            }
        }
        ended
    }

    /// The same for those who may block, and have nothing to be read or complained of. Asked to stop, by [`stop`], it ends
    /// as well.
    pub fn run_blocking(self) -> Result<Outcome> {
        let mut child = self.command().spawn().map_err(|error| self.cannot_run(error))?;
        let mut group = Group::of(Some(child.id()));
        let ended = self.attend(&mut child);
        match &ended {
            Ok(_) if self.leaves_children => group.release(),
            Ok(_) => {}
            Err(_) => {
                group.signal(Signal::TERM);
                let asked = Instant::now();
                while asked.elapsed() < GRACE && matches!(child.try_wait(), Ok(None)) {
                    std::thread::sleep(LOOK);
                }
                drop(group);
                let _ = child.wait();
            }
        }
        ended
    }

    fn attend(&self, child: &mut std::process::Child) -> Result<Outcome> {
        let began = Instant::now();
        let (mut output, mut bytes) = (child.stdout.take(), Vec::new());
        let mut exited: Option<(ExitStatus, Instant)> = None;
        loop {
            if exited.is_none()
                && let Some(status) = child.try_wait().map_err(|error| self.lost(error))?
            {
                exited = Some((status, Instant::now()));
            }
            if let Some((status, at)) = exited
                && (output.is_none() || at.elapsed() >= LINGER)
            {
                return Ok(Outcome { status, output: bytes, complaints: String::new() });
            }
            if STOPPED.load(Ordering::Relaxed) {
                return Err(Error::interrupted());
            }
            if let Some(limit) = self.limit.filter(|limit| exited.is_none() && began.elapsed() >= *limit) {
                return Err(self.too_slow(limit));
            }
            let Some(from) = &mut output else {
                std::thread::sleep(LOOK);
                continue;
            };
            let look = Timespec { tv_sec: 0, tv_nsec: LOOK.subsec_nanos().into() };
            let ready = poll(&mut [PollFd::new(from, PollFlags::IN)], Some(&look));
            if !ready.is_ok_and(|count| count > 0) {
                continue;
            }
            let mut buffer = [0; 4096];
            match from.read(&mut buffer) {
                Ok(0) => output = None,
                Ok(count) => bytes.extend_from_slice(buffer.get(..count).unwrap_or_default()),
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(self.lost(error)),
            }
            if bytes.len() > self.most {
                return Err(self.too_much());
            }
        }
    }

    /// Ends with an error when a process has moved nothing for so long: the kernel counts what it reads and writes, proc(5).
    /// Nothing ends where there is no limit, or nobody counts.
    async fn stalled(&self, pid: Option<u32>) -> Error {
        let (Some(pid), Some((limit, hint))) = (pid, self.stall) else { return std::future::pending().await };
        let path = format!("/proc/{pid}/io");
        let mut last = (Instant::now(), String::new());
        loop {
            let Ok(moved) = tokio::fs::read_to_string(&path).await else { return std::future::pending().await };
            if moved != last.1 {
                last = (Instant::now(), moved);
            } else if last.0.elapsed() >= limit {
                let message = format!("`{}` is given up: nothing moved for {} s", self.name(), limit.as_secs());
                return Error::new(Kind::Transient, message).hint(hint);
            }
            tokio::time::sleep(limit / 10).await;
        }
    }
}

impl Outcome {
    /// Its exit status; -1 where a signal ended it.
    pub fn code(&self) -> i32 {
        self.status.code().unwrap_or(-1)
    }

    /// Whether it complained of this; messages that are broken into lines count as one.
    pub fn says(&self, text: &str) -> bool {
        let words: Vec<&str> = self.complaints.split_whitespace().collect();
        words.join(" ").contains(text)
    }
}

fn into_inner(bytes: Mutex<Vec<u8>>) -> Vec<u8> {
    bytes.into_inner().unwrap_or_else(PoisonError::into_inner)
}

/// Reads to the end. More than `most` bytes end it, with `false`, or are cut at their beginning.
async fn gather(from: Option<impl AsyncRead + Unpin>, into: &Mutex<Vec<u8>>, most: usize, cut: bool) -> bool {
    let Some(mut from) = from else { return true };
    let mut buffer = vec![0; 16 << 10];
    while let Ok(count @ 1..) = from.read(&mut buffer).await {
        let mut all = into.lock().unwrap_or_else(PoisonError::into_inner);
        all.extend_from_slice(buffer.get(..count).unwrap_or_default());
        if cut && all.len() > most.saturating_mul(2) {
            let old = all.len() - most;
            all.drain(..old);
        } else if !cut && all.len() > most {
            return false;
        }
    }
    true
}

/// We were asked to stop: programs that are waited for by blocking are ended.
static STOPPED: AtomicBool = AtomicBool::new(false);

/// The groups that are there.
static GROUPS: Mutex<BTreeSet<i32>> = Mutex::new(BTreeSet::new());

/// Ends the programs that somebody waits for by blocking, and all that are started so from now on.
pub fn stop() {
    STOPPED.store(true, Ordering::Relaxed);
}

/// Ends every program at once: this process is about to end without further ado.
pub fn kill_all() {
    let groups = std::mem::take(&mut *GROUPS.lock().unwrap_or_else(PoisonError::into_inner));
    for group in groups.into_iter().filter_map(Pid::from_raw) {
        let _ = kill_process_group(group, Signal::KILL);
    }
}

/// A process group, which is killed when it is dropped; one that has ended is not there any more.
struct Group(Option<Pid>);

impl Group {
    fn of(leader: Option<u32>) -> Self {
        let pid = leader.and_then(|pid| i32::try_from(pid).ok()).and_then(Pid::from_raw);
        if let Some(pid) = pid {
            GROUPS.lock().unwrap_or_else(PoisonError::into_inner).insert(pid.as_raw_nonzero().get());
        }
        Self(pid)
    }

    fn signal(&self, signal: Signal) {
        if let Some(pid) = self.0 {
            let _ = kill_process_group(pid, signal);
        }
    }

    fn release(&mut self) {
        if let Some(pid) = self.0.take() {
            GROUPS.lock().unwrap_or_else(PoisonError::into_inner).remove(&pid.as_raw_nonzero().get());
        }
    }
}

impl Drop for Group {
    fn drop(&mut self) {
        self.signal(Signal::KILL);
        self.release();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn shell(script: &str) -> Program {
        Program::new("sh").args(["-c", script])
    }

    /// Whether a process is there, and not only its remains.
    fn is_alive(pid: &str) -> bool {
        let state = std::fs::read_to_string(format!("/proc/{}/stat", pid.trim())).unwrap_or_default();
        state.rsplit_once(')').is_some_and(|(_, rest)| !rest.trim_start().starts_with('Z'))
    }

    /// The kernel may need a moment after a signal.
    fn ends(pid: &str) -> bool {
        for _ in 0..200 {
            if !is_alive(pid) {
                return true;
            }
            std::thread::sleep(LOOK);
        }
        false
    }

    fn context() -> Context {
        let writer = crate::context::Writer {
            pipeline: "test".into(),
            id: "00000000".into(),
            timezone: jiff::tz::TimeZone::UTC,
            state: std::path::PathBuf::new(),
        };
        Context {
            cancel: tokio_util::sync::CancellationToken::new(),
            progress: std::sync::Arc::new(crate::progress::Quiet),
            writer: std::sync::Arc::new(writer),
            scratch: None,
        }
    }

    #[tokio::test]
    async fn a_child_that_holds_the_output_open_is_not_waited_for() {
        let script = "echo out; echo err >&2; sleep 600 & echo $! >&2; exit 3";
        let blocking = tokio::task::spawn_blocking(move || shell("echo out; sleep 600 & exit 3").run_blocking());
        let outcome = shell(script).with_complaints().run(&context()).await.unwrap();
        assert_eq!((outcome.status.code(), outcome.output.as_slice()), (Some(3), &b"out\n"[..]));
        let child = outcome.complaints.lines().nth(1).unwrap().to_owned();
        assert!(ends(&child), "it ends with the program");
        let outcome = blocking.await.unwrap().unwrap();
        assert_eq!((outcome.status.code(), outcome.output.as_slice()), (Some(3), &b"out\n"[..]));
    }

    #[tokio::test]
    async fn at_its_limit_a_program_ends_with_all_that_it_started() {
        let home = tempfile::tempdir().unwrap();
        for (name, blocking) in [("a", false), ("b", true)] {
            let pids = home.path().join(name);
            // Neither of them listens to the polite signal.
            let script = format!("trap '' TERM; sleep 600 & echo $$ $! > {}; wait; sleep 600", pids.display());
            let program = shell(&script).limit(Duration::from_millis(500)).leaves_children();
            let failed = if blocking {
                tokio::task::spawn_blocking(|| program.run_blocking()).await.unwrap().unwrap_err()
            } else {
                program.run(&context()).await.unwrap_err()
            };
            assert!(failed.one_line().contains("took longer than 0 s and was stopped"), "{failed:?}");
            let pids = std::fs::read_to_string(pids).unwrap();
            assert!(pids.split_whitespace().all(ends), "{pids}");
        }
    }

    #[tokio::test]
    async fn a_program_is_asked_to_end_before_it_is_killed_when_we_are_to_stop() {
        let home = tempfile::tempdir().unwrap();
        let (ready, tidy) = (home.path().join("ready"), home.path().join("tidy"));
        let script = format!(
            "trap 'echo > {}; exit' TERM; echo > {}; while :; do sleep 0.1; done",
            tidy.display(),
            ready.display()
        );
        let cx = context();
        let cancel = cx.cancel.clone();
        let running = tokio::spawn(async move { shell(&script).run(&cx).await });
        while !ready.exists() {
            tokio::time::sleep(LOOK).await;
        }
        cancel.cancel();
        assert_eq!(running.await.unwrap().unwrap_err().kind(), Kind::Interrupted);
        assert!(tidy.exists());
    }

    #[tokio::test]
    async fn what_a_program_leaves_behind_goes_on_where_it_may() {
        let outcome = shell("sleep 600 > /dev/null 2>&1 & echo $!").leaves_children().run(&context()).await.unwrap();
        let pid = String::from_utf8(outcome.output).unwrap();
        assert!(is_alive(&pid));
        let pid = Pid::from_raw(pid.trim().parse().unwrap()).unwrap();
        rustix::process::kill_process(pid, Signal::KILL).unwrap();
    }

    #[test]
    fn a_program_that_never_ends_to_write_is_ended() {
        let error = Program::new("yes").at_most(1000).run_blocking().unwrap_err();
        assert!(error.one_line().contains("writes more than 1000 bytes"), "{error:?}");
    }
}
