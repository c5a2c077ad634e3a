//! Programs of the system: arguments as a list, never a shell; stopped with everything that they started.

use std::ffi::{OsStr, OsString};
use std::process::Stdio;

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
}

/// What a program came to.
#[derive(Debug)]
pub(super) struct Outcome {
    pub(super) status: i32,
    pub(super) output: Vec<u8>,
    /// The last part of what it complained of.
    pub(super) complaints: String,
}

/// More complaints than this are cut at their beginning.
const COMPLAINTS: usize = 64 << 10;

impl Program {
    pub(super) fn new(name: &'static str) -> Self {
        Self { name, arguments: Vec::new(), secret: None, input: Vec::new() }
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
    pub(super) fn secret(mut self, name: &'static str, secret: Option<SecretString>) -> Self {
        self.secret = secret.map(|secret| (name, secret));
        self
    }

    pub(super) fn input(mut self, input: Vec<u8>) -> Self {
        self.input = input;
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
        if let Some((variable, secret)) = &self.secret {
            command.env(variable, secret.expose_secret());
        }
        let mut child = command.spawn().map_err(|error| {
            let made = Error::new(Kind::Config, format!("cannot run `{name}`")).with_source(error);
            made.hint(format!("install {name} on this machine"))
        })?;
        let _group = Group(child.id());
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
        cx.unless_cancelled(work).await
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
