//! TLS servers whose certificates are good, expired, or for another name: `tests/readers/tls_server.py`.

use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use super::{places, python};

/// The servers, which end with this, because their standard input does.
pub struct Tls {
    server: Child,
    pub good: u16,
    pub expired: u16,
    pub other_name: u16,
}

impl Tls {
    /// Their authority is in `ca.pem` of the directory, another one in `other-ca.pem`.
    pub fn start(directory: &Path) -> Self {
        Self::before(directory, None)
    }

    /// The same; what is said under the good certificate is passed on to a server on this port of 127.0.0.1.
    pub fn before(directory: &Path, server: Option<u16>) -> Self {
        let mut command = Command::new(python::python());
        command
            .arg(places::test_file("readers/tls_server.py"))
            .arg(directory)
            .args(server.map(|port| port.to_string()));
        let mut made = Self {
            server: command.stdin(Stdio::piped()).stdout(Stdio::null()).spawn().unwrap(),
            good: 0,
            expired: 0,
            other_name: 0,
        };
        let ports = directory.join("ports.txt");
        for _ in 0..600 {
            if let Ok(text) = std::fs::read_to_string(&ports) {
                let ports: Vec<u16> = text.split(' ').map(|port| port.parse().unwrap()).collect();
                (made.good, made.expired, made.other_name) = (ports[0], ports[1], ports[2]);
                return made;
            }
            std::thread::sleep(Duration::from_millis(50));
        }
        panic!("the TLS servers did not start");
    }
}

impl Drop for Tls {
    fn drop(&mut self) {
        let _ = self.server.kill();
        let _ = self.server.wait();
    }
}
