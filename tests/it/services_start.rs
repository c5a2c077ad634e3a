//! The tests' own servers do what the tests believe of them.

use std::fs;
use std::io::{ErrorKind, Read as _, Write as _};
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream};
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use crate::services;
use crate::services::garage::Garage;
use crate::services::home::{Said, said};
use crate::services::moto::Moto;
use crate::services::proxy::{Fault, Proxy};
use crate::services::sshd::Sshd;

fn ssh(server: &Sshd, more: &[&str], command: &str) -> Said {
    said(Command::new("ssh").args(more).args(server.ssh_options()).args(["127.0.0.1", command]).output().unwrap())
}

/// The processes that an sshd has for its sessions.
fn sessions(server: &Sshd) -> Vec<String> {
    let children = format!("/proc/{0}/task/{0}/children", server.pid());
    fs::read_to_string(children).unwrap_or_default().split_whitespace().map(str::to_owned).collect()
}

#[test]
fn sshd_lets_one_key_in_and_is_known_by_its_own() {
    let mut server = Sshd::start();
    let answer = ssh(&server, &[], "echo \"$USER\"; command -v rsync");
    assert_eq!(answer.status, 0, "{}", answer.err);
    assert!(answer.out.starts_with(&format!("{}\n/", server.user())), "{}", answer.out);

    let other = format!("IdentityFile={}", server.other_identity().display());
    let replaced = |option: String| if option.starts_with("IdentityFile=") { other.clone() } else { option };
    let options = server.ssh_options().into_iter().map(replaced);
    let refused = said(Command::new("ssh").args(options).args(["127.0.0.1", "echo in"]).output().unwrap());
    assert_eq!(refused.status, 255);
    assert!(refused.err.contains("Permission denied (publickey)"), "{}", refused.err);

    server.restart();
    assert_eq!(ssh(&server, &[], "echo again").out, "again\n");
    server.change_host_key();
    let refused = ssh(&server, &[], "echo in");
    assert_eq!((refused.status, refused.out.as_str()), (255, ""));
    assert!(refused.err.contains("Host key verification failed"), "{}", refused.err);
    server.stop();
    assert!(ssh(&server, &[], "echo in").err.contains("Connection refused"));
}

#[test]
fn a_killed_sshd_takes_its_sessions_along() {
    let mut server = Sshd::start();
    let mark = server.directory().join("mark");
    let command = format!("while sleep 0.01; do echo >> {}; done", mark.display());
    let client =
        Command::new("ssh").args(server.ssh_options()).args(["127.0.0.1", &command]).stderr(Stdio::null()).spawn();
    let mut client = client.unwrap();
    services::wait_for(&mark);
    assert_eq!(sessions(&server).len(), 1);
    let started = Instant::now();
    server.kill();
    assert!(!client.wait().unwrap().success());
    let written = fs::metadata(&mark).unwrap().len();
    std::thread::sleep(Duration::from_millis(200));
    assert_eq!(fs::metadata(&mark).unwrap().len(), written, "the session goes on");
    assert!(started.elapsed() < Duration::from_secs(10));
    server.restart();
    assert_eq!(ssh(&server, &[], "echo again").out, "again\n");
}

#[test]
fn rsync_is_held_in_its_directory_by_a_forced_rrsync() {
    let server = Sshd::start();
    let here = tempfile::tempdir().unwrap();
    fs::write(here.path().join("file"), "content").unwrap();
    fs::write(server.directory().parent().unwrap().join("outside"), "secret").unwrap();
    let rsync = |from: &str, to: &str| {
        let shell = format!("ssh {}", server.ssh_options().join(" "));
        said(Command::new("rsync").args(["-t", "-e", &shell, from, to]).output().unwrap())
    };
    let file = here.path().join("file").display().to_string();

    server.force_command(Some(&format!("rrsync {}", server.directory().display())));
    let sent = rsync(&file, "127.0.0.1:arrived");
    assert_eq!(sent.status, 0, "{}", sent.err);
    assert_eq!(fs::read_to_string(server.directory().join("arrived")).unwrap(), "content");
    let outside = rsync("127.0.0.1:../outside", &format!("{file}.outside"));
    assert_ne!(outside.status, 0);
    assert!(!Path::new(&format!("{file}.outside")).exists());
    assert_ne!(ssh(&server, &[], "echo in").out, "in\n");

    server.force_command(None);
    assert_eq!(ssh(&server, &[], "echo in").out, "in\n");
}

/// Writes, reads, and reads what is not there.
const PUT_AND_GET: &str = r#"
s3.put_object(Bucket="vault", Key="a/b", Body=b"content")
print(s3.get_object(Bucket="vault", Key="a/b")["Body"].read().decode())
try:
    s3.get_object(Bucket="vault", Key="a/c")
except ClientError as error:
    print(error.response["Error"]["Code"])
"#;

#[test]
fn garage_keeps_what_it_was_given_and_gives_keys_only_their_rights() {
    let mut server = Garage::start();
    assert_eq!(server.boto3(PUT_AND_GET).unwrap(), "content\nNoSuchKey\n");
    let (reader, secret) = server.new_key(true, false);
    let as_reader =
        |script: &str| services::boto3::run(&server.endpoint(), server.region(), (&reader, &secret), script);
    assert_eq!(as_reader(r#"print(s3.head_object(Bucket="vault", Key="a/b")["ContentLength"])"#).unwrap(), "7\n");
    let refused = as_reader(r#"s3.put_object(Bucket="vault", Key="a/b", Body=b"other")"#).unwrap_err();
    assert!(refused.contains("AccessDenied"), "{refused}");
    let get = r#"print(s3.get_object(Bucket="vault", Key="a/b")["Body"].read().decode())"#;
    server.kill();
    assert!(server.boto3(get).unwrap_err().contains("EndpointConnectionError"));
    server.restart();
    assert_eq!(server.boto3(get).unwrap(), "content\n");
    server.new_bucket("other");
    assert_eq!(
        server.boto3(r#"print(sorted(b["Name"] for b in s3.list_buckets()["Buckets"]))"#).unwrap(),
        "['other', 'vault']\n"
    );
}

#[test]
fn moto_keeps_versions_and_locked_objects() {
    let server = Moto::start();
    assert_eq!(server.boto3(PUT_AND_GET).unwrap(), "content\nNoSuchKey\n");
    server.new_bucket("other");
    server.versioned_bucket("versions", false);
    server.versioned_bucket("locks", true);
    let script = r#"
for body in b"one", b"two":
    s3.put_object(Bucket="versions", Key="a", Body=body)
s3.delete_object(Bucket="versions", Key="a")
listed = s3.list_object_versions(Bucket="versions")
print(len(listed["Versions"]), len(listed["DeleteMarkers"]))
print(s3.get_bucket_versioning(Bucket="other").get("Status"))

from datetime import datetime, timedelta, timezone
tomorrow = datetime.now(timezone.utc) + timedelta(days=1)
locked = s3.put_object(Bucket="locks", Key="a", Body=b"one", ObjectLockMode="COMPLIANCE",
                       ObjectLockRetainUntilDate=tomorrow)["VersionId"]
try:
    s3.delete_object(Bucket="locks", Key="a", VersionId=locked)
except ClientError as error:
    print(error.response["Error"]["Code"])
"#;
    assert_eq!(server.boto3(script).unwrap(), "2 1\nNone\nAccessDenied\n");
}

/// A server that sends every byte back, for each connection until its end.
fn echo() -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    std::thread::spawn(move || {
        for stream in listener.incoming() {
            let mut stream = stream.unwrap();
            std::thread::spawn(move || {
                let mut output = stream.try_clone().unwrap();
                // A test may have cut the connection.
                let _ = std::io::copy(&mut stream, &mut output);
                let _ = output.shutdown(Shutdown::Write);
            });
        }
    });
    address
}

fn connect(proxy: &Proxy) -> TcpStream {
    let stream = TcpStream::connect(proxy.address()).unwrap();
    stream.set_read_timeout(Some(Duration::from_millis(300))).unwrap();
    stream
}

/// What comes back for these bytes, until the connection ends, and how it ends.
fn exchange(proxy: &Proxy, bytes: &[u8]) -> (Vec<u8>, Result<(), ErrorKind>) {
    let mut stream = connect(proxy);
    stream.set_read_timeout(Some(Duration::from_secs(20))).unwrap();
    let mut input = stream.try_clone().unwrap();
    std::thread::scope(|scope| {
        scope.spawn(move || {
            let _ = input.write_all(bytes);
            let _ = input.shutdown(Shutdown::Write);
        });
        let mut back = Vec::new();
        let end = stream.read_to_end(&mut back);
        (back, end.map(drop).map_err(|error| error.kind()))
    })
}

#[test]
fn a_proxy_without_fault_passes_every_byte_unchanged() {
    let proxy = Proxy::start(echo());
    let bytes: Vec<u8> = (0..3_000_000_u32).map(|number| (number % 251) as u8).collect();
    for _ in 0..2 {
        let (back, end) = exchange(&proxy, &bytes);
        assert!(back == bytes, "{} bytes came back", back.len());
        assert_eq!(end, Ok(()));
    }
    proxy.set(Fault::Delay(Duration::from_millis(100)));
    let started = Instant::now();
    assert_eq!(exchange(&proxy, b"late"), (b"late".to_vec(), Ok(())));
    assert!(started.elapsed() >= Duration::from_millis(200));
    assert_eq!(proxy.count(), 3);
}

#[test]
fn a_proxy_breaks_connections_as_it_is_told() {
    let proxy = Proxy::start(echo());
    let bytes = vec![7; 1 << 20];
    let mut running = connect(&proxy);
    let mut byte = [0];
    running.write_all(b"1").unwrap();
    running.read_exact(&mut byte).unwrap();

    proxy.set(Fault::CutAfter(100_000));
    let (back, _) = exchange(&proxy, &bytes);
    assert!(back.len() <= 100_000, "{} bytes came back", back.len());
    assert!(exchange(&proxy, b"").0.is_empty());

    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let other = Proxy::start(listener.local_addr().unwrap());
    other.set(Fault::CutAfter(100_000));
    let target = std::thread::spawn(move || {
        let mut arrived = Vec::new();
        let _ = listener.accept().unwrap().0.read_to_end(&mut arrived);
        arrived.len()
    });
    let _ = exchange(&other, &bytes);
    assert_eq!(target.join().unwrap(), 100_000);

    proxy.set(Fault::CutReplyAfter(100_000));
    let (back, _) = exchange(&proxy, &bytes[..500_000]);
    assert!(back.len() <= 100_000, "{} bytes came back", back.len());
    assert_eq!(exchange(&proxy, &bytes[..99_999]).0.len(), 99_999);

    proxy.set(Fault::Reply(b"HTTP/1.1 503 Slow Down\r\n\r\n".to_vec()));
    assert_eq!(exchange(&proxy, &bytes), (b"HTTP/1.1 503 Slow Down\r\n\r\n".to_vec(), Ok(())));

    proxy.set(Fault::Refuse);
    let before = proxy.count();
    assert_eq!(TcpStream::connect(proxy.address()).unwrap_err().kind(), ErrorKind::ConnectionRefused);
    assert_eq!(proxy.count(), before);
    running.write_all(b"2").unwrap();
    running.read_exact(&mut byte).unwrap();

    proxy.set(Fault::Stall);
    let mut stalled = connect(&proxy);
    for stream in [&mut running, &mut stalled] {
        stream.write_all(b"3").unwrap();
        assert_eq!(stream.read_exact(&mut byte).unwrap_err().kind(), ErrorKind::WouldBlock);
    }
    proxy.set(Fault::None);
    for stream in [&mut running, &mut stalled] {
        stream.read_exact(&mut byte).unwrap();
        assert_eq!(byte, *b"3");
    }

    proxy.set(Fault::Reset);
    for stream in [&mut running, &mut stalled, &mut connect(&proxy)] {
        assert_eq!(stream.read(&mut byte).unwrap_err().kind(), ErrorKind::ConnectionReset);
    }
    proxy.set(Fault::None);
    assert_eq!(exchange(&proxy, b"well"), (b"well".to_vec(), Ok(())));
}
