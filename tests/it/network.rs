//! A network that goes dead without a word: no reset, no refusal, just no answer. In a namespace of its own, whose only
//! way out is a pair of interfaces; that needs root.

use std::net::Ipv4Addr;
use std::process::{Command, Stdio};
use std::time::Duration;

use crate::services;
use crate::services::home::{Said, Site, said};
use crate::services::proxy::Proxy;
use crate::services::sshd::Sshd;

/// A namespace with one way out, which goes with this value.
struct Namespace {
    name: String,
    /// The end of the pair that is ours.
    link: String,
    host: Ipv4Addr,
}

fn ip(arguments: &str) -> Result<(), String> {
    let done = Command::new("ip").args(arguments.split_whitespace()).output().expect("iproute2 is installed");
    if done.status.success() {
        Ok(())
    } else {
        Err(format!("ip {arguments}: {}", String::from_utf8_lossy(&done.stderr)))
    }
}

impl Namespace {
    /// `None` where the machine does not let us make one.
    fn make() -> Option<Self> {
        let number = std::process::id() % 16_384;
        let name = format!("cdrvault{number}");
        if let Err(error) = ip(&format!("netns add {name}")) {
            assert!(error.contains("not permitted") || error.contains("Permission denied"), "{error}");
            return None;
        }
        let third = u8::try_from(number / 64).unwrap();
        let (host, inside) = (
            Ipv4Addr::new(10, 77, third, 1 + u8::try_from(number % 64).unwrap() * 4),
            Ipv4Addr::new(10, 77, third, 2 + u8::try_from(number % 64).unwrap() * 4),
        );
        let link = format!("cv{number}");
        let namespace = Self { name, link, host };
        let (name, link) = (&namespace.name, &namespace.link);
        for arguments in [
            format!("link add {link} type veth peer name {link}i netns {name}"),
            format!("addr add {host}/30 dev {link}"),
            format!("link set {link} up"),
            format!("-n {name} addr add {inside}/30 dev {link}i"),
            format!("-n {name} link set {link}i up"),
            format!("-n {name} link set lo up"),
        ] {
            ip(&arguments).unwrap();
        }
        Some(namespace)
    }

    fn dead(&self, dead: bool) {
        // Down at the far side: here the address stays, and what is sent is lost.
        ip(&format!("link set {} {}", self.link, if dead { "down" } else { "up" })).unwrap();
    }

    /// At most so many bits a second, from the inside out.
    fn slow(&self, rate: &str) {
        let tbf = format!("tbf rate {rate} burst 16kb latency 200ms");
        let done = Command::new("ip")
            .args(["netns", "exec", &self.name, "tc", "qdisc", "replace", "dev", &format!("{}i", self.link), "root"])
            .args(tbf.split_whitespace())
            .status();
        assert!(done.unwrap().success(), "tbf");
    }

    fn fast(&self) {
        let device = format!("{}i", self.link);
        let done = Command::new("ip")
            .args(["netns", "exec", &self.name, "tc", "qdisc", "del", "dev", &device, "root"])
            .status();
        assert!(done.unwrap().success(), "tc");
    }

    fn start(&self, site: &Site) -> std::process::Child {
        let run = site.command("run", &[]);
        let mut command = Command::new("ip");
        command.args(["netns", "exec", &self.name]).arg(run.get_program()).args(run.get_args());
        command.current_dir("/").stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap()
    }

    fn run(&self, site: &Site) -> Said {
        said(self.start(site).wait_with_output().unwrap())
    }
}

impl Drop for Namespace {
    fn drop(&mut self) {
        let _ = ip(&format!("netns del {}", self.name));
        let _ = ip(&format!("link del {}", self.link));
    }
}

#[test]
fn a_dead_network_is_noticed_and_what_it_cut_off_is_sent_again() {
    let Some(network) = Namespace::make() else {
        eprintln!("this account may not make network namespaces; the proxy's tests remain");
        return;
    };
    let ssh = Sshd::start();
    let proxy = Proxy::start_at(network.host, (Ipv4Addr::LOCALHOST, ssh.port()).into());
    let site = Site::new("sqlite:none.sqlite");
    let key = std::fs::read_to_string(ssh.known_hosts()).unwrap();
    let known = format!("[{}]:{} {}", network.host, proxy.address().port(), key.split_once(' ').unwrap().1);
    std::fs::write(site.path("known"), known).unwrap();
    std::fs::create_dir_all(site.path("tree")).unwrap();
    std::fs::write(site.path("tree/first"), "first").unwrap();
    site.pipeline(&format!(
        "name = \"test\"\nstate = \"state\"\nmin-free = \"1MiB\"\n[sink.vault.local]\npath = \"vault\"\n\
         [sink.mirror.rsync]\nmirror = \"vault\"\nto = \"{}@{}:{}\"\n\
         ssh = {{ port = {}, identity-file = \"{}\", known-hosts = \"known\", connect-timeout = \"3s\", stall-timeout = \"4s\" }}\n\
         [flow.tree]\nsource.files = {{ path = \"tree\" }}\ntransforms = [\"incremental\"]\nsinks = [\"vault\", \"mirror\"]\n",
        ssh.user(),
        network.host,
        ssh.directory().join("rsync").display(),
        proxy.address().port(),
        ssh.identity_file().display(),
    ));
    let whole = network.run(&site);
    assert_eq!(whole.status, 0, "{}", whole.err);

    // Dead from the beginning: nobody says so, and the run does not wait for ever.
    network.dead(true);
    std::fs::write(site.path("tree/second"), "second").unwrap();
    let said = network.run(&site);
    assert_eq!(said.status, 3, "{}", said.err);
    assert!(said.err.contains("mirror"), "{}", said.err);
    network.dead(false);

    // Dead in the middle of a transfer.
    network.slow("4mbit");
    let mut random = services::Random(1);
    let noise: Vec<u8> = (0..4_000_000).map(|_| u8::try_from(random.below(256)).unwrap()).collect();
    std::fs::write(site.path("tree/third"), &noise).unwrap();
    let run = network.start(&site);
    let far = ssh.directory().join("rsync/.cdrvault/objects");
    let before = count(&far);
    // Something of it has arrived: rsync writes into a hidden file first.
    while count(&far) == before {
        std::thread::sleep(Duration::from_millis(20));
    }
    network.dead(true);
    let said = said_of(run);
    assert_eq!(said.status, 3, "{}", said.err);
    network.dead(false);
    network.fast();
    let said = network.run(&site);
    assert_eq!(said.status, 0, "{}", said.err);
    assert_eq!(site.run("verify", &["--sink", "vault"]).status, 0);
    let bare = Command::new(env!("CARGO_BIN_EXE_cdrvault"))
        .args(["verify", "--vault"])
        .arg(ssh.directory().join("rsync"))
        .output();
    assert!(bare.unwrap().status.success());
}

fn said_of(run: std::process::Child) -> Said {
    said(run.wait_with_output().unwrap())
}

fn count(directory: &std::path::Path) -> usize {
    let Ok(entries) = std::fs::read_dir(directory) else { return 0 };
    entries.map(|entry| entry.unwrap().path()).map(|path| if path.is_dir() { 1 + count(&path) } else { 1 }).sum()
}
