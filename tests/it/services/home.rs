//! A directory with a pipeline file, and the command run on it.

use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};

use super::files;
use super::mariadb::{Engine, MariaDb, PASSWORD};
use super::rating::Rating;

/// See the module.
pub struct Site {
    pub home: tempfile::TempDir,
}

/// What the command said and how it ended.
#[derive(Debug)]
pub struct Said {
    pub status: i32,
    pub out: String,
    pub err: String,
}

impl Said {
    /// The report of `run --json` or `replay --json`: the last of their events.
    pub fn report(&self) -> serde_json::Value {
        let last = self.out.lines().last().unwrap_or_else(|| panic!("no event was written: {}", self.err));
        let report: serde_json::Value = serde_json::from_str(last).unwrap();
        assert_eq!(report["event"], "report", "{last}");
        report
    }
}

impl Site {
    /// A pipeline with both CDR flows and one local vault.
    pub fn new(url: &str) -> Self {
        let site = Self { home: tempfile::Builder::new().prefix("cdrvault-site").tempdir().unwrap() };
        site.secret("password", PASSWORD);
        site.pipeline(&Self::text(url));
        site
    }

    pub fn on(server: &MariaDb) -> Self {
        Self::new(&server.url())
    }

    /// The pipeline of [`Site::new`].
    pub fn text(url: &str) -> String {
        let password = if url.starts_with("mysql") { "password = { file = \"password\" }" } else { "" };
        format!(
            r#"
name = "test"
timezone = "Europe/Rome"
state = "state"
min-free = "1MiB"

[database.billing]
url = "{url}"
{password}

[sink.vault.local]
path = "vault"

[flow.ar_cdr]
source.ar-cdr = {{ database = "billing", money-scale = 4 }}
transforms = ["incremental", "parquet"]
sinks = ["vault"]

[flow.ar_source_cdr]
source.ar-source-cdr = {{ database = "billing" }}
transforms = ["incremental", "parquet"]
sinks = ["vault"]
"#
        )
    }

    pub fn path(&self, name: &str) -> PathBuf {
        self.home.path().join(name)
    }

    pub fn pipeline(&self, text: &str) {
        std::fs::write(self.path("pipeline.toml"), text).unwrap();
    }

    /// Changes the pipeline file; what is replaced must be there.
    pub fn edit(&self, from: &str, to: &str) {
        let text = std::fs::read_to_string(self.path("pipeline.toml")).unwrap();
        assert!(text.contains(from), "the pipeline has no `{from}`");
        self.pipeline(&text.replace(from, to));
    }

    pub fn secret(&self, name: &str, secret: &str) {
        use std::os::unix::fs::PermissionsExt as _;
        std::fs::write(self.path(name), format!("{secret}\n")).unwrap();
        std::fs::set_permissions(self.path(name), std::fs::Permissions::from_mode(0o600)).unwrap();
    }

    /// The account of an administrator, who may restore into the server's own database, as a target of `restore`.
    pub fn admin(&self, server: &MariaDb) -> Vec<String> {
        server.app("GRANT ALL ON asterisell.* TO admin@'127.0.0.1' IDENTIFIED BY 'admin-secret'");
        self.secret("admin", "admin-secret");
        // Triggers of the application have a test of their own.
        server.app("DROP TRIGGER IF EXISTS fixture_source_cdr_kind");
        vec![
            "--into".to_owned(),
            format!("mysql://admin@127.0.0.1:{}/asterisell", server.port()),
            "--password-file".to_owned(),
            self.path("admin").display().to_string(),
        ]
    }

    pub fn vault(&self) -> PathBuf {
        self.path("vault")
    }

    pub fn command(&self, verb: &str, more: &[&str]) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_cdrvault"));
        command
            .current_dir("/")
            .arg(verb)
            .arg(self.path("pipeline.toml"))
            .args(more)
            .env_remove("CDRVAULT_FAILPOINT")
            .env_remove("RUST_BACKTRACE")
            .stdin(Stdio::null());
        command
    }

    /// Runs a verb on the pipeline.
    pub fn run(&self, verb: &str, more: &[&str]) -> Said {
        said(self.command(verb, more).output().unwrap())
    }

    /// Runs a verb that must go well.
    pub fn ok(&self, verb: &str, more: &[&str]) -> Said {
        let said = self.run(verb, more);
        assert_eq!(said.status, 0, "{verb} {more:?} failed:\n{}\n{}", said.out, said.err);
        said
    }

    /// Runs a verb with a failpoint.
    pub fn with_failpoint(&self, verb: &str, failpoint: &str) -> Said {
        said(self.command(verb, &[]).env("CDRVAULT_FAILPOINT", failpoint).output().unwrap())
    }

    /// Starts a run with a failpoint and does not wait for it.
    pub fn start(&self, failpoint: &str) -> Child {
        let mut command = self.command("run", &[]);
        command.env("CDRVAULT_FAILPOINT", failpoint).stdout(Stdio::null()).stderr(Stdio::null());
        command.spawn().unwrap()
    }

    /// What a run published, in the order of its report.
    pub fn published(&self) -> Vec<String> {
        let said = self.ok("run", &["--json"]);
        let report = said.report();
        let units = report["units"].as_array().unwrap();
        let published = units.iter().filter(|unit| unit["result"] == "published");
        published.map(|u| format!("{} {}", u["dataset"].as_str().unwrap(), u["partition"].as_str().unwrap())).collect()
    }

    /// Every file of the vault with its content, without what changes from run to run (the lock).
    pub fn content(&self) -> Vec<(PathBuf, Vec<u8>)> {
        files(&self.vault())
            .into_iter()
            .filter(|path| !path.ends_with(".cdrvault/lock"))
            .map(|path| {
                let bytes = std::fs::read(&path).unwrap();
                (path, bytes)
            })
            .collect()
    }

    /// The live objects.
    pub fn live(&self) -> Vec<PathBuf> {
        let mut files = files(&self.vault());
        files.retain(|path| path.extension().is_some_and(|extension| extension == "parquet"));
        files
    }

    /// Files that only an interrupted run leaves.
    pub fn leftovers(&self) -> Vec<PathBuf> {
        let mut files = files(self.home.path());
        let spool = self.vault().join(".cdrvault/spool");
        files.retain(|path| path.to_string_lossy().contains("cdrvault-tmp") || path.starts_with(&spool));
        files
    }
}

/// A server with some days of 40 calls, and a site whose pipeline saves them.
pub fn filled(seed: u64, days: u64) -> (MariaDb, Site) {
    let server = MariaDb::start(Engine::InnoDb);
    Rating::new(seed, days, 40).fill(&server);
    let site = Site::on(&server);
    (server, site)
}

pub fn said(output: Output) -> Said {
    Said {
        status: output.status.code().unwrap_or(-1),
        out: String::from_utf8_lossy(&output.stdout).into_owned(),
        err: String::from_utf8_lossy(&output.stderr).into_owned(),
    }
}

/// A verb with a umask that lets everybody read and write.
pub fn open_to_all(site: &Site, verb: &str, more: &[&str]) -> Command {
    let plain = site.command(verb, more);
    let mut command = Command::new("sh");
    command
        .args(["-c", "umask 000; exec \"$0\" \"$@\""])
        .arg(plain.get_program())
        .args(plain.get_args())
        .current_dir("/")
        .stdin(Stdio::null());
    command
}

/// What other accounts may open below a directory, and the directory itself.
pub fn readable_by_others(directory: &Path) -> Vec<PathBuf> {
    use std::os::unix::fs::MetadataExt as _;
    let mut found = Vec::new();
    let mut all = vec![directory.to_owned()];
    while let Some(path) = all.pop() {
        let seen = std::fs::symlink_metadata(&path).unwrap();
        if seen.is_dir() {
            all.extend(std::fs::read_dir(&path).unwrap().map(|entry| entry.unwrap().path()));
        }
        if seen.mode() & 0o077 != 0 {
            found.push(path);
        }
    }
    found
}

/// Reads every Parquet file below a directory to its end: nothing half-written is visible under a live name.
pub fn all_whole(directory: &Path) {
    for path in files(directory).into_iter().filter(|path| path.extension().is_some_and(|end| end == "parquet")) {
        let file = std::fs::File::open(&path).unwrap();
        let reader = parquet::arrow::arrow_reader::ParquetRecordBatchReaderBuilder::try_new(file)
            .unwrap_or_else(|error| panic!("{} is not whole: {error}", path.display()));
        for batch in reader.build().unwrap() {
            batch.unwrap_or_else(|error| panic!("{} is not whole: {error}", path.display()));
        }
    }
}
