//! How we get to a remote host: the system's `ssh`, which asks nobody anything and trusts only hosts that it knows.

use std::net::Ipv6Addr;
use std::path::PathBuf;
use std::time::Duration;

use cdrvault_format::error::{Error, Kind};
use cdrvault_plugin::options::{Age, FilePath, Problem, Section};
use cdrvault_plugin::program::Outcome;
use schemars::JsonSchema;
use serde::Deserialize;

/// The options of every sink that is reached by ssh.
#[derive(Debug, Clone, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub(super) struct Options {
    /// The port of the host's sshd.
    #[serde(default)]
    port: Option<u16>,
    /// The private key; otherwise what ssh itself finds.
    #[serde(default)]
    identity_file: Option<FilePath>,
    /// The file that the host's key is in; otherwise those of ssh itself.
    #[serde(default)]
    known_hosts: Option<FilePath>,
    /// How long to wait for the host to take a connection.
    #[serde(default = "thirty_seconds")]
    connect_timeout: Age,
    /// A connection on which nothing moves for so long is given up. rdiff-backup gets twelve times as long to work
    /// through its history.
    #[serde(default = "five_minutes")]
    stall_timeout: Age,
}

impl Default for Options {
    fn default() -> Self {
        Self {
            port: None,
            identity_file: None,
            known_hosts: None,
            connect_timeout: thirty_seconds(),
            stall_timeout: five_minutes(),
        }
    }
}

fn thirty_seconds() -> Age {
    Age::seconds(30)
}

fn five_minutes() -> Age {
    Age::seconds(300)
}

/// What [`Options`] say.
#[derive(Debug, Clone)]
pub(super) struct Ssh {
    pub(super) port: Option<u16>,
    identity_file: Option<PathBuf>,
    known_hosts: Option<PathBuf>,
    connect_timeout: Duration,
    pub(super) stall_timeout: Duration,
}

impl Options {
    /// Reports paths that could not be handed on: both programs split the command by themselves.
    pub(super) fn check(self, section: &mut Section<'_>) -> Option<Ssh> {
        let mut sound = true;
        for (key, path) in [("identity-file", &self.identity_file), ("known-hosts", &self.known_hosts)] {
            let odd = |path: &FilePath| {
                path.clone().into_inner().to_str().is_none_or(|path| path.contains(['\'', '"', '\n', '%']))
            };
            if path.as_ref().is_some_and(odd) {
                let problem =
                    Problem::new(section.value(key), "the path holds a quote, a per cent sign or a line break");
                section.problem(problem.help("give the file a plain name"));
                sound = false;
            }
        }
        sound.then(|| Ssh {
            port: self.port,
            identity_file: self.identity_file.map(FilePath::into_inner),
            known_hosts: self.known_hosts.map(FilePath::into_inner),
            connect_timeout: self.connect_timeout.to_duration(),
            stall_timeout: self.stall_timeout.to_duration(),
        })
    }
}

impl Ssh {
    /// The command up to the host, as rsync and rdiff-backup take it: words, of which some are in single quotes.
    pub(super) fn command(&self) -> String {
        let alive = (self.stall_timeout.as_secs() / 3).max(1);
        let mut words = vec![
            "ssh".to_owned(),
            "-o BatchMode=yes".to_owned(),
            "-o StrictHostKeyChecking=yes".to_owned(),
            format!("-o ConnectTimeout={}", self.connect_timeout.as_secs().max(1)),
            format!("-o ServerAliveInterval={alive}"),
            "-o ServerAliveCountMax=3".to_owned(),
            "-o ForwardAgent=no".to_owned(),
            "-o ForwardX11=no".to_owned(),
            "-o ClearAllForwardings=yes".to_owned(),
            // A connection of our own, which ends with us: a shared one would hold our pipes.
            "-o ControlMaster=no".to_owned(),
            "-o ControlPath=none".to_owned(),
        ];
        if let Some(port) = self.port {
            words.push(format!("-p {port}"));
        }
        if let Some(path) = &self.identity_file {
            words.push(format!("-o IdentitiesOnly=yes -i '{}'", path.display()));
        }
        if let Some(path) = &self.known_hosts {
            // The inner quotes are for ssh, which takes a list of files.
            words.push(format!("-o 'UserKnownHostsFile=\"{}\"'", path.display()));
            words.push("-o GlobalKnownHostsFile=/dev/null".to_owned());
        }
        words.join(" ")
    }
}

/// `USER@HOST` and what stands behind the separator after it. An address of IPv6 is in brackets, which hold colons.
pub(super) fn split_host<'t>(text: &'t str, separator: &str) -> Option<(&'t str, &'t str)> {
    let host = text.find('@').map_or(0, |at| at + 1);
    let end = match text.get(host..)?.strip_prefix('[') {
        Some(address) => host + address.find(']')? + 2,
        None => host,
    };
    let at = end + text.get(end..)?.find(separator)?;
    let (whole, rest) = (text.get(..at)?, text.get(at + separator.len()..)?);
    // Brackets stand around the whole address.
    (end == host || at == end).then_some((whole, rest))
}

/// Whether a text can stand for `user@host` on a command line.
pub(super) fn is_host(text: &str) -> bool {
    let plain = |part: &str| {
        !part.is_empty()
            && !part.starts_with('-')
            && part.bytes().all(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'.' | b'-' | b'_'))
    };
    let host = |part: &str| match part.strip_prefix('[').and_then(|part| part.strip_suffix(']')) {
        Some(address) => match address.split_once('%') {
            // An address of one link, with the name of the interface.
            Some((address, zone)) => address.parse::<Ipv6Addr>().is_ok() && plain(zone),
            None => address.parse::<Ipv6Addr>().is_ok(),
        },
        None => plain(part),
    };
    match text.split_once('@') {
        Some((user, name)) => plain(user) && host(name),
        None => host(text),
    }
}

/// A path over there as no shell changes it: what begins in the home directory is relative to it, for that is where ssh
/// puts us.
pub(super) fn remote_path(path: &str) -> Result<String, &'static str> {
    let home = ["~", "$HOME", "${HOME}"].iter().find_map(|home| path.strip_prefix(home));
    let path = match home {
        Some("") => ".",
        Some(below) if below.starts_with('/') => match below.trim_matches('/') {
            "" => ".",
            below => below,
        },
        _ if path.starts_with('~') => return Err("only one's own home directory can be written as `~`"),
        _ if path.contains('$') => return Err("variables mean nothing there, but `$HOME` at its beginning"),
        _ => path,
    };
    match path.trim_end_matches('/') {
        "" if path.is_empty() => Err("the path is missing"),
        "" => Err("the root directory is not a place for a vault"),
        path if path.starts_with('-') => Err("the path begins with a `-`"),
        path => Ok(path.to_owned()),
    }
}

/// With the methods that the other side takes: `Permission denied (publickey,password).`
const REFUSED: &str = "Permission denied (";

/// `rsync: [sender] mkdir "/srv/cdr" failed: Permission denied (13)`: the number is that of the error.
fn is_of_a_file(line: &str) -> bool {
    line.split_once(REFUSED).is_some_and(|(_, rest)| rest.starts_with(|c: char| c.is_ascii_digit()))
}

/// What ssh itself complained of, if it did.
pub(super) fn complaint(outcome: &Outcome, place: &str) -> Option<Error> {
    let known: [(&str, Kind, &str, &str); 9] = [
        (
            "REMOTE HOST IDENTIFICATION HAS CHANGED",
            Kind::Denied,
            "the host key of the other side has changed",
            "find out why; if it was installed anew, replace its line in the known hosts file",
        ),
        (
            "Host key verification failed",
            Kind::Denied,
            "the host key of the other side is not known",
            "compare its fingerprint, then add the key to the known hosts file (ssh-keyscan prints it)",
        ),
        (
            REFUSED,
            Kind::Denied,
            "the other side does not accept our key",
            "add the public key to the authorized_keys of that user, or correct `identity-file`",
        ),
        ("Could not resolve hostname", Kind::Config, "there is no such host", "correct the name of the host in `to`"),
        (
            "Connection refused",
            Kind::Transient,
            "the other side takes no connections",
            "see whether its sshd runs, and `port`",
        ),
        (
            "Connection timed out",
            Kind::Transient,
            "the other side does not answer",
            "see whether the host is up, and the firewalls",
        ),
        (
            "No route to host",
            Kind::Transient,
            "the remote host cannot be reached",
            "see whether the host is up, and the routes",
        ),
        ("Connection closed by", Kind::Transient, "the other side closed the connection", "see the log of its sshd"),
        ("Connection reset by", Kind::Transient, "the other side reset the connection", "see the log of its sshd"),
    ];
    let line_with = |text: &str| outcome.complaints.lines().find(|line| line.contains(text) && !is_of_a_file(line));
    let told = |text: &str| if text == REFUSED { line_with(text).is_some() } else { outcome.says(text) };
    let (text, kind, what, hint) = known.into_iter().find(|(text, ..)| told(text))?;
    let line = line_with(text).unwrap_or(text);
    let line = line.trim_matches(['@', ' ']).to_owned();
    Some(Error::new(kind, format!("{place}: {what}: {line}")).hint(hint))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hosts_are_names_and_addresses_and_those_of_ipv6_are_in_brackets() {
        assert_eq!(split_host("me@host:a:b", ":"), Some(("me@host", "a:b")));
        assert_eq!(split_host("me@[::1]:a:b", ":"), Some(("me@[::1]", "a:b")));
        assert_eq!(split_host("[fe80::1%eth0]::/srv", "::"), Some(("[fe80::1%eth0]", "/srv")));
        assert_eq!(split_host("[::1]/8730", "/"), Some(("[::1]", "8730")));
        for odd in ["[::1", "[::1]x:y", "[::1]", "host"] {
            assert_eq!(split_host(odd, ":"), None, "{odd}");
        }
        for good in ["host", "me@10.0.0.1", "[::1]", "me@[2001:db8::7]", "[fe80::1%eth0]"] {
            assert!(is_host(good), "{good}");
        }
        for bad in ["", "::1", "[host]", "[::1", "me@[::1%-x]", "[::1%]", "a@b@[::1]", "-h", "me@"] {
            assert!(!is_host(bad), "{bad}");
        }
    }

    #[test]
    fn a_remote_path_may_begin_at_home() {
        for (written, meant) in [
            ("~", "."),
            ("~/", "."),
            ("~/a b/c/", "a b/c"),
            ("$HOME/a", "a"),
            ("${HOME}//a", "a"),
            ("/srv/~x", "/srv/~x"),
        ] {
            assert_eq!(remote_path(written).as_deref(), Ok(meant));
        }
        for bad in ["", "/", "~other/a", "$HOMEX/a", "$USER", "a/$x", "~/-x", "-x", "~x"] {
            assert!(remote_path(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn a_key_that_is_refused_is_no_file_that_is() {
        let said = |text: &str| {
            let status = std::os::unix::process::ExitStatusExt::from_raw(255 << 8);
            let outcome = Outcome { status, output: Vec::new(), complaints: text.to_owned() };
            complaint(&outcome, "me@host:x").map(|error| error.one_line())
        };
        let key = said("Warning: x\nme@host: Permission denied (publickey,keyboard-interactive).\n");
        assert!(key.is_some_and(|said| said.contains("does not accept our key") && said.contains("(publickey")));
        assert_eq!(said("rsync: [Receiver] mkdir \"/srv/x\" failed: Permission denied (13)\n"), None);
    }

    #[test]
    fn a_host_is_no_option_and_no_command() {
        for good in ["backup.example.net", "cdr_backup@10.0.0.1", "a@b-c"] {
            assert!(is_host(good), "{good}");
        }
        for bad in
            ["", "-oProxyCommand=x", "user@-oProxyCommand=x", "-x@host", "a b", "host;rm", "a@b@c", "h$(x)", "@h"]
        {
            assert!(!is_host(bad), "{bad}");
        }
    }
}
