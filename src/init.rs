//! `init`: a commented pipeline file to start from.

use std::fs::OpenOptions;
use std::io::Write as _;
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};

use cdrvault_engine::config;
use cdrvault_format::error::Error;
use cdrvault_plugin::options::Day;
use jiff::tz::TimeZone;

use crate::exit::{Exit, Failure};
use crate::globals::Globals;
use crate::{output, registry};

/// Write a commented pipeline file to start from.
#[derive(Debug, clap::Args)]
#[command(
    after_help = "Examples:\n  cdrvault init /etc/cdrvault/pipelines.d/asterisell.toml\n  cdrvault init x.toml --database-url sqlite:billing.sqlite --vault ./vault --state ./state --since 2026-01-01"
)]
pub(crate) struct Args {
    /// The file to write. It must not exist.
    file: PathBuf,
    /// The name of the pipeline; that of the file by default.
    #[arg(long)]
    name: Option<String>,
    /// The database, without a password.
    #[arg(long, value_name = "URL", default_value = "mysql://cdrvault@127.0.0.1/asterisell")]
    database_url: String,
    /// The file that holds the password of the database.
    #[arg(long, value_name = "FILE")]
    password_file: Option<String>,
    /// The directory of the vault; /var/backups/NAME by default.
    #[arg(long, value_name = "DIR")]
    vault: Option<String>,
    /// The directory of lock, spool and history; /var/lib/cdrvault/NAME by default.
    #[arg(long, value_name = "DIR")]
    state: Option<String>,
    /// The wall clock of the billing host; that of this system by default.
    #[arg(long, value_name = "ZONE")]
    timezone: Option<String>,
    /// The first day to save; all days by default.
    #[arg(long, value_name = "DAY", value_parser = day)]
    since: Option<Day>,
}

fn day(text: &str) -> Result<Day, String> {
    text.parse().map_err(|wrong: cdrvault_plugin::options::Explained| format!("{}: {}", wrong.cause, wrong.help))
}

pub(crate) fn run(args: &Args, globals: &Globals) -> Result<Exit, Failure> {
    if cdrvault_plugin::options::secret_in_url(&args.database_url).is_some() {
        let message = "the URL holds a password: put it into a file, mode 0600, and name that by --password-file";
        return Err(Failure::Usage(message.to_owned()));
    }
    let system = TimeZone::system();
    let text = text(args, system.iana_name());
    // Whatever the flags brought in is checked before anything is written.
    if let Err(problems) = config::load(&args.file, &text, &registry()) {
        let first = problems.iter().next();
        let help = first.and_then(|problem| problem.help.as_deref()).unwrap_or("see --help");
        let message = first.map_or("these flags make no pipeline", |problem| &problem.message);
        return Err(Failure::Usage(format!("{message}: {help}")));
    }
    write(&args.file, &text)?;
    if !globals.quiet {
        output::text(&next(args));
    }
    Ok(Exit::Done)
}

/// Nobody else can read the file, and no other file is replaced.
fn write(path: &Path, text: &str) -> Result<(), Error> {
    let file = OpenOptions::new().write(true).create_new(true).mode(0o600).open(path);
    let written = file.and_then(|mut file| file.write_all(text.as_bytes()).and_then(|()| file.sync_all()));
    written.map_err(|error| {
        let hint = match error.kind() {
            std::io::ErrorKind::AlreadyExists => Some("name another file, or move this one away"),
            std::io::ErrorKind::NotFound => Some("make its directory first"),
            _ => None,
        };
        let error = Error::io("write the pipeline file", path, error);
        hint.into_iter().fold(error, Error::hint)
    })
}

fn next(args: &Args) -> String {
    let file = args.file.to_string_lossy();
    // Without a `/` and the ending it would be looked up as a name, elsewhere.
    let is_path = file.contains('/') || args.file.extension().is_some_and(|ending| ending == "toml");
    let file = if is_path && !file.starts_with('-') { file } else { format!("./{file}").into() };
    let file = output::shell_word(&file);
    let password =
        args.password_file().map(|path| format!("put the password of the database into {path} (mode 0600), then\n"));
    format!(
        "wrote {}\n{}  cdrvault validate {file}\n  cdrvault run {file} -n    # the plan\n",
        args.file.display(),
        password.unwrap_or_default()
    )
}

impl Args {
    fn name(&self) -> String {
        let stem = || self.file.file_stem().map_or_else(String::new, |stem| stem.to_string_lossy().into_owned());
        self.name.clone().unwrap_or_else(stem)
    }

    /// A file has no password.
    fn password_file(&self) -> Option<String> {
        let server = !self.database_url.starts_with("sqlite:");
        self.password_file.clone().or_else(|| server.then(|| format!("/etc/cdrvault/{}.password", self.name())))
    }
}

/// A string as TOML has it. Its basic strings are those of JSON, but for one control character.
fn quoted(text: &str) -> String {
    serde_json::Value::from(text).to_string().replace('\u{7f}', "\\u007F")
}

fn text(args: &Args, system_zone: Option<&str>) -> String {
    let name = args.name();
    let zone = match args.timezone.as_deref().or(system_zone) {
        Some(zone) => format!("timezone = {}", quoted(zone)),
        None => "# timezone = \"Europe/Rome\"".to_owned(),
    };
    let state = match &args.state {
        Some(state) => format!("state = {}", quoted(state)),
        None => format!("# state = {}", quoted(&format!("/var/lib/cdrvault/{name}"))),
    };
    let password = match args.password_file() {
        Some(file) => format!(
            "# Or {{ credential = \"billing\" }} (systemd), {{ env = \"BILLING_PASSWORD\" }}, {{ command = [\"pass\", \"billing\"] }}.\n\
             password = {{ file = {} }}\n",
            quoted(&file)
        ),
        None => String::new(),
    };
    let since = args.since.map_or_else(String::new, |day| format!(", since = \"{day}\""));
    let vault = args.vault.clone().unwrap_or_else(|| format!("/var/backups/{name}"));
    format!(
        r#"# A pipeline of cdrvault: what is saved, from where, to where.
# `cdrvault stages list` shows all kinds of stages, `cdrvault stages describe KIND` their options.

# Vaults and event rows carry the name: do not change it later.
name = {name}

# The wall clock of the billing host. Its days are what is saved.
{zone}

# Lock, spool and run history. It may be deleted: that costs a full sweep.
{state}

# How many days are worked on at a time, and how much room is left free on every disk.
# workers = 2
# min-free = "256MiB"

[database.billing]
url = {url}
{password}
# A vault: Parquet files by day, which any reader can query, with their receipts.
[sink.vault.local]
path = {vault}
# Who may query it: files get this mode, directories the `x` that goes with it.
# mode = "0640"
# group = "backup"

# The rated calls.
[flow.ar_cdr]
source.ar-cdr = {{ database = "billing"{since} }}
transforms = ["incremental", "parquet"]
sinks = ["vault"]

# The calls as received.
[flow.ar_source_cdr]
source.ar-source-cdr = {{ database = "billing"{since} }}
transforms = ["incremental", "parquet"]
sinks = ["vault"]

# A directory tree; an unchanged file is stored once for ever.
# [flow.etc]
# source.files = {{ path = "/etc", exclude = ["shadow*", "ssl/private/**"] }}
# transforms = ["incremental"]
# sinks = ["vault"]
"#,
        name = quoted(&name),
        url = quoted(&args.database_url),
        vault = quoted(&vault),
    )
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt as _;

    use clap::Parser;

    use super::*;

    #[derive(Parser)]
    struct Line {
        #[command(flatten)]
        args: Args,
    }

    fn args(line: &[&str]) -> Args {
        Line::parse_from([&["init"], line].concat()).args
    }

    fn loaded(args: &Args) -> config::Pipeline {
        let text = text(args, Some("Europe/Rome"));
        config::load(&args.file, &text, &registry()).unwrap_or_else(|problems| panic!("{}", problems.render(false)))
    }

    /// Without the marks of its comments, too: what they propose is right.
    #[test]
    fn what_it_writes_is_sound() {
        let plain = args(&["asterisell.toml"]);
        let pipeline = loaded(&plain);
        assert_eq!((pipeline.name.as_str(), pipeline.flows.len()), ("asterisell", 2));
        assert!(pipeline.warnings.is_empty());
        let proposed: String = text(&plain, None)
            .lines()
            .map(|line| {
                line.strip_prefix("# ").filter(|line| line.contains(" = ") || line.starts_with('[')).unwrap_or(line)
            })
            .filter(|line| !line.starts_with("Or "))
            .map(|line| format!("{line}\n"))
            .collect();
        let pipeline = config::load(Path::new("x.toml"), &proposed, &registry());
        let pipeline = pipeline.unwrap_or_else(|problems| panic!("{}", problems.render(false)));
        assert_eq!((pipeline.flows.len(), pipeline.workers), (3, 2));
    }

    #[test]
    fn flags_fill_it_in() {
        let all = args(&[
            "x.toml",
            "--name=rome",
            "--database-url=mysql://u@db.example.net:3307/cdr",
            "--vault=/srv/va\"ult\\",
            "--state=/srv/state",
            "--timezone=Asia/Tokyo",
            "--password-file=/root/pw",
            "--since=2026-01-01",
        ]);
        let pipeline = loaded(&all);
        assert_eq!(pipeline.name, "rome");
        assert_eq!(pipeline.state, Path::new("/srv/state"));
        assert_eq!(pipeline.wall_clock().iana_name(), Some("Asia/Tokyo"));
        assert_eq!(pipeline.sinks[0].build.describe(), "/srv/va\"ult\\");
        assert!(pipeline.flows.iter().all(|flow| flow.source.since() == Some(jiff::civil::date(2026, 1, 1))));
        assert!(!text(&args(&["x.toml", "--database-url=sqlite:x.db"]), None).contains("password"));
    }

    #[test]
    fn what_it_says_to_type_can_be_typed() {
        let typed = |file: &str| next(&args(&[file, "--name=x"])).split_once("validate ").unwrap().1.to_owned();
        for (file, word) in [
            ("second", "./second"),
            ("second.toml", "second.toml"),
            ("a/second", "a/second"),
            ("second.txt", "./second.txt"),
            ("two words.toml", "'two words.toml'"),
        ] {
            assert!(typed(file).starts_with(&format!("{word}\n")), "{file}: {}", typed(file));
        }
    }

    #[test]
    fn it_replaces_nothing() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("x.toml");
        write(&path, "first").unwrap();
        assert_eq!(std::fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
        let again = write(&path, "second").unwrap_err();
        assert_eq!(again.hint_text(), Some("name another file, or move this one away"));
        assert_eq!(std::fs::read_to_string(&path).unwrap(), "first");
        assert_eq!(
            write(&directory.path().join("none/x.toml"), "").unwrap_err().hint_text(),
            Some("make its directory first")
        );
    }
}
