//! What MariaDB 10.11 said: the packets of its answers, each by number and body in hexadecimal. A query of all types has a row
//! of common values, one of NULLs, and one of the least and the empty ones.

use crate::encoded::Packet;

pub(crate) const QUERIES: [&str; 4] = [
    include_str!("captured/query.hex"),
    include_str!("captured/query_error.hex"),
    include_str!("captured/query_error_in_rows.hex"),
    include_str!("captured/update.hex"),
];

/// The answers to preparing and to executing `SELECT *` of the same.
pub(crate) const SELECT: &str = include_str!("captured/select.hex");

/// One that let us in, one that asks for another plugin, one for a wrong password, one for a database that may not be used.
pub(crate) const LOGINS: [&str; 4] = [
    include_str!("captured/login_native.hex"),
    include_str!("captured/login_ed25519.hex"),
    include_str!("captured/login_denied.hex"),
    include_str!("captured/login_no_database.hex"),
];

pub(crate) fn packets(captured: &str) -> Vec<Packet> {
    captured
        .lines()
        .map(|line| {
            let (number, body) = line.split_once(' ').unwrap();
            Packet { number: number.parse().unwrap(), body: hex::decode(body).unwrap(), length: None }
        })
        .collect()
}
