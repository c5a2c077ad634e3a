//! `rdiff`: a mirror of a local vault by rdiff-backup, which keeps old versions itself, as reverse deltas.

use std::collections::BTreeSet;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use cdrvault_format::durable::{self, How};
use cdrvault_format::error::{Error, Kind, Result};
use cdrvault_format::layout;
use cdrvault_plugin::context::Context;
use cdrvault_plugin::location::Location;
use cdrvault_plugin::options::{Problem, Reference, Section, schema_of};
use cdrvault_plugin::program::{Outcome, Program};
use cdrvault_plugin::registry::{Around, BuildSink, Plugin};
use cdrvault_plugin::sink::{Capabilities, Vault};
use schemars::JsonSchema;
use serde::Deserialize;

use super::process;
use super::ssh::{self, Ssh};
use super::{Found, Listing, MirroredVault, Parcel, Transport};

/// See [`super`].
pub(crate) fn plugin() -> Plugin<dyn BuildSink> {
    Plugin {
        kind: "rdiff",
        about: "a mirror of a local vault by rdiff-backup, which keeps old versions as reverse deltas",
        details: "Needs rdiff-backup 2.2 on both sides. One session at the end of each run; `versions/` is not sent, since the \
                  other side keeps history itself: `keep = { superseded = \"7d\" }` removes its old increments. A session that \
                  was interrupted is regressed before the next one. What arrived is compared by hash, because rdiff-backup \
                  takes a file of the same length and time for unchanged.",
        schema: schema_of::<Options>,
        parse,
    }
}

/// A mirror by rdiff-backup.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
struct Options {
    /// The sink whose vault it mirrors.
    mirror: Reference,
    /// `USER@HOST::PATH`, or `/ABSOLUTE/PATH`.
    to: String,
    /// ssh: port, keys and timeouts.
    #[serde(default)]
    ssh: Option<ssh::Options>,
}

struct BuildRdiff {
    mirror: Reference,
    to: Target,
    ssh: Ssh,
}

fn parse(section: &mut Section<'_>) -> Option<Box<dyn BuildSink>> {
    let Options { mirror, to, ssh } = section.options()?;
    let target = match Target::parse(&to) {
        Ok(target) if target.is_local && ssh.is_some() => {
            let problem = Problem::new(section.value("ssh"), "`ssh` is for targets of the form `USER@HOST::PATH`");
            section.problem(problem.help("remove it, or correct `to`"));
            None
        }
        Ok(target) => Some(target),
        Err(why) => {
            let problem = Problem::new(section.value("to"), format!("`{}` is not a target: {why}", to.escape_debug()));
            section.problem(problem.help("write `USER@HOST::PATH`, or `/ABSOLUTE/PATH`"));
            None
        }
    };
    let ssh = ssh.unwrap_or_default().check(section)?;
    target.map(|to| Box::new(BuildRdiff { mirror, to, ssh }) as Box<dyn BuildSink>)
}

/// What `to` names.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Target {
    /// As it is shown.
    text: String,
    /// As rdiff-backup takes it.
    location: String,
    is_local: bool,
}

impl Target {
    fn parse(text: &str) -> Result<Self, &'static str> {
        if text.chars().any(|c| c.is_control() || matches!(c, '\'' | '"' | '\\' | '`')) {
            return Err("the path holds a quote or another character with a meaning to shells");
        }
        if text.starts_with('/') {
            let path = text.trim_end_matches('/');
            return if path.is_empty() || path.contains("::") || path.contains('$') {
                Err("this is not a directory for a vault")
            } else {
                Ok(Self { text: path.to_owned(), location: path.to_owned(), is_local: true })
            };
        }
        let (host, path) = ssh::split_host(text, "::").ok_or("neither `USER@HOST::PATH` nor an absolute path")?;
        if !ssh::is_host(host) {
            return Err("this is not `USER@HOST`");
        }
        if path.contains("::") {
            return Err("the path holds a `::`");
        }
        let path = ssh::remote_path(path)?;
        // ssh takes an address without brackets, and rdiff-backup takes the first `::` for the end of the host: a `\`
        // before each colon tells it apart.
        let location = format!("{}::{path}", host.replace(['[', ']'], "").replace(':', "\\:"));
        Ok(Self { text: format!("{host}::{path}"), location, is_local: false })
    }
}

impl BuildSink for BuildRdiff {
    fn describe(&self) -> String {
        self.to.text.clone()
    }

    fn mirrors(&self) -> Option<&Reference> {
        Some(&self.mirror)
    }

    fn place(&self) -> Option<Location> {
        Some(match ssh::split_host(&self.to.text, "::") {
            Some((account, path)) if !self.to.is_local => Location::by_ssh(account, self.ssh.port, path),
            _ => Location::directory(Path::new(&self.to.text)),
        })
    }

    fn keeps_history(&self) -> bool {
        true
    }

    fn build(&self, around: &Around) -> Result<Arc<dyn Vault>> {
        Ok(Arc::new(MirroredVault::new(Rdiff { to: self.to.clone(), ssh: self.ssh.clone() }, around)))
    }
}

struct Rdiff {
    to: Target,
    ssh: Ssh,
}

/// rdiff-backup's status when it had something to warn of, and did its work.
const WARNED: i32 = 2;

impl Rdiff {
    fn program(&self) -> Program {
        self.waiting(self.ssh.stall_timeout)
    }

    /// For what works through the history.
    fn patient(&self) -> Program {
        self.waiting(self.ssh.stall_timeout * SILENT)
    }

    fn waiting(&self, stall: Duration) -> Program {
        let program = process::program("rdiff-backup", stall);
        if self.to.is_local {
            return program;
        }
        // rdiff-backup hands this to a shell: it holds nothing that was not checked.
        program.arg("--remote-schema").arg(format!("{} {{h}} rdiff-backup server", self.ssh.command()))
    }

    fn good(&self, outcome: &Outcome, doing: &str) -> Result<Vec<u8>> {
        if matches!(outcome.code(), 0 | WARNED) {
            return Ok(outcome.output.clone());
        }
        if !self.to.is_local
            && let Some(error) = ssh::complaint(outcome, &self.to.text)
        {
            return Err(error);
        }
        if outcome.says("is still running") {
            let message = format!("{}: an earlier session of rdiff-backup is still running there", self.to.text);
            return Err(Error::new(Kind::Transient, message).hint("if it hangs, stop it on the other side"));
        }
        let (kind, hint) = match outcome.code() {
            _ if outcome.says("No space left") || outcome.says("Disk quota exceeded") => {
                (Kind::NoSpace, "free some space there; what is not delivered stays owed")
            }
            _ if outcome.says("Permission denied")
                || outcome.says("Read-only file system")
                || outcome.says("Unable to delete and/or create directory") =>
            {
                (Kind::Denied, "give the remote user the right to write there")
            }
            _ if outcome.says("rdiff-backup: not found") || outcome.says("rdiff-backup: command not found") => {
                (Kind::Config, "install rdiff-backup 2.2 on the other side")
            }
            _ if outcome.says("Impossibly high data amount") => (
                Kind::Config,
                "a greeting of the other side's shell gets in between: `ssh HOST true` must print nothing",
            ),
            _ if outcome.says(VIOLATION) => {
                (Kind::Denied, "the key is bound to another directory there: correct `to`, or its `--restrict-path`")
            }
            _ => (Kind::Failed, "what is not delivered stays owed; the next run tries it again"),
        };
        let said = complaint(&outcome.complaints);
        Err(Error::new(
            kind,
            format!("cannot {doing} {}: {said} (rdiff-backup status {})", self.to.text, outcome.code()),
        )
        .hint(hint))
    }

    async fn session(&self, cx: &Context, root: &Path, parcel: &Parcel) -> Result<()> {
        for _ in 0..PATIENCE {
            let program =
                self.program().args(["backup", "--include-globbing-filelist-stdin"]).input(selection(root, parcel)?);
            let outcome = program.arg(root).arg(&self.to.location).run(cx).await?;
            // Its history has steps of one second.
            if outcome.code() != 0 && outcome.says("not in the past") {
                cx.unless_cancelled(async {
                    tokio::time::sleep(Duration::from_secs(1)).await;
                    Ok(())
                })
                .await?;
                continue;
            }
            return self.good(&outcome, "write into").map(drop);
        }
        Err(Error::new(Kind::Refused, format!("{}: its last session is of a time that has not come yet", self.to.text))
            .hint("set the clock of this machine; if it was wrong then, nothing can be sent until that time"))
    }

    /// The files of which the other side holds other bytes, or none, or does not know what it holds.
    async fn differing(&self, cx: &Context, root: &Path, sent: &[&str]) -> Result<Vec<String>> {
        let mut found = self.compare(cx, root, sent, "now").await?;
        found.different.append(&mut found.unknown);
        Ok(Vec::from_iter(found.different))
    }

    /// Compares files by hash with what the other side noted of them at a time.
    async fn compare(&self, cx: &Context, root: &Path, sent: &[&str], at: &str) -> Result<Compared> {
        let mut list = Vec::new();
        for name in sent {
            list.extend_from_slice(&glob(&root.join(name)));
            list.push(b'\n');
        }
        list.extend_from_slice(b"- ");
        list.extend_from_slice(&glob(root));
        list.extend_from_slice(b"/**\n");
        let program = self.program().args(["compare", "--method", "hash", "--at", at]);
        let program = program.arg("--include-globbing-filelist-stdin").input(list);
        let outcome = program.arg(root).arg(&self.to.location).run(cx).await?;
        let output = String::from_utf8_lossy(&outcome.output).into_owned();
        // What is not selected here is told as deleted: that alone makes it fail, and is not a failure.
        if outcome.code() != 0 && complaint(&outcome.complaints) != "Action compare failed on step run" {
            self.good(&outcome, "compare")?;
        }
        let told = output.lines().filter(|line| !line.starts_with("deleted: "));
        let told = told.filter_map(|line| line.rsplit_once(": ").map(|(_, name)| name.to_owned()));
        let sent: BTreeSet<&str> = sent.iter().copied().collect();
        let asked = |name: &String| sent.contains(name.as_str());
        Ok(Compared {
            different: told.filter(asked).collect(),
            unknown: without_digest(&outcome.complaints).into_iter().filter(asked).collect(),
        })
    }
}

/// What a comparison by hash found.
struct Compared {
    different: BTreeSet<String>,
    unknown: BTreeSet<String>,
}

/// The other side says nothing while it works through its history: so much longer it may be silent then.
const SILENT: u32 = 12;

/// So often, with a second in between, a session is begun anew that has the same second as the one before.
const PATIENCE: u32 = 10;

/// What a first session brought that was cut off gets no hash from the next one, and is passed over when hashes are
/// compared.
fn without_digest(complaints: &str) -> Vec<String> {
    let text = complaints.split_whitespace().collect::<Vec<_>>().join(" ");
    let named = text.split("has no digest for mirror file ").skip(1);
    named.filter_map(|rest| Some(rest.split_once(", unable to compare")?.0.to_owned())).collect()
}

/// The first error, or else the last line. Its messages go on in lines that begin with spaces. Where the other side did
/// not come up, what it said says more: its lines come before the error, which repeats our own command.
fn complaint(text: &str) -> String {
    let mut messages: Vec<String> = Vec::new();
    for line in text.lines().filter(|line| !line.trim().is_empty()) {
        match messages.last_mut() {
            Some(message) if line.starts_with(' ') => {
                message.push(' ');
                message.push_str(line.trim());
            }
            _ => messages.push(line.split_whitespace().collect::<Vec<_>>().join(" ")),
        }
    }
    if let Some(at) = messages.iter().position(|message| message.starts_with(NOT_STARTED)) {
        let (before, after) = messages.split_at(at);
        let said: Vec<&str> =
            before.iter().map(String::as_str).filter(|line| !line.starts_with("Traceback ")).collect();
        let why = after.iter().find_map(|line| line.strip_prefix("due to exception '")?.strip_suffix("'."));
        return match (said.is_empty(), why) {
            (false, _) => format!("the other side said: {}", said.join("; ")),
            (true, Some(why)) if !why.is_empty() => {
                format!("the other side does not answer as rdiff-backup does: {why}")
            }
            _ => "the other side ended without a message".to_owned(),
        };
    }
    let error = messages.iter().find_map(|message| message.strip_prefix("ERROR: "));
    let violation = || messages.iter().find(|message| message.contains(VIOLATION)).map(String::as_str);
    let last = || messages.last().map(String::as_str);
    error.or_else(violation).or_else(last).unwrap_or("rdiff-backup printed nothing").to_owned()
}

const NOT_STARTED: &str = "ERROR: Couldn't start up the remote connection";
const VIOLATION: &str = "Security Violation";

/// What belongs there, as rdiff-backup's selection takes it: the first line that fits decides.
fn selection(root: &Path, parcel: &Parcel) -> Result<Vec<u8>> {
    let mut list = Vec::new();
    let mut line = |sign: &[u8], path: &Path, end: &[u8]| {
        list.extend_from_slice(sign);
        list.extend_from_slice(&glob(path));
        list.extend_from_slice(end);
        list.push(b'\n');
    };
    line(b"- ", root, b"/**.cdrvault-tmp-*");
    line(b"", &root.join(layout::IDENTITY), b"");
    line(b"", &root.join(layout::IDENTITY_COPY), b"");
    for dataset in &parcel.datasets {
        line(b"", &root.join(layout::live_directory(dataset)?), b"");
        line(b"", &root.join(layout::manifests_of(dataset)?), b"");
        line(b"", &root.join(layout::notes_of(dataset)?), b"");
        line(b"", &root.join(layout::index(dataset)?), b"");
    }
    for sha256 in &parcel.bodies {
        line(b"", &root.join(layout::object(sha256)?), b"");
    }
    line(b"- ", root, b"/**");
    Ok(list)
}

/// A path in which nothing is a pattern.
fn glob(path: &Path) -> Vec<u8> {
    let mut escaped = Vec::new();
    for byte in path.as_os_str().as_encoded_bytes() {
        if matches!(byte, b'*' | b'?' | b'[') {
            escaped.extend([b'[', *byte, b']']);
        } else {
            escaped.push(*byte);
        }
    }
    escaped
}

/// There is nothing there yet that rdiff-backup knows, or only what a first session left that was cut off: rdiff-backup
/// can neither read nor regress that, and begins anew by itself.
fn is_absent(outcome: &Outcome) -> bool {
    outcome.code() == 1
        && (outcome.says("couldn't be identified as being within an existing backup repository")
            || outcome.says("does not exist")
            || outcome.says("Could not get time of current mirror"))
}

/// The names of a listing, with those of directories.
fn names(output: &[u8]) -> Listing {
    let names = String::from_utf8_lossy(output).into_owned();
    names.lines().filter(|name| *name != ".").map(|name| (name.to_owned(), None)).collect()
}

/// The times in a list of increments: `1786911714 directory`. What was cut off has the time -1.
fn times(output: &[u8]) -> Vec<i64> {
    let text = String::from_utf8_lossy(output);
    let mut times: Vec<i64> = text.split_whitespace().filter_map(|word| word.parse().ok()).filter(|t| *t > 0).collect();
    times.sort_unstable();
    times
}

#[async_trait]
impl Transport for Rdiff {
    fn describe(&self) -> String {
        self.to.text.clone()
    }

    fn capabilities(&self) -> Capabilities {
        Capabilities { checksum: true, native_history: true, ..Capabilities::default() }
    }

    async fn heal(&self, cx: &Context) -> Result<()> {
        let program = self.patient().arg("regress");
        let outcome = program.arg(&self.to.location).run(cx).await?;
        self.good(&outcome, "repair").map(drop)
    }

    async fn was_same(&self, cx: &Context, root: &Path, name: &str) -> Result<Option<bool>> {
        let before = async {
            let Some(session) = self.sessions(cx).await?.pop() else { return Ok::<_, Error>(None) };
            if !self.list_at(cx, session).await?.contains_key(name) {
                return Ok(Some(false));
            }
            let found = self.compare(cx, root, &[name], &session.to_string()).await?;
            Ok(if found.unknown.is_empty() { Some(found.different.is_empty()) } else { None })
        };
        match before.await {
            // The files in which it would be written may be those that were cut off.
            Err(error) if error.kind() == Kind::Failed => Ok(None),
            other => other,
        }
    }

    async fn list(&self, cx: &Context) -> Result<Found> {
        let outcome = self.program().args(["list", "files", "--at", "now"]).arg(&self.to.location).run(cx).await?;
        if is_absent(&outcome) {
            return Ok(Found::default());
        }
        // Its own `verify` finds nothing wrong with a session that was cut off; but a reader is warned.
        let interrupted = outcome.says("Two different times for current mirror");
        Ok(Found { listing: Some(names(&self.good(&outcome, "list")?)), interrupted })
    }

    async fn sessions(&self, cx: &Context) -> Result<Vec<i64>> {
        let program = self.program().arg("--parsable-output").args(["list", "increments"]);
        let outcome = program.arg(&self.to.location).run(cx).await?;
        if is_absent(&outcome) {
            return Ok(Vec::new());
        }
        Ok(times(&self.good(&outcome, "list the sessions of")?))
    }

    async fn list_at(&self, cx: &Context, session: i64) -> Result<Listing> {
        let program = self.program().args(["list", "files", "--at", &session.to_string()]);
        let outcome = program.arg(&self.to.location).run(cx).await?;
        Ok(names(&self.good(&outcome, "list")?))
    }

    async fn fetch(&self, cx: &Context, names: &[String], into: &Path, at: Option<i64>) -> Result<()> {
        // 2.2.2 fails to restore a single file by its name, and to restore into a directory that is there. The
        // selection goes by where things are restored to.
        let restored = into.join("restored");
        let mut list = Vec::new();
        for name in names {
            list.extend_from_slice(&glob(&restored.join(name)));
            list.push(b'\n');
        }
        list.extend_from_slice(b"- **\n");
        let at = at.map_or_else(|| "now".to_owned(), |second| second.to_string());
        let program = self.program().args(["restore", "--at", &at, "--include-globbing-filelist-stdin"]);
        let outcome = program.arg(&self.to.location).arg(&restored).input(list).run(cx).await?;
        self.good(&outcome, "read from")?;
        for name in names {
            let (from, to) = (restored.join(name), into.join(name));
            if !from.is_file() {
                return Err(Error::new(Kind::Damaged, format!("{} does not give {name} back", self.to.text)));
            }
            durable::create_dirs(to.parent().unwrap_or(into), &How::private())?;
            durable::adopt(&from, &to, &How::private(), true)?;
        }
        durable::remove_tree(&restored)
    }

    async fn send(&self, cx: &Context, root: &Path, parcel: &Parcel) -> Result<()> {
        self.session(cx, root, parcel).await?;
        let sent: Vec<&str> =
            parcel.identity.iter().chain(&parcel.objects).chain(&parcel.receipts).map(String::as_str).collect();
        let missed = self.differing(cx, root, &sent).await?;
        if missed.is_empty() {
            return Ok(());
        }
        // Same length, same second: rdiff-backup did not look into them. A later time makes it look.
        for name in &missed {
            make_later(&root.join(name))?;
        }
        self.session(cx, root, parcel).await?;
        match self.differing(cx, root, &sent).await?.first() {
            None => Ok(()),
            Some(name) => {
                Err(Error::new(Kind::Damaged, format!("{} holds other bytes than were sent: {name}", self.to.text))
                    .hint("see whether another program writes there; if none does, check its disk"))
            }
        }
    }

    async fn mend(&self, cx: &Context, root: &Path, parcel: &Parcel) -> Result<()> {
        // It compares with what it noted, not with what its disk has: only a later time makes it look.
        for name in parcel.objects.iter().chain(&parcel.receipts) {
            make_later(&root.join(name))?;
        }
        self.send(cx, root, parcel).await
    }

    async fn remove(&self, _cx: &Context, _names: &[String]) -> Result<()> {
        // What the local vault drops is dropped by the next session, and stays in the history.
        Ok(())
    }

    async fn forget_before(&self, cx: &Context, session: i64) -> Result<()> {
        let program = self.patient().arg("--force");
        let program = program.args(["remove", "increments", "--older-than"]);
        let outcome = program.arg(session.to_string()).arg(&self.to.location).run(cx).await?;
        self.good(&outcome, "remove old increments from").map(drop)
    }
}

fn make_later(path: &Path) -> Result<()> {
    let failed = |error| Error::io("set the time of", path, error);
    let file = std::fs::File::open(path).map_err(failed)?;
    let old = file.metadata().and_then(|found| found.modified()).map_err(failed)?;
    file.set_modified(std::time::SystemTime::now().max(old + Duration::from_secs(1))).map_err(failed)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn targets_are_hosts_and_directories() {
        for good in ["me@host::vault", "host::/srv/vault", "/srv/va ult"] {
            let target = Target::parse(good).unwrap();
            assert_eq!((target.text.as_str(), target.location.as_str()), (good, good));
        }
        let there = |text: &str| Target::parse(text).unwrap().location;
        assert_eq!(there("me@host::~/vault/"), "me@host::vault");
        assert_eq!(there("me@[2001:db8::7]::/srv/x"), r"me@2001\:db8\:\:7::/srv/x");
        assert_eq!(Target::parse("[::1]::$HOME/x").unwrap().text, "[::1]::x");
        for bad in [
            "",
            "/",
            "vault",
            "me@host:vault",
            "-oProxyCommand=x::y",
            "host::",
            "host::-x",
            "h::a'b",
            "[::1]:x",
            "::1::x",
            "h::~other/x",
            "/a$b",
            "h::$(x)",
            "a b::c",
        ] {
            assert!(Target::parse(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn a_message_of_many_lines_is_one() {
        let text = "NOTE:    One\nERROR:   Path '/a' couldn't be identified as being within an\n         existing backup repository\nERROR:   More\n";
        assert_eq!(complaint(text), "Path '/a' couldn't be identified as being within an existing backup repository");
        assert_eq!(complaint("Fatal:   broken\n"), "Fatal: broken");
    }

    #[test]
    fn what_the_other_side_said_is_told_where_it_did_not_come_up() {
        let own = "ERROR:   Couldn't start up the remote connection by executing 'ssh -o X {h}'\ndue to exception 'Truncated header <b''> (problem probably originated remotely)'.\n\nRemember that, under\nTraceback (most recent call last):\n  File x\nAttributeError: odd\n";
        let said = complaint(&format!("This account is expired.\nask Bob\n{own}"));
        assert_eq!(said, "the other side said: This account is expired.; ask Bob");
        let silent = complaint(own);
        assert!(
            silent.starts_with("the other side does not answer as rdiff-backup does: Truncated header"),
            "{silent}"
        );
        let bound = "Traceback (most recent call last):\n  File x\nrdiff_backup.Security.Violation: \nWARNING: Security Violation due to normalized path 'b'/x'' not within restricted path 'b'/srv''\n\nrdiff_backup.connection.ConnectionReadError: Truncated\n";
        assert!(complaint(bound).contains("not within restricted path"), "{}", complaint(bound));
    }

    #[test]
    fn times_of_sessions_are_seconds() {
        assert_eq!(
            times(b"-1 directory\n1786911714 directory\n1795465314 directory\n"),
            [1_786_911_714, 1_795_465_314]
        );
        assert_eq!(times(b"0 directory\n"), [0; 0]);
    }

    #[test]
    fn what_has_no_hash_is_known() {
        let text = "WARNING: Metadata file has no digest for mirror\n         file a/b-1.json, unable to compare.\nERROR: Action compare failed on step run\n";
        assert_eq!(without_digest(text), ["a/b-1.json"]);
    }

    #[test]
    fn patterns_in_paths_are_no_patterns() {
        assert_eq!(glob(Path::new("/a[1]*/b?")), b"/a[[]1][*]/b[?]");
    }
}
