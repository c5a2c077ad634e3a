//! What a recipe takes for granted: the hosts that it names, and an admin's shell on them.
//!
//! A page keeps the names that an admin would type. Behind them are private servers, and a directory stands for `/`:
//! - `127.0.0.1/asterisell` gets the port of a MariaDB with some days of calls, and each SQL block of the page is run there by root;
//! - `ssh` and `ssh-keyscan` of `backup.example.net` lead to a private sshd, whose only key is restricted as the page says;
//! - the bucket `cdr-archive` is one of moto's, with the lock and the rules of life that the page gives it;
//! - `apt`, `useradd` and `su` do nothing to this system, and `install` changes no owner.

use std::path::Path;
use std::process::Command;

use regex::Regex;

use super::mariadb::{Engine, MariaDb};
use super::moto::Moto;
use super::rating::Rating;
use super::sshd::Sshd;

pub(crate) const BACKUP_HOST: &str = "backup.example.net";
pub(crate) const BUCKET: &str = "cdr-archive";

/// The days of January 2026 that the database has, and the calls of each.
const DAYS: u64 = 16;
const CALLS: u64 = 20;

/// See the module.
pub(crate) struct Hosts {
    pub(crate) database: Option<MariaDb>,
    ssh: Option<Sshd>,
    pub(crate) s3: Option<Moto>,
}

impl Hosts {
    /// Those that a page needs. `accounts` are the rights that its database gives to `cdrvault`, if the page itself says nothing of them.
    pub(crate) fn of(page: &str, accounts: &str) -> Self {
        Self {
            database: page.contains("mysql://cdrvault@").then(|| database(page, accounts)),
            ssh: page.contains(&format!("@{BACKUP_HOST}::")).then(Sshd::start),
            s3: page.contains(&format!("{BUCKET} --object-lock")).then(|| locked_bucket(page)),
        }
    }

    /// The place of the database, as the page and as this system calls it.
    fn place(&self) -> Option<(&'static str, String)> {
        let port = self.database.as_ref()?.port();
        Some(("@127.0.0.1/asterisell", format!("@127.0.0.1:{port}/asterisell")))
    }

    pub(crate) fn really(&self, text: &str) -> String {
        let mut text = self.place().map_or_else(|| text.to_owned(), |(shown, real)| text.replace(shown, &real));
        if let Some(s3) = &self.s3 {
            let section = "[sink.bucket.s3]\n";
            text = text.replace(section, &format!("{section}endpoint = \"{}\"\n", s3.endpoint()));
        }
        text
    }

    pub(crate) fn shown(&self, text: &str) -> String {
        self.place().map_or_else(|| text.to_owned(), |(shown, real)| text.replace(&real, shown))
    }

    /// What commands find in their environment.
    pub(crate) fn environment(&self) -> Vec<(&'static str, String)> {
        let Some(s3) = &self.s3 else { return Vec::new() };
        vec![
            ("AWS_ENDPOINT_URL", s3.endpoint()),
            ("AWS_REGION", s3.region().to_owned()),
            ("AWS_ACCESS_KEY_ID", s3.access_key().to_owned()),
            ("AWS_SECRET_ACCESS_KEY", s3.secret_key().to_owned()),
        ]
    }

    /// Makes the programs that stand before those of this system.
    pub(crate) fn programs(&self, bin: &Path, home: &str) {
        std::fs::create_dir_all(bin).unwrap();
        std::os::unix::fs::symlink(env!("CARGO_BIN_EXE_cdrvault"), bin.join("cdrvault")).unwrap();
        for nothing in ["apt", "useradd"] {
            script(&bin.join(nothing), "");
        }
        // `su USER -s SHELL -c COMMAND`
        script(&bin.join("su"), "shift; exec \"$2\" \"$3\" \"$4\"");
        let install = "for word in \"$@\"; do shift; case $word in -o | -g) skip=1; continue ;; esac; \
                       if [ -n \"$skip\" ]; then skip=; continue; fi; set -- \"$@\" \"$word\"; done; exec /usr/bin/install \"$@\"";
        script(&bin.join("install"), install);
        if let Some(server) = &self.database {
            let socket = server.socket();
            let client = "exec /usr/bin/mariadb --no-defaults -uroot";
            script(&bin.join("mariadb"), &format!("{client} --socket='{}' \"$@\"", socket.display()));
        }
        if let Some(server) = &self.ssh {
            let (port, user) = (server.port(), server.user());
            let here = format!("-o HostName=127.0.0.1 -o Port={port} -o User={user} -o HostKeyAlias={BACKUP_HOST}");
            let config = bin.with_file_name("ssh_config");
            let known =
                format!("IdentityFile {home}/root/.ssh/id_ed25519\nUserKnownHostsFile {home}/root/.ssh/known_hosts\n");
            std::fs::write(&config, known).unwrap();
            script(&bin.join("ssh"), &format!("exec /usr/bin/ssh -F '{}' {here} \"$@\"", config.display()));
            let scan = format!("/usr/bin/ssh-keyscan -p {port} 127.0.0.1 2> /dev/null");
            script(&bin.join("ssh-keyscan"), &format!("{scan} | sed 's/^\\[127.0.0.1\\]:{port} /{BACKUP_HOST} /'"));
        }
    }

    /// What the page promises of the hosts, after all that it does.
    pub(crate) fn check(&self) {
        if let Some(s3) = &self.s3 {
            s3.boto3(&format!("BUCKET = '{BUCKET}'\n{CANNOT_DELETE}")).unwrap();
        }
    }

    /// Lets the key in that the page makes, restricted as the page says: the line `command="..."`, already with real paths.
    pub(crate) fn authorize(&self, page: &str, key: &Path) {
        let Some(server) = &self.ssh else { return };
        let line = Regex::new(r"(?m)^(command=.*) ssh-ed25519 AAAA\.\.\. cdrvault$").unwrap();
        let restriction = &line.captures(page).expect("the page says how the key is restricted")[1];
        let key = std::fs::read_to_string(key).expect("the page makes a key");
        server.authorize_line(&format!("{restriction} {key}"));
    }
}

/// Nothing that is in the bucket can be destroyed, as a client that may do everything finds.
const CANNOT_DELETE: &str = r#"
kept = 0
for found in s3.get_paginator("list_object_versions").paginate(Bucket=BUCKET):
    for version in found.get("Versions", []):
        try:
            s3.delete_object(Bucket=BUCKET, Key=version["Key"], VersionId=version["VersionId"])
            sys.exit(version["Key"] + " could be destroyed")
        except ClientError as error:
            assert error.response["Error"]["Code"] == "AccessDenied", error
        kept += 1
assert kept > 60, kept
"#;

/// The blocks of a kind, as ```` ```sql ````.
pub(crate) fn blocks(page: &str, kind: &str) -> Vec<String> {
    let block = Regex::new(&format!("(?ms)^```{kind}\n(.*?)^```$")).unwrap();
    block.captures_iter(page).map(|found| found[1].to_owned()).collect()
}

fn database(page: &str, accounts: &str) -> MariaDb {
    let server = MariaDb::start(Engine::InnoDb);
    server.sql("", "DROP USER cdrvault@'127.0.0.1'");
    // A routine and a trigger, for which dumps need rights.
    server.app("CREATE FUNCTION half(x INT) RETURNS INT DETERMINISTIC RETURN x / 2");
    server.app("CREATE VIEW calls_a_day AS SELECT DATE(calldate) AS day, COUNT(*) AS calls FROM ar_cdr GROUP BY 1");
    Rating::new(6, DAYS, CALLS).fill(&server);
    let own = blocks(page, "sql");
    let is_own = own.iter().any(|sql| sql.contains("CREATE USER cdrvault@"));
    server.app(&if is_own { own.concat() } else { accounts.to_owned() });
    server
}

/// The bucket of the page, made by another client with what the page writes for that of AWS.
fn locked_bucket(page: &str) -> Moto {
    let server = Moto::start();
    server.versioned_bucket(BUCKET, true);
    let argument = |name: &str| {
        let option = Regex::new(&format!(r"(?s)--{name}[\\\s]+'([^']*)'")).unwrap();
        option.captures(page).unwrap_or_else(|| panic!("the page has no --{name}"))[1].to_owned()
    };
    let (lock, life) = (argument("object-lock-configuration"), argument("lifecycle-configuration"));
    let script = format!(
        "import json\ns3.put_object_lock_configuration(Bucket='{BUCKET}', ObjectLockConfiguration=json.loads('''{lock}'''))\n\
         s3.put_bucket_lifecycle_configuration(Bucket='{BUCKET}', LifecycleConfiguration=json.loads('''{life}'''))\n"
    );
    server.boto3(&script).unwrap();
    server
}

fn script(path: &Path, text: &str) {
    use std::os::unix::fs::PermissionsExt as _;
    std::fs::write(path, format!("#!/bin/sh\n{text}\n")).unwrap();
    std::fs::set_permissions(path, std::fs::Permissions::from_mode(0o755)).unwrap();
}

/// Runs a block of a page as an admin would, in a shell that stops at the first error.
pub(crate) fn in_shell(text: &str, home: &Path, path: &str) {
    let done = Command::new("sh").args(["-ec", text]).current_dir(home).env("PATH", path).output().unwrap();
    assert!(done.status.success(), "{text}\n{}", String::from_utf8_lossy(&done.stderr));
}
