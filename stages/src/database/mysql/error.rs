//! What an error of the server or the driver means for us.

use cdrvault_format::error::{Error, Kind};

use super::wire::Failure;

/// Turns a failure of a connection into an error. `doing` completes "cannot ...".
pub(crate) fn explain(doing: &str, failure: Failure) -> Error {
    let message = format!("cannot {doing}: {failure}");
    match failure {
        Failure::Server { number, .. } => from_server(message, number),
        Failure::Io(io) => from_io(message, &io),
        Failure::Tls(_) => Error::new(Kind::Config, message).hint(
            "name the authority that signed the server's certificate in `tls-ca` of the database; \
             `tls = \"required\"` takes any certificate and `tls = \"preferred\"` needs none, so that anybody on the way can read \
             and change what is said: only for a network that you trust",
        ),
        Failure::Login(_) => Error::new(Kind::Config, message).hint(
            "give it another plugin: `mysql_native_password` or `ed25519` of MariaDB, `caching_sha2_password` of MySQL",
        ),
        Failure::Unproved(_) => Error::new(Kind::Refused, message).hint(
            "set `tls = \"verify-identity\"`, with the authority of its certificate in `tls-ca`, or use its `socket`",
        ),
        Failure::TooLong { .. } => Error::new(Kind::Refused, message).hint(
            "rows are read up to `max-row` of the database; anything else of this length does not come from a sound server",
        ),
        Failure::Protocol(_) => Error::new(Kind::Transient, message),
    }
}

fn from_io(message: String, io: &std::io::Error) -> Error {
    use std::io::ErrorKind as Io;
    match io.kind() {
        Io::NotFound => Error::new(Kind::Config, message).hint("check the path of the socket in `url`"),
        _ if io.to_string().contains("lookup address") => {
            Error::new(Kind::Config, message).hint("check the host name in `url`, and the resolver of this machine")
        }
        Io::ConnectionRefused => {
            let hint = "check that the server runs, and the host and port in `url`; if it ended by itself, its error log says \
                        why (a full disk, for one)";
            Error::new(Kind::Transient, message).hint(hint)
        }
        _ => Error::new(Kind::Transient, message),
    }
}

/// Numbers are those of <https://mariadb.com/kb/en/mariadb-error-code-reference/>.
fn from_server(message: String, number: u16) -> Error {
    let made = |kind| Error::new(kind, message);
    match number {
        1045 | 1698 | 4151 => made(Kind::Denied).hint("check the user in `url` and the `password` of the database"),
        1044 | 1142 | 1143 | 1227 => {
            made(Kind::Denied).hint("grant what is missing; the manual lists the privileges that are needed")
        }
        // The option --read-only (a replica), a read-only transaction, a server that was started read-only.
        1290 | 1792 | 1836 => made(Kind::Denied).hint("write to the primary server; this one only lets itself be read"),
        1049 => made(Kind::Config).hint("check the name of the database at the end of `url`"),
        1146 => made(Kind::NotFound).hint("check that `url` names the database of the billing application"),
        1054 => made(Kind::Config),
        // Lock waits and deadlocks, and what became of a row meanwhile.
        1205 | 1213 | 1020 => made(Kind::Busy),
        // Servers that are full, stop or were restarted, tables changed meanwhile.
        // MySQL's 4031: nothing was asked for long.
        1040 | 1053 | 1152 | 1154..=1161 | 1203 | 1226 | 1317 | 1412 | 1927 | 1969 | 2006 | 2013 | 4031 => {
            made(Kind::Transient)
        }
        1153 => made(Kind::Failed).hint("raise `max_allowed_packet` of the server"),
        1021 | 1114 => made(Kind::NoSpace).hint("free some space on the database server"),
        _ => made(Kind::Failed),
    }
}
