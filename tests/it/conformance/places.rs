//! A server and a sink of each kind.

use std::any::Any;
use std::path::Path;
use std::sync::Arc;

use object_store::aws::AmazonS3Builder;

use super::subject::{Far, Subject};
use crate::services::garage::Garage;
use crate::services::moto::Moto;
use crate::services::proxy::{Fault, Proxy};
use crate::services::rsyncd::{self, Rsyncd};
use crate::services::sshd::Sshd;

pub(crate) fn directory() -> tempfile::TempDir {
    tempfile::Builder::new().prefix("cdrvault-far end").tempdir().unwrap()
}

pub(crate) fn local() -> Subject {
    let far = directory();
    let path = far.path().join("vault");
    let mut subject = Subject::new(
        &format!("[sink.subject.local]\npath = \"{}\"\n", path.display()),
        Far::Directory(path),
        vec![Box::new(far)],
    );
    subject.tells_time = true;
    subject
}

pub(crate) const MIRRORED: &str = "[sink.vault.local]\npath = \"vault\"\n";

/// A mirror on another host; the way to it can be cut.
pub(crate) fn over_ssh(kind: &str, colon: &str, more: &str, force: Option<&dyn Fn(&Path) -> String>) -> Subject {
    let server = Sshd::start();
    let root = server.directory();
    let proxy = Arc::new(Proxy::start(([127, 0, 0, 1], server.port()).into()));
    if let Some(command) = force {
        server.force_command(Some(&command(&root)));
    }
    // A host is known by its name and port.
    let known = root.join("known");
    let keys = std::fs::read_to_string(server.known_hosts()).unwrap();
    let renamed = keys.replace(&format!(":{}", server.port()), &format!(":{}", proxy.address().port()));
    std::fs::write(&known, renamed).unwrap();
    let path = if force.is_some() {
        // rrsync lets nobody into what is not there.
        std::fs::create_dir(root.join("far")).unwrap();
        "far".to_owned()
    } else {
        root.join("far").display().to_string()
    };
    let sinks = format!(
        "{MIRRORED}[sink.subject.{kind}]\nmirror = \"vault\"\nto = \"{}@127.0.0.1{colon}{path}\"\n{more}\
         ssh = {{ port = {}, identity-file = \"{}\", known-hosts = \"{}\", connect-timeout = \"5s\", stall-timeout = \"20s\" }}\n",
        server.user(),
        proxy.address().port(),
        server.identity_file().display(),
        known.display(),
    );
    let mut subject = Subject::new(&sinks, Far::Directory(root.join("far")), vec![Box::new(server)]);
    subject.fault = Some(Box::new(move |cut| proxy.set(if cut { Fault::CutAfter(5_000_000) } else { Fault::None })));
    subject.slow = true;
    subject.tells_time = kind == "rsync";
    subject
}

/// A module of a daemon; the way to it can be cut.
pub(crate) fn to_daemon() -> Subject {
    let server = Rsyncd::start();
    let proxy = Arc::new(Proxy::start(([127, 0, 0, 1], server.port()).into()));
    let sinks = format!(
        "{MIRRORED}[sink.subject.rsync]\nmirror = \"vault\"\nto = \"rsync://cdr@127.0.0.1:{}/locked/far\"\n\
         password = {{ file = \"password\" }}\n",
        proxy.address().port()
    );
    let far = Far::Directory(server.module().join("far"));
    let mut subject = Subject::new(&sinks, far, vec![Box::new(server)]);
    secret(&subject, "password", rsyncd::PASSWORD);
    subject.fault = Some(Box::new(move |cut| proxy.set(if cut { Fault::CutAfter(5_000_000) } else { Fault::None })));
    subject.slow = true;
    subject
}

/// A mirror in another directory of this machine.
pub(crate) fn to_directory(kind: &str) -> Subject {
    let disk = directory();
    let far = disk.path().join("far");
    let sinks = format!("{MIRRORED}[sink.subject.{kind}]\nmirror = \"vault\"\nto = \"{}\"\n", far.display());
    let mut subject = Subject::new(&sinks, Far::Directory(far), vec![Box::new(disk)]);
    subject.slow = true;
    subject.tells_time = kind == "rsync";
    subject
}

/// What is sent at 40 MiB a second.
pub(crate) fn limited(mut subject: Subject) -> Subject {
    subject.largest = 1;
    subject.limited = true;
    subject
}

pub(crate) fn bucket(
    endpoint: &str,
    direct: u16,
    region: &str,
    bucket: &str,
    key: (&str, &str),
    more: &str,
    server: Box<dyn Any>,
) -> Subject {
    let prefix = "pre fix/é+=&%#'~!*()";
    let proxy = Arc::new(Proxy::start(([127, 0, 0, 1], direct).into()));
    let sinks = format!(
        "[sink.subject.s3]\nurl = \"s3://{bucket}/{prefix}\"\nendpoint = \"http://127.0.0.1:{}\"\nregion = \"{region}\"\n\
         access-key-id = \"{}\"\nsecret-access-key = {{ file = \"secret\" }}\nretry-for = \"2s\"\n{more}",
        proxy.address().port(),
        key.0,
    );
    let store = AmazonS3Builder::new()
        .with_endpoint(endpoint)
        .with_allow_http(true)
        .with_region(region)
        .with_bucket_name(bucket)
        .with_access_key_id(key.0)
        .with_secret_access_key(key.1)
        .build()
        .unwrap();
    let mut subject = Subject::new(&sinks, Far::Bucket(Box::new(store), prefix.to_owned()), vec![server]);
    secret(&subject, "secret", key.1);
    subject.fault = Some(Box::new(move |cut| {
        if cut {
            // Those that are open would not be cut.
            proxy.set(Fault::Reset);
        }
        proxy.set(if cut { Fault::CutAfter(5_000_000) } else { Fault::None });
    }));
    subject
}

pub(crate) fn garage(more: &str) -> Subject {
    let server = Garage::start();
    let (id, secret) = (server.access_key().to_owned(), server.secret_key().to_owned());
    bucket(&server.endpoint(), server.port(), server.region(), server.bucket(), (&id, &secret), more, Box::new(server))
}

pub(crate) fn moto() -> Subject {
    let server = Moto::start();
    let key = (server.access_key(), server.secret_key());
    bucket(&server.endpoint(), server.port(), server.region(), server.bucket(), key, "", Box::new(server))
}

pub(crate) fn rsync() -> Subject {
    over_ssh("rsync", ":", "", None)
}

pub(crate) fn rrsync() -> Subject {
    over_ssh("rsync", ":", "", Some(&|root| format!("rrsync {}", root.display())))
}

pub(crate) fn rdiff() -> Subject {
    over_ssh("rdiff", "::", "", None)
}

/// A file that nobody else may read.
fn secret(subject: &Subject, name: &str, content: &str) {
    let path = subject.home.path().join(name);
    std::fs::write(&path, content).unwrap();
    std::fs::set_permissions(&path, std::os::unix::fs::PermissionsExt::from_mode(0o600)).unwrap();
}
