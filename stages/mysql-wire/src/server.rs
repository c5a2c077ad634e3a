//! Which server, as whom, and how what is said is encrypted.

use std::net::IpAddr;
use std::path::PathBuf;

use schemars::JsonSchema;
use secrecy::SecretString;
use serde::de::IntoDeserializer as _;
use serde::{Deserialize, Serialize};

/// Where a server listens, and as whom to log in.
#[derive(Debug, Clone)]
pub struct Server {
    /// Where it listens.
    pub place: Place,
    /// The account.
    pub user: String,
    /// Its password; `None` is the empty one.
    pub password: Option<SecretString>,
    /// The database that names without one are of.
    pub database: String,
    /// How what is said is encrypted.
    pub tls: Tls,
    /// PEM file of the authority that is trusted instead of the system's.
    pub tls_ca: Option<PathBuf>,
}

/// Where a server listens.
#[derive(Debug, Clone)]
pub enum Place {
    /// At a port.
    Tcp {
        /// A name or an address; one of IPv6 has no brackets.
        host: String,
        /// 3306 by custom.
        port: u16,
    },
    /// At a Unix socket.
    Socket(PathBuf),
}

impl Place {
    /// Whether what is said stays on this machine.
    pub fn is_here(&self) -> bool {
        match self {
            Self::Socket(_) => true,
            Self::Tcp { host, .. } => {
                host.eq_ignore_ascii_case("localhost")
                    || host.parse::<IpAddr>().is_ok_and(|address| address.to_canonical().is_loopback())
            }
        }
    }
}

/// How the connection to the server is encrypted.
#[derive(Serialize, Deserialize, JsonSchema, Debug, Clone, Copy, PartialEq)]
#[serde(rename_all = "kebab-case")]
pub enum Tls {
    /// Never.
    Disabled,
    /// If the server offers it, with any certificate; never through a Unix socket.
    Preferred,
    /// Always, with any certificate.
    Required,
    /// Always, with a certificate of the authority in `tls-ca` or, without that, of the system's.
    VerifyCa,
    /// As `verify-ca`, and the certificate must name the host.
    VerifyIdentity,
}

impl Tls {
    /// What a server gets for which nothing is written down. On the way to another host anybody may answer in its place,
    /// and only a certificate tells them apart.
    pub fn default_for(place: &Place) -> Self {
        if place.is_here() { Self::Preferred } else { Self::VerifyIdentity }
    }
}

impl std::str::FromStr for Tls {
    type Err = String;

    /// By the names that pipeline files have.
    fn from_str(name: &str) -> Result<Self, String> {
        Self::deserialize(name.into_deserializer()).map_err(|error: serde::de::value::Error| error.to_string())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_a_server_on_this_machine_needs_no_certificate() {
        let of = |host: &str| Tls::default_for(&Place::Tcp { host: host.to_owned(), port: 3306 });
        for host in ["127.0.0.1", "127.8.9.1", "localhost", "LocalHost", "::1", "::ffff:127.0.0.1"] {
            assert_eq!(of(host), Tls::Preferred, "{host}");
        }
        for host in ["db", "db.example.net", "10.0.0.1", "localhost.example.net", "::2", "127.0.0.1.example.net"] {
            assert_eq!(of(host), Tls::VerifyIdentity, "{host}");
        }
        assert_eq!(Tls::default_for(&Place::Socket("/run/mysqld/mysqld.sock".into())), Tls::Preferred);
        assert_eq!("verify-ca".parse(), Ok(Tls::VerifyCa));
        assert!("verified".parse::<Tls>().unwrap_err().contains("verify-identity"));
    }

    #[test]
    fn a_server_that_is_shown_keeps_its_password() {
        let server = Server {
            place: Place::Socket("/run/s".into()),
            user: "backup".to_owned(),
            password: Some("plum".into()),
            database: "billing".to_owned(),
            tls: Tls::Preferred,
            tls_ca: None,
        };
        assert!(!format!("{server:?}").contains("plum"));
    }
}
