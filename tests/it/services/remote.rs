//! Sinks elsewhere, as sections of a pipeline file, and what they hold, brought back without the program.

use std::path::{Path, PathBuf};
use std::process::Command;

use super::garage::Garage;
use super::home::{Site, said};
use super::mariadb::MariaDb;
use super::sshd::Sshd;

/// The account and the keys, as options of a sink that is reached by ssh.
pub fn ssh_options(server: &Sshd) -> String {
    format!(
        "ssh = {{ port = {}, identity-file = \"{}\", known-hosts = \"{}\", connect-timeout = \"5s\", stall-timeout = \"20s\" }}\n",
        server.port(),
        server.identity_file().display(),
        server.known_hosts().display()
    )
}

/// A search path whose `ssh` has this server in its configuration, as an admin's `~/.ssh/config` would.
pub fn ssh_that_knows(server: &Sshd, directory: &Path) -> String {
    use std::os::unix::fs::PermissionsExt as _;
    std::fs::create_dir(directory).unwrap();
    let config = directory.join("config");
    let (identity, known) = (server.identity_file(), server.known_hosts());
    let text = format!(
        "Port {}\nIdentityFile {}\nUserKnownHostsFile {}\n",
        server.port(),
        identity.display(),
        known.display()
    );
    std::fs::write(&config, text).unwrap();
    let ssh = directory.join("ssh");
    let real = super::places::program("ssh", "openssh-client");
    std::fs::write(&ssh, format!("#!/bin/sh\nexec {} -F {} \"$@\"\n", real.display(), config.display())).unwrap();
    std::fs::set_permissions(&ssh, std::fs::Permissions::from_mode(0o755)).unwrap();
    format!("{}:{}", directory.display(), std::env::var("PATH").unwrap_or_default())
}

/// `[sink.mirror.rsync]`
pub fn rsync(server: &Sshd) -> String {
    let to = format!("{}@127.0.0.1:{}", server.user(), server.directory().join("rsync").display());
    format!("[sink.mirror.rsync]\nmirror = \"vault\"\nto = \"{to}\"\n{}\n", ssh_options(server))
}

/// `[sink.offsite.rdiff]`
pub fn rdiff(server: &Sshd) -> String {
    let to = format!("{}@127.0.0.1::{}", server.user(), server.directory().join("rdiff").display());
    format!("[sink.offsite.rdiff]\nmirror = \"vault\"\nto = \"{to}\"\n{}\n", ssh_options(server))
}

/// `[sink.bucket.s3]`, whose secret is in the site's file `s3-secret`.
pub fn s3(server: &Garage, site: &Site) -> String {
    site.secret("s3-secret", server.secret_key());
    s3_section(&server.endpoint(), server.region(), server.bucket(), server.access_key())
}

pub fn s3_section(endpoint: &str, region: &str, bucket: &str, key: &str) -> String {
    format!(
        "[sink.bucket.s3]\nurl = \"s3://{bucket}/site\"\nendpoint = \"{endpoint}\"\nregion = \"{region}\"\n\
         access-key-id = \"{key}\"\nsecret-access-key = {{ file = \"s3-secret\" }}\nretry-for = \"2s\"\nconnect-timeout = \"2s\"\n\n"
    )
}

/// Adds sinks to a site's pipeline, and lists them in each of its flows.
pub fn add(site: &Site, sections: &str, names: &[&str]) {
    site.edit("[flow.ar_cdr]", &format!("{sections}[flow.ar_cdr]"));
    let list = names.iter().map(|name| format!(", \"{name}\"")).collect::<String>();
    site.edit("sinks = [\"vault\"", &format!("sinks = [\"vault\"{list}"));
}

/// Adds a flow of each kind that is not a table: `etc`, a tree of files, and `configurations`, a dump.
pub fn add_files_and_dump(site: &Site, server: &MariaDb, sinks: &[&str]) {
    server.app("GRANT SHOW VIEW, TRIGGER, EVENT ON asterisell.* TO cdrvault@'127.0.0.1'");
    std::fs::create_dir(site.path("etc")).unwrap();
    std::fs::write(site.path("etc/asterisk.conf"), "one").unwrap();
    let text = std::fs::read_to_string(site.path("pipeline.toml")).unwrap();
    site.pipeline(&format!(
        "{text}\n[flow.etc]\nsource.files = {{ path = \"etc\" }}\ntransforms = [\"incremental\"]\nsinks = {sinks:?}\n\
         [flow.configurations]\nsource.dump = {{ database = \"billing\", tables = \"configuration\" }}\n\
         transforms = [\"incremental\", {{ compress = \"zstd(3)\" }}]\nsinks = {sinks:?}\n"
    ));
}

/// What rdiff-backup restores of a repository, `steps` sessions ago, in a new directory.
pub fn rdiff_restore(server: &Sshd, steps: u32, into: &Path) -> PathBuf {
    let _ = std::fs::remove_dir_all(into);
    let done = said(
        Command::new("rdiff-backup")
            .args(["restore", "--at", &format!("{steps}B")])
            .arg(server.directory().join("rdiff"))
            .arg(into)
            .output()
            .unwrap(),
    );
    assert_eq!(done.status, 0, "{}", done.err);
    into.to_owned()
}
