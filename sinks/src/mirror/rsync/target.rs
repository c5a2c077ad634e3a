//! What `to` names.

use std::path::Path;

use cdrvault_plugin::location::Location;

use crate::mirror::ssh;

/// Where to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Target {
    Ssh(String),
    Daemon(String),
    Directory(String),
}

impl Target {
    pub(super) fn parse(text: &str) -> Result<Self, &'static str> {
        let odd = |path: &str| {
            let special = ['\'', '"', '\\', '`', '*', '?', '[', ';', '&', '|', '<', '>', '(', ')'];
            path.chars().any(|c| c.is_control() || special.contains(&c))
        };
        let plain = |path: &str| {
            if odd(path) {
                return Err("it holds a quote, a wildcard or another character with a meaning to shells");
            }
            Ok(())
        };
        if let Some(rest) = text.strip_prefix("rsync://") {
            let (host, path) = rest.split_once('/').ok_or("the module is missing")?;
            let (account, port) = ssh::split_host(host, ":").map_or((host, None), |(host, port)| (host, Some(port)));
            if port.is_some_and(|port| port.parse::<u16>().is_err()) {
                return Err("this is not a port");
            }
            plain(path)?;
            if !ssh::is_host(account) || path.is_empty() || path.starts_with(['/', '-']) || path.contains('$') {
                return Err("this is not a host, or not a module");
            }
            return Ok(Self::Daemon(text.trim_end_matches('/').to_owned()));
        }
        if text.starts_with('/') {
            plain(text)?;
            return match text.trim_end_matches('/') {
                "" => Err("the root directory is not a place for a vault"),
                path if path.contains('$') => Err("it holds a character with a meaning to shells"),
                path => Ok(Self::Directory(path.to_owned())),
            };
        }
        let (host, path) = ssh::split_host(text, ":").ok_or("neither a host nor an absolute path")?;
        if !ssh::is_host(host) {
            return Err("this is not `USER@HOST`");
        }
        plain(path)?;
        if path.starts_with(':') {
            return Err("the path begins with a second `:`: a daemon is written as `rsync://HOST/MODULE/PATH`");
        }
        Ok(Self::Ssh(format!("{host}:{}", ssh::remote_path(path)?)))
    }

    /// Where it is, by its name.
    pub(super) fn place(&self, ssh_port: Option<u16>) -> Location {
        match self {
            Self::Directory(path) => Location::directory(Path::new(path)),
            Self::Ssh(text) => {
                let (account, path) = text.split_once(':').unwrap_or((text, ""));
                Location::by_ssh(account, ssh_port, path)
            }
            Self::Daemon(text) => {
                let rest = text.strip_prefix("rsync://").unwrap_or(text);
                let (account, path) = rest.split_once('/').unwrap_or((rest, ""));
                let host = account.rsplit_once('@').map_or(account, |(_, host)| host).to_ascii_lowercase();
                let port = if host.contains(':') { "" } else { ":873" };
                Location::elsewhere(format!("rsync {host}{port}"), path)
            }
        }
    }

    /// With a slash: what is in it.
    pub(super) fn inside(&self) -> String {
        format!("{}/", self.text())
    }

    /// What is read from, and how names begin there: what is before `/./` is not made here. A daemon of rsync 3.5.0 gives
    /// no file of a list out that lies below another directory than its module's own.
    pub(super) fn source(&self) -> (String, String) {
        let module = |text: &str| {
            let (host, path) = text.strip_prefix("rsync://")?.split_once('/')?;
            let (module, below) = path.split_once('/')?;
            Some((format!("rsync://{host}/{module}/"), format!("{below}/./")))
        };
        let below = if let Self::Daemon(text) = self { module(text) } else { None };
        below.unwrap_or_else(|| (self.inside(), String::new()))
    }

    pub(super) fn text(&self) -> &str {
        match self {
            Self::Ssh(text) | Self::Daemon(text) | Self::Directory(text) => text,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn targets_are_hosts_modules_and_directories() {
        let good = |text: &str| Target::parse(text).unwrap();
        assert_eq!(good("me@host:vault/"), Target::Ssh("me@host:vault".to_owned()));
        assert_eq!(
            good("rsync://me@host:8730/backup/cdr"),
            Target::Daemon("rsync://me@host:8730/backup/cdr".to_owned())
        );
        assert_eq!(good("/mnt/b c/vault"), Target::Directory("/mnt/b c/vault".to_owned()));
        assert_eq!(good("me@host:~/vault"), Target::Ssh("me@host:vault".to_owned()));
        assert_eq!(good("host:$HOME"), Target::Ssh("host:.".to_owned()));
        assert_eq!(good("me@[::1]:/srv/x"), Target::Ssh("me@[::1]:/srv/x".to_owned()));
        assert_eq!(good("rsync://[::1]:8730/m/x"), Target::Daemon("rsync://[::1]:8730/m/x".to_owned()));
        let below = ("rsync://me@host:8730/backup/".to_owned(), "cdr/b/./".to_owned());
        assert_eq!(good("rsync://me@host:8730/backup/cdr/b").source(), below);
        assert_eq!(good("rsync://host/backup").source(), ("rsync://host/backup/".to_owned(), String::new()));
        for bad in [
            "",
            "/",
            "vault",
            "-e x:y",
            "me@-oProxyCommand=x:y",
            "host:",
            "host:-x",
            "host::module",
            "rsync://host",
            "rsync://-h/m",
            "host:a'b",
            "host:$(x)",
            "host:a*",
            "rsync://host:port/m",
            "rsync://[::1]x/m",
            "[::1]::module",
            "::1:path",
            "me@[host]:x",
            "host:~other/x",
            "host:a$b",
            "/a$b",
            "host:/",
        ] {
            assert!(Target::parse(bad).is_err(), "{bad}");
        }
    }
}
