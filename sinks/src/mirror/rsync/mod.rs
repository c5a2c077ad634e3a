//! `rsync`: a mirror of a local vault on another host, in another directory, or in a module of an rsync daemon.

mod lines;
mod target;

use std::path::Path;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::SystemTime;

use async_trait::async_trait;
use cdrvault_format::durable::{self, How};
use cdrvault_format::error::{Error, Kind, Result};
use cdrvault_format::layout;
use cdrvault_plugin::context::Context;
use cdrvault_plugin::location::Location;
use cdrvault_plugin::options::{ByteSize, Problem, Reference, Secret, Section, schema_of};
use cdrvault_plugin::program::{Outcome, Program};
use cdrvault_plugin::registry::{Around, BuildSink, Plugin};
use cdrvault_plugin::scratch::Scratch;
use cdrvault_plugin::sink::{Capabilities, Vault};
use schemars::JsonSchema;
use secrecy::SecretString;
use serde::Deserialize;

use super::process;
use super::ssh::{self, Ssh};
use super::{Found, Listing, MirroredVault, PROBE, Parcel, Transport};
use crate::clock;

use lines::{dated, is_leftover, listed, transferred};
use target::Target;

/// See [`super`].
pub(crate) fn plugin() -> Plugin<dyn BuildSink> {
    Plugin {
        kind: "rsync",
        about: "a mirror of a local vault, by rsync: another host by ssh, an rsync daemon, or another directory",
        details: "One transfer at the end of each run brings what is new: first the objects, which are then compared by \
                  checksum, then their receipts. Superseded versions travel too. Nothing is removed there but what this sink's \
                  own `keep` no longer keeps. ssh asks no questions and takes only hosts that it knows. Works with the forced \
                  command `rrsync DIRECTORY` in the authorized_keys of the other side; `to` is then relative to it.",
        schema: schema_of::<Options>,
        parse,
    }
}

/// A mirror by rsync.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
struct Options {
    /// The sink whose vault it mirrors.
    mirror: Reference,
    /// `USER@HOST:PATH`, `rsync://[USER@]HOST[:PORT]/MODULE/PATH`, or `/ABSOLUTE/PATH`.
    to: String,
    /// ssh: port, keys and timeouts.
    #[serde(default)]
    ssh: Option<ssh::Options>,
    /// The password of an rsync daemon.
    #[serde(default)]
    password: Option<Secret>,
    /// At most so many bytes a second, as `"4MiB"`.
    #[serde(default)]
    bandwidth: Option<ByteSize>,
    /// Have the other side sync what it wrote to its disk. Needs rsync 3.2.4 there.
    #[serde(default = "yes")]
    fsync: bool,
}

fn yes() -> bool {
    true
}

struct BuildRsync {
    mirror: Reference,
    to: Target,
    ssh: Ssh,
    password: Option<Secret>,
    bandwidth: Option<ByteSize>,
    fsync: bool,
}

fn parse(section: &mut Section<'_>) -> Option<Box<dyn BuildSink>> {
    let Options { mirror, to, ssh, password, bandwidth, fsync } = section.options()?;
    let target = match Target::parse(&to) {
        Ok(target) => Some(target),
        Err(why) => {
            let problem = Problem::new(section.value("to"), format!("`{}` is not a target: {why}", to.escape_debug()));
            section.problem(problem.help("write `USER@HOST:PATH`, `rsync://HOST/MODULE/PATH`, or `/ABSOLUTE/PATH`"));
            None
        }
    };
    let mut sound = true;
    let mut wrong = |key: &str, message: &str, help: &'static str| {
        section.problem(Problem::new(section.value(key), message.to_owned()).help(help));
        sound = false;
    };
    if let Some(target) = &target {
        if ssh.is_some() && !matches!(target, Target::Ssh(_)) {
            wrong("ssh", "`ssh` is for targets of the form `USER@HOST:PATH`", "remove it, or correct `to`");
        }
        if password.is_some() && !matches!(target, Target::Daemon(_)) {
            wrong(
                "password",
                "`password` is for an rsync daemon",
                "ssh takes keys only: name one in `ssh.identity-file`",
            );
        }
    }
    let ssh = ssh.unwrap_or_default().check(section)?;
    let to = target.filter(|_| sound)?;
    Some(Box::new(BuildRsync { mirror, to, ssh, password, bandwidth, fsync }))
}

impl BuildSink for BuildRsync {
    fn describe(&self) -> String {
        self.to.text().to_owned()
    }

    fn mirrors(&self) -> Option<&Reference> {
        Some(&self.mirror)
    }

    fn place(&self) -> Option<Location> {
        Some(self.to.place(self.ssh.port))
    }

    fn build(&self, around: &Around) -> Result<Arc<dyn Vault>> {
        let transport = Rsync {
            to: self.to.clone(),
            ssh: self.ssh.clone(),
            password: self.password.as_ref().map(Secret::resolve).transpose()?,
            bandwidth: self.bandwidth.map(ByteSize::as_u64),
            fsync: self.fsync,
            clock_offset: Mutex::default(),
        };
        Ok(Arc::new(MirroredVault::new(transport, around)))
    }
}

struct Rsync {
    to: Target,
    ssh: Ssh,
    password: Option<SecretString>,
    bandwidth: Option<u64>,
    fsync: bool,
    clock_offset: Mutex<Option<i64>>,
}

impl Rsync {
    fn program(&self) -> Program {
        // rsync looks itself whether the other side is still there; this is for an rsync that does not.
        let mut program = process::program("rsync", self.ssh.stall_timeout * 2)
            .arg(format!("--timeout={}", self.ssh.stall_timeout.as_secs().max(1)));
        match self.to {
            Target::Ssh(_) => {
                program = program.arg("--rsh").arg(self.ssh.command());
                // Complaints of the other side come in order with its data: on a channel of their own, the last of them is
                // lost when ssh ends first. An rsync that is too old for `--fsync` does so by itself, and refuses to be told.
                if self.fsync {
                    program = program.arg("--no-msgs2stderr");
                }
            }
            Target::Daemon(_) => {
                // Without one, rsync would ask for it on the terminal, and wait.
                let password = self.password.clone().unwrap_or_default();
                program = program.arg("--contimeout=30").env("RSYNC_PASSWORD", password);
            }
            Target::Directory(_) => {}
        }
        program
    }

    /// The files with these names.
    fn files(&self, names: &[String]) -> Program {
        let mut list = Vec::new();
        for name in names {
            list.extend_from_slice(name.as_bytes());
            list.push(0);
        }
        self.program().args(["--files-from=-", "--from0"]).input(list)
    }

    /// Writes files; gives those that were not there, or were other.
    async fn transfer(&self, cx: &Context, root: &Path, names: &[String], more: &[&str]) -> Result<Vec<String>> {
        if names.is_empty() {
            return Ok(Vec::new());
        }
        // Names are the vault's own: each is compared by its checksum, whatever its size and time.
        let mut program = self.files(names).args(["--checksum", "--perms", "--itemize-changes"]).args(more);
        if self.fsync {
            program = program.arg("--fsync");
        }
        if let Some(limit) = self.bandwidth {
            // In units of 1024 bytes.
            program = program.arg(format!("--bwlimit={}", limit.div_ceil(1024).max(1)));
        }
        let outcome = program.arg("--").arg(inside(root)).arg(self.to.inside()).run(cx).await?;
        let output = self.good(&outcome, "write into")?;
        Ok(String::from_utf8_lossy(&output).lines().filter_map(transferred).map(str::to_owned).collect())
    }

    /// What the other side holds must be what we sent.
    async fn confirm(&self, cx: &Context, root: &Path, names: &[String]) -> Result<()> {
        if names.is_empty() {
            return Ok(());
        }
        let program = self.files(names).args(["--checksum", "--dry-run", "--itemize-changes"]);
        let outcome = program.arg("--").arg(inside(root)).arg(self.to.inside()).run(cx).await?;
        let output = self.good(&outcome, "compare")?;
        self.no_difference(String::from_utf8_lossy(&output).lines().find_map(transferred))
    }

    /// The same, asked from the other end, which also tells when the files were written by its clock. Those in `new` were
    /// written since `before`.
    async fn confirm_and_date(
        &self,
        cx: &Context,
        root: &Path,
        names: &[String],
        new: &[String],
        before: SystemTime,
    ) -> Result<()> {
        let after = SystemTime::now();
        let program =
            self.files(names).args(["--checksum", "--dry-run", "-ii", "--out-format=%i %M %n"]).env("TZ", "UTC0");
        let outcome = program.arg("--").arg(self.to.inside()).arg(inside(root)).run(cx).await?;
        let output = self.good(&outcome, "compare")?;
        let text = String::from_utf8_lossy(&output);
        let dated: Vec<_> = text.lines().filter_map(dated).collect();
        self.no_difference(dated.iter().find(|(differs, ..)| *differs).map(|(_, _, name)| *name))?;
        let written = dated.iter().rfind(|(_, _, name)| new.iter().any(|new| new == name)).map(|(_, time, _)| *time);
        if let Some(offset) = written.and_then(|written| clock::offset(before, after, written)) {
            *self.clock_offset.lock().unwrap_or_else(PoisonError::into_inner) = Some(offset);
        }
        Ok(())
    }

    fn no_difference(&self, first: Option<&str>) -> Result<()> {
        let Some(name) = first else { return Ok(()) };
        Err(Error::new(Kind::Damaged, format!("{} holds other bytes than were sent: {name}", self.to.text()))
            .hint("see whether another program writes there; if none does, check its disk"))
    }

    fn good(&self, outcome: &Outcome, doing: &str) -> Result<Vec<u8>> {
        if outcome.code() == 0 {
            return Ok(outcome.output.clone());
        }
        if matches!(self.to, Target::Ssh(_))
            && let Some(error) = ssh::complaint(outcome, self.to.text())
        {
            return Err(error);
        }
        let (kind, hint) = match outcome.code() {
            _ if outcome.says("No space left") || outcome.says("Disk quota exceeded") => {
                (Kind::NoSpace, "free some space there; what is not delivered stays owed")
            }
            _ if outcome.says("option") && (outcome.says("fsync") || outcome.says("msgs2stderr")) => {
                (Kind::Config, "the rsync there is older than 3.2.4: write `fsync = false`")
            }
            _ if outcome.says("Permission denied") || outcome.says("read only") || outcome.says("Read-only") => {
                (Kind::Denied, "give the remote user the right to write there")
            }
            5 if outcome.says("auth failed") => (Kind::Denied, "correct the user in `to` and the `password`"),
            5 if outcome.says("Unknown module") => (Kind::Config, "correct the module in `to`"),
            12 if outcome.says("rrsync error") => {
                (Kind::Config, "make the directory there: rrsync lets us into nothing but what exists below its own")
            }
            // What it said over there may be lost with the connection.
            11 => (Kind::Failed, "give the remote user the right to write there, or see what is wrong with its disk"),
            127 => (Kind::Config, "install rsync on the other side"),
            10 | 12 | 30 | 35 => (Kind::Transient, "see whether the other side still answers"),
            _ => (Kind::Failed, "what is not delivered stays owed; the next run tries it again"),
        };
        let text = last_complaint(outcome);
        Err(Error::new(kind, format!("cannot {doing} {}: {text} (rsync status {})", self.to.text(), outcome.code()))
            .hint(hint))
    }
}

/// The first complaint says most; the last lines of rsync only sum up.
fn last_complaint(outcome: &Outcome) -> String {
    let said = |line: &&str| !line.trim().is_empty() && !line.starts_with("rsync error:");
    let line = outcome.complaints.lines().find(said).or_else(|| outcome.complaints.lines().last());
    line.unwrap_or("rsync printed nothing").trim().to_owned()
}

fn inside(directory: &Path) -> std::ffi::OsString {
    directory.join("").into_os_string()
}

#[async_trait]
impl Transport for Rsync {
    fn describe(&self) -> String {
        self.to.text().to_owned()
    }

    fn capabilities(&self) -> Capabilities {
        Capabilities { checksum: true, ..Capabilities::default() }
    }

    async fn list(&self, cx: &Context) -> Result<Found> {
        let program = self.program().args(["--list-only", "--recursive", "--no-human-readable", "--"]);
        let outcome = program.arg(self.to.inside()).run(cx).await?;
        // Another directory that is missing is another error.
        if matches!(outcome.code(), 3 | 23) && outcome.says("No such file or directory") {
            return Ok(Found::default());
        }
        let output = self.good(&outcome, "list")?;
        let listing = String::from_utf8_lossy(&output).lines().filter_map(listed).collect();
        Ok(Found { listing: Some(listing), interrupted: false })
    }

    fn leftovers(&self, listing: &Listing) -> Vec<String> {
        listing.keys().filter(|name| is_leftover(name)).cloned().collect()
    }

    async fn fetch(&self, cx: &Context, names: &[String], into: &Path, _at: Option<i64>) -> Result<()> {
        let (from, below) = self.to.source();
        let names: Vec<String> = names.iter().map(|name| format!("{below}{name}")).collect();
        let program = self.files(&names).arg("--times");
        let outcome = program.arg("--").arg(from).arg(inside(into)).run(cx).await?;
        self.good(&outcome, "read from").map(drop)
    }

    async fn send(&self, cx: &Context, root: &Path, parcel: &Parcel) -> Result<()> {
        // rsync sorts what it is given, files of a directory before the directories in it: whose vault it is comes first.
        let objects = [&parcel.identity[..], &parcel.objects].concat();
        // A receipt says that its object is there: so it travels when that was found to be so.
        self.transfer(cx, root, &objects, &["--times", "--omit-dir-times"]).await?;
        self.confirm(cx, root, &objects).await?;
        // Receipts get the time of the other side.
        let before = SystemTime::now();
        let new = self.transfer(cx, root, &parcel.receipts, &[]).await?;
        if new.is_empty() || matches!(self.to, Target::Daemon(_)) {
            return self.confirm(cx, root, &parcel.receipts).await;
        }
        self.confirm_and_date(cx, root, &parcel.receipts, &new, before).await
    }

    async fn send_small(&self, cx: &Context, root: &Path, names: &[String]) -> Result<()> {
        // rsync compares what it wrote by checksum, and theirs tell later: one connection is enough.
        self.transfer(cx, root, names, &[]).await.map(drop)
    }

    fn clock_offset(&self) -> Option<i64> {
        *self.clock_offset.lock().unwrap_or_else(PoisonError::into_inner)
    }

    async fn try_write(&self, cx: &Context, listing: &Listing) -> Result<bool> {
        let probe = [PROBE.to_owned()];
        // A place where nothing may be removed takes runs all the same; what is sent there would stay.
        match self.remove(cx, &probe).await {
            Ok(()) => {}
            Err(error) if matches!(error.kind(), Kind::Failed | Kind::Config) => return Ok(false),
            Err(error) => return Err(error),
        }
        let scratch = Scratch::new(cx)?;
        let path = scratch.path().join(PROBE);
        durable::create_dirs(&scratch.path().join(layout::PRIVATE), &How::private())?;
        durable::create(&path, &How::private(), |_| Ok(()))?;
        // Without modes: the directory may be there, and has one of its own.
        let outcome = self.files(&probe).arg("--").arg(inside(scratch.path())).arg(self.to.inside()).run(cx).await?;
        self.good(&outcome, "write into")?;
        self.remove(cx, &probe).await?;
        if !listing.keys().any(|name| name.starts_with(".cdrvault/")) {
            // It came with the probe. What is not empty stays.
            self.remove(cx, &[layout::PRIVATE.to_owned()]).await?;
        }
        Ok(true)
    }

    async fn remove(&self, cx: &Context, names: &[String]) -> Result<()> {
        // Directories that are missing here would be taken for vanished ones; only the files are to be missing.
        let nothing = Scratch::new(cx)?;
        for above in names.iter().filter_map(|name| Path::new(name).parent()) {
            durable::create_dirs(&nothing.path().join(above), &How::private())?;
        }
        let program = self.files(names).arg("--delete-missing-args");
        let outcome = program.arg("--").arg(inside(nothing.path())).arg(self.to.inside()).run(cx).await?;
        self.good(&outcome, "remove from").map(drop)
    }
}
