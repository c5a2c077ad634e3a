//! A server process: started with a log, ready when the log says so, and ended together with what it started.

use std::collections::BTreeSet;
use std::fs::{self, File};
use std::net::{Ipv4Addr, TcpListener};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, kill_process};

use super::leftovers;

/// How long a start may take; machines that run many tests are slow.
const PATIENCE: Duration = Duration::from_secs(90);

/// A process that ends with this value.
#[derive(Debug)]
pub(crate) struct Daemon {
    process: Child,
}

impl Daemon {
    /// Starts a server, and waits until its log has the `sign`. When it ends instead, its log is the error.
    ///
    /// The directory must be a part of the arguments: by it a server is known whose test was killed.
    pub(crate) fn start(command: &mut Command, directory: &Path, sign: &str) -> Result<Self, String> {
        let file = directory.join("log");
        let log = File::create(&file).expect("a writable directory");
        let also = log.try_clone().expect("another handle");
        let name = command.get_program().display().to_string();
        let process = command.stdin(Stdio::null()).stdout(log).stderr(also).spawn();
        let process = process.unwrap_or_else(|error| panic!("{name} does not run: {error}"));
        leftovers::note(process.id(), directory);
        let mut daemon = Self { process };
        let started = Instant::now();
        while started.elapsed() < PATIENCE {
            let ended = daemon.ended();
            let log = read(&file);
            if ended {
                return Err(log);
            }
            if log.contains(sign) {
                return Ok(daemon);
            }
            std::thread::sleep(Duration::from_millis(10));
        }
        panic!("{name} is not ready after {PATIENCE:?}:\n{}", read(&file));
    }

    /// Starts a server on a free port.
    pub(crate) fn on_free_port(mut start: impl FnMut(u16) -> Result<Self, String>) -> (Self, u16) {
        // Somebody else may take the port between our asking for a free one and the server's binding it.
        for _ in 0..5 {
            let port = free_port();
            match start(port) {
                Ok(daemon) => return (daemon, port),
                Err(log) => assert!(taken(&log), "a server does not start:\n{log}"),
            }
        }
        panic!("no free port on 127.0.0.1");
    }

    /// Starts a server again, on a port that it had before.
    pub(crate) fn again(mut start: impl FnMut() -> Result<Self, String>) -> Self {
        // Meanwhile somebody's short connection may have been given the port.
        for _ in 0..50 {
            match start() {
                Ok(daemon) => return daemon,
                Err(log) => assert!(taken(&log), "a server does not start again:\n{log}"),
            }
            std::thread::sleep(Duration::from_millis(100));
        }
        panic!("the port of a server was taken while it was down");
    }

    pub(crate) fn pid(&self) -> u32 {
        self.process.id()
    }

    /// Asks it to end. What it started is ended first, without asking.
    pub(crate) fn stop(&mut self) {
        if self.ended() {
            return;
        }
        self.end_children();
        let pid = self.pid();
        signal(pid, Signal::TERM);
        signal(pid, Signal::CONT);
        leftovers::stop(pid, || self.ended());
    }

    /// Ends it and what it started, at once.
    pub(crate) fn kill(&mut self) {
        if self.ended() {
            return;
        }
        self.end_children();
        let _ = self.process.kill();
        let _ = self.process.wait();
    }

    fn ended(&mut self) -> bool {
        matches!(self.process.try_wait(), Ok(Some(_)) | Err(_))
    }

    /// Ends what it started, however deep, and leaves it frozen: it could start more.
    fn end_children(&self) {
        signal(self.pid(), Signal::STOP);
        let mut frozen = BTreeSet::new();
        loop {
            let mut more = descendants(self.pid());
            more.retain(|pid| frozen.insert(*pid));
            if more.is_empty() {
                break;
            }
            for pid in more {
                signal(pid, Signal::STOP);
            }
        }
        for pid in &frozen {
            signal(*pid, Signal::KILL);
        }
        let asked = Instant::now();
        while asked.elapsed() < Duration::from_secs(5) && frozen.iter().any(|pid| parent(*pid).is_some()) {
            std::thread::sleep(Duration::from_millis(2));
        }
    }
}

impl Drop for Daemon {
    fn drop(&mut self) {
        self.stop();
        leftovers::forget(self.pid());
    }
}

pub(crate) fn free_port() -> u16 {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).expect("127.0.0.1 is there");
    listener.local_addr().expect("a bound socket has an address").port()
}

/// Random bytes as hexadecimal digits.
pub(crate) fn random_hex(bytes: usize) -> String {
    use std::io::Read as _;
    let mut random = vec![0; bytes];
    File::open("/dev/urandom").and_then(|mut file| file.read_exact(&mut random)).expect("/dev/urandom is readable");
    random.iter().map(|byte| format!("{byte:02x}")).collect()
}

/// Runs a command that must go well; what it printed.
pub(crate) fn output(command: &mut Command) -> String {
    let name = command.get_program().display().to_string();
    let done = command.stdin(Stdio::null()).output().unwrap_or_else(|error| panic!("{name} does not run: {error}"));
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    assert!(done.status.success(), "{name} failed:\n{}{}", text(&done.stdout), text(&done.stderr));
    text(&done.stdout)
}

fn taken(log: &str) -> bool {
    log.contains("Address already in use")
}

fn read(file: &Path) -> String {
    String::from_utf8_lossy(&fs::read(file).unwrap_or_default()).into_owned()
}

/// Sends a signal to a process that may have ended.
pub(crate) fn signal(process: u32, signal: Signal) {
    if let Some(pid) = i32::try_from(process).ok().and_then(Pid::from_raw) {
        let _ = kill_process(pid, signal);
    }
}

/// The running processes that one started, and that those started.
fn descendants(ancestor: u32) -> Vec<u32> {
    let running: Vec<(u32, u32)> = fs::read_dir("/proc")
        .expect("/proc is mounted")
        .filter_map(|entry| entry.ok()?.file_name().to_str()?.parse().ok())
        .filter_map(|pid| Some((pid, parent(pid)?)))
        .collect();
    let mut found = vec![ancestor];
    let mut next = 0;
    while let Some(&above) = found.get(next) {
        found.extend(running.iter().filter(|(_, parent)| *parent == above).map(|(pid, _)| pid));
        next += 1;
    }
    found.split_off(1)
}

/// The parent of a process that runs, or is frozen; none for one that ended, waited for or not.
pub(crate) fn parent(process: u32) -> Option<u32> {
    // "12 (a (name)) S 11 …"
    let stat = fs::read_to_string(format!("/proc/{process}/stat")).ok()?;
    let mut fields = stat.rsplit_once(')')?.1.split_whitespace();
    if matches!(fields.next()?, "Z" | "X") {
        return None;
    }
    fields.next()?.parse().ok()
}
