//! `[database.NAME]` in the pipeline file.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use cdrvault_format::error::{Error, Kind, Result};
use cdrvault_plugin::options::{Age, ByteSize, FilePath, Problem, Secret, Section, schema_of, secret_in_url};
use cdrvault_plugin::registry::{BuildDatabase, Plugin};
use cdrvault_plugin::stage::Session;
use cdrvault_plugin::target::{Target as RestoreTarget, TargetOptions};
use percent_encoding::percent_decode_str;
use schemars::JsonSchema;
use secrecy::{ExposeSecret as _, SecretString};
use serde::Deserialize;
use url::Url;

use super::mysql::{LONGEST_ROW, MySqlSession, MySqlTarget, Place, Server, Target, Tls};
use super::sqlite::SqliteSession;

/// The kinds of databases, by the scheme of their URL.
pub(crate) fn plugins() -> Vec<Plugin<dyn BuildDatabase>> {
    vec![
        Plugin {
            kind: "mysql",
            about: "MariaDB or MySQL: mysql://USER@HOST[:PORT]/DATABASE",
            details: "Reads by the binary protocol, in one consistent snapshot for all tables of a day. `mariadb://` is the \
                      same. Needs SELECT on the tables that are saved; to be told of changed days also SELECT and INSERT on \
                      `ar_daily_status_job`, and SELECT, INSERT and DELETE on `ar_daily_status_change`.",
            schema: schema_of::<MySqlOptions>,
            parse: parse_mysql,
        },
        Plugin {
            kind: "mariadb",
            about: "the same as mysql",
            details: "See mysql.",
            schema: schema_of::<MySqlOptions>,
            parse: parse_mysql,
        },
        Plugin {
            kind: "sqlite",
            about: "a SQLite file: sqlite:PATH, relative to the pipeline file, or sqlite:///ABSOLUTE/PATH",
            details: "One read transaction is the snapshot. The file is written to only where events are used.",
            schema: schema_of::<SqliteOptions>,
            parse: parse_sqlite,
        },
    ]
}

/// A MariaDB or MySQL database.
#[derive(Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
struct MySqlOptions {
    /// `mysql://USER@HOST[:PORT]/DATABASE`. No password here.
    url: String,
    /// The account's password: `{ file = "..." }`, `{ env = "..." }`, `{ credential = "..." }` or `{ command = [...] }`.
    #[serde(default)]
    password: Option<Secret>,
    /// The server's Unix socket; then the host of `url` is not used.
    #[serde(default)]
    socket: Option<FilePath>,
    /// Encryption of the connection: `verify-identity` for a server on another host, `preferred` for one on this host, unless
    /// another is written here.
    #[serde(default)]
    tls: Option<Tls>,
    /// PEM file of the authority that signed the server's certificate, for `verify-ca` and `verify-identity`.
    #[serde(default)]
    tls_ca: Option<FilePath>,
    /// How long to wait for the server to answer.
    #[serde(default = "ten_seconds")]
    connect_timeout: Age,
    /// The longest row that is read, as it comes from the server. While it is saved it is held in memory about ten times.
    #[serde(default = "longest_row")]
    max_row: ByteSize,
    /// How long one snapshot may stay open: while it is, the server delays ALTER TABLE.
    #[serde(default = "one_hour")]
    snapshot_limit: Age,
}

/// A SQLite database.
#[derive(Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
struct SqliteOptions {
    /// `sqlite:PATH` or `sqlite:///ABSOLUTE/PATH`.
    url: String,
}

fn ten_seconds() -> Age {
    Age::seconds(10)
}

fn longest_row() -> ByteSize {
    ByteSize::bytes(LONGEST_ROW as u64)
}

fn one_hour() -> Age {
    Age::hours(1)
}

struct MySqlDatabase {
    /// Without its password.
    server: Server,
    identity: String,
    password: Option<Secret>,
    connect_timeout: Duration,
    snapshot_limit: Duration,
    longest_row: usize,
}

fn parse_mysql(section: &mut Section<'_>) -> Option<Box<dyn BuildDatabase>> {
    let options: MySqlOptions = section.options()?;
    match mysql_server(&options) {
        Ok((server, identity)) => Some(Box::new(MySqlDatabase {
            server,
            identity,
            password: options.password,
            connect_timeout: options.connect_timeout.to_duration(),
            snapshot_limit: options.snapshot_limit.to_duration(),
            longest_row: options.max_row.as_usize(),
        })),
        Err(problem) => {
            let problem = Problem::new(section.value("url"), format!("`url`: {problem}"))
                .help("write it as \"mysql://USER@HOST:PORT/DATABASE\"");
            section.problem(problem);
            None
        }
    }
}

fn mysql_server(options: &MySqlOptions) -> Result<(Server, String), String> {
    let url = Url::parse(&options.url).map_err(|error| format!("this is not a URL: {error}"))?;
    let decoded = |text: &str| {
        let decoded = percent_decode_str(text).decode_utf8().map(std::borrow::Cow::into_owned);
        decoded.map_err(|_| "a part of it is not UTF-8 after decoding %XX".to_owned())
    };
    let host = url.host_str().unwrap_or_default().trim_start_matches('[').trim_end_matches(']');
    if host.is_empty() && options.socket.is_none() {
        return Err("it names no host".to_owned());
    }
    if let Some(query) = url.query() {
        return Err(format!("`?{query}` is not understood: options of the connection are keys of this section"));
    }
    let user = decoded(url.username())?;
    if user.is_empty() {
        return Err("it names no user".to_owned());
    }
    let database = decoded(url.path().trim_start_matches('/'))?;
    if database.is_empty() || database.contains('/') {
        return Err("it does not name one database".to_owned());
    }
    let port = url.port().unwrap_or(3306);
    let (place, shown) = match &options.socket {
        Some(socket) => (Place::Socket(socket.to_path_buf()), socket.display().to_string()),
        None if port == 3306 => (Place::Tcp { host: host.to_owned(), port }, host.to_owned()),
        None => (Place::Tcp { host: host.to_owned(), port }, format!("{host}:{port}")),
    };
    let identity = format!("mysql://{shown}/{database}");
    let tls_ca = options.tls_ca.clone().map(FilePath::into_inner);
    let tls = options.tls.unwrap_or_else(|| Tls::default_for(&place));
    Ok((Server { place, user, password: None, database, tls, tls_ca }, identity))
}

impl BuildDatabase for MySqlDatabase {
    fn identity(&self) -> String {
        self.identity.clone()
    }

    fn build(&self) -> Result<Arc<dyn Session>> {
        let password = self.password.as_ref().map(Secret::resolve).transpose()?;
        Ok(Arc::new(MySqlSession::new(self.server(password.as_ref())?, self.snapshot_limit)))
    }

    fn target(&self, options: &TargetOptions) -> Result<Arc<dyn RestoreTarget>> {
        // A restore may need another account than the one that only reads.
        let password = match (&options.password, &self.password) {
            (Some(given), _) => Some(given.clone()),
            (None, Some(ours)) => Some(ours.resolve()?),
            (None, None) => None,
        };
        Ok(Arc::new(MySqlTarget::new(self.server(password.as_ref())?, options.clone())))
    }
}

impl MySqlDatabase {
    fn server(&self, password: Option<&SecretString>) -> Result<Target> {
        if password.is_some_and(|password| password.expose_secret().contains('\0')) {
            return Err(Error::new(Kind::Config, format!("the password for {} has a NUL byte", self.identity)));
        }
        let server = Server { password: password.cloned(), ..self.server.clone() };
        Ok(Target {
            server,
            identity: self.identity.clone(),
            timeout: self.connect_timeout,
            longest_row: self.longest_row,
        })
    }
}

/// A database that a command line names: `mysql://USER@HOST[:PORT]/DATABASE`, and after a `?` the options `socket=PATH`,
/// `tls=HOW` and `tls-ca=PATH`, with a `&` between them.
pub(crate) fn target(text: &str, options: &TargetOptions) -> Result<Arc<dyn RestoreTarget>> {
    let (url, connection) = text.split_once('?').unwrap_or((text, ""));
    let wrong = |why: String| {
        Error::new(Kind::Config, format!("the target is not a database: {why}"))
            .hint("write it as mysql://USER@HOST:PORT/DATABASE, and the password into a file for --password-file")
    };
    if secret_in_url(url).is_some() {
        return Err(wrong("a password stands in it".to_owned()));
    }
    let mut section = MySqlOptions {
        url: url.to_owned(),
        password: None,
        socket: None,
        tls: None,
        tls_ca: None,
        connect_timeout: ten_seconds(),
        snapshot_limit: one_hour(),
        max_row: longest_row(),
    };
    for option in connection.split('&').filter(|option| !option.is_empty()) {
        let path = |path: &str| Some(FilePath::from(PathBuf::from(path)));
        match option.split_once('=') {
            Some(("socket", socket)) => section.socket = path(socket),
            Some(("tls", how)) => section.tls = Some(how.parse().map_err(|why| wrong(format!("`tls`: {why}")))?),
            Some(("tls-ca", authority)) => section.tls_ca = path(authority),
            // Without its value, which may be a password.
            _ => {
                let name = option.split('=').next().unwrap_or_default();
                return Err(wrong(format!("`{name}` is not one of `socket`, `tls` and `tls-ca`")));
            }
        }
    }
    let (server, identity) = mysql_server(&section).map_err(wrong)?;
    let database = MySqlDatabase {
        server,
        identity,
        password: None,
        connect_timeout: section.connect_timeout.to_duration(),
        snapshot_limit: section.snapshot_limit.to_duration(),
        longest_row: LONGEST_ROW,
    };
    database.target(options)
}

struct SqliteDatabase {
    path: PathBuf,
}

fn parse_sqlite(section: &mut Section<'_>) -> Option<Box<dyn BuildDatabase>> {
    let options: SqliteOptions = section.options()?;
    let rest = options.url.strip_prefix("sqlite:").unwrap_or_default();
    let path = rest.strip_prefix("//").unwrap_or(rest);
    if path.is_empty() || path.contains('?') {
        let problem = Problem::new(section.value("url"), "`url` names no file")
            .help("write it as \"sqlite:billing.sqlite\" or \"sqlite:///var/lib/app/billing.sqlite\"");
        section.problem(problem);
        return None;
    }
    Some(Box::new(SqliteDatabase { path: section.base().join(Path::new(path)) }))
}

impl BuildDatabase for SqliteDatabase {
    fn identity(&self) -> String {
        format!("sqlite://{}", self.path.display())
    }

    fn build(&self) -> Result<Arc<dyn Session>> {
        Ok(Arc::new(SqliteSession::new(self.path.clone())))
    }
}
