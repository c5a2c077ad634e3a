//! How we log in to MariaDB: by each plugin that keeps the password to itself, and encrypted as the pipeline says.

use std::io::{Read as _, Write as _};
use std::net::{Ipv4Addr, TcpListener};
use std::sync::{Arc, Mutex};

use crate::services;
use crate::services::home::Site;
use crate::services::mariadb::{Engine, MariaDb, PASSWORD, Server};
use crate::services::rating::Rating;
use crate::services::tls::Tls;

/// Whether `validate --connect` reaches the server; otherwise the message has these parts. The password is in none.
fn reaches(site: &Site, missing: &[&str]) {
    let said = site.run("validate", &["--connect"]);
    assert_eq!(said.status == 0, missing.is_empty(), "{missing:?}\n{}\n{}", said.out, said.err);
    for part in missing {
        assert!(said.err.contains(part), "`{part}` is not in:\n{}", said.err);
    }
    assert!(!said.err.contains(PASSWORD) && !said.out.contains(PASSWORD), "{}", said.err);
}

/// The pipeline with these lines in its database.
fn site(url: &str, lines: &str) -> Site {
    let site = Site::new(url);
    site.edit("[database.billing]\n", &format!("[database.billing]\n{lines}\n"));
    site
}

#[test]
fn an_account_may_have_any_plugin_that_does_not_send_the_password() {
    let server = MariaDb::start(Engine::InnoDb);
    Rating::new(77, 1, 20).fill(&server);
    server.app("INSTALL SONAME 'auth_ed25519'; INSTALL SONAME 'auth_pam'; SET GLOBAL secure_auth = OFF");
    // `pam` asks for the password as it is: by a dialog, or in a packet.
    let accounts = [
        ("native", format!("IDENTIFIED VIA mysql_native_password USING PASSWORD('{PASSWORD}')"), ""),
        ("ed25519", format!("IDENTIFIED VIA ed25519 USING PASSWORD('{PASSWORD}')"), ""),
        ("either", format!("IDENTIFIED VIA unix_socket OR ed25519 USING PASSWORD('{PASSWORD}')"), ""),
        ("other", "IDENTIFIED VIA ed25519 USING PASSWORD('another')".to_owned(), "Access denied for user 'other'"),
        ("wrong", "IDENTIFIED BY 'another'".to_owned(), "Access denied for user 'wrong'"),
        ("locked", format!("IDENTIFIED BY '{PASSWORD}' ACCOUNT LOCK"), "account is locked"),
        ("old", "IDENTIFIED VIA mysql_old_password USING '0123456789abcdef'".to_owned(), "mysql_old_password"),
        ("pam", "IDENTIFIED VIA pam".to_owned(), "logs in with `dialog`"),
    ];
    for (user, identified, refused) in &accounts {
        server.app(&format!(
            "CREATE USER {user}@'127.0.0.1' {identified}; GRANT ALL ON asterisell.* TO {user}@'127.0.0.1'"
        ));
        let site = Site::new(&server.url().replace("cdrvault@", &format!("{user}@")));
        if refused.is_empty() {
            reaches(&site, &[]);
            site.ok("run", &[]);
            assert!(!site.live().is_empty(), "{user}");
        } else {
            reaches(&site, &[refused]);
        }
    }

    // Nobody may have it in clear text, who has not proved to be the server.
    server.app("UNINSTALL SONAME 'auth_pam'");
    drop(server);
    let server = Server::new(Engine::InnoDb)
        .option("--plugin-load-add=auth_pam")
        .option("--pam-use-cleartext-plugin=ON")
        .start();
    server.app("CREATE USER pam@'127.0.0.1' IDENTIFIED VIA pam");
    let site = Site::new(&server.url().replace("cdrvault@", "pam@"));
    reaches(&site, &["logs in with `mysql_clear_password`", "caching_sha2_password"]);

    // An account without a password, at the server's socket.
    server.app("CREATE USER bare@localhost; GRANT ALL ON asterisell.* TO bare@localhost");
    let site = Site::new("mysql://bare@localhost/asterisell");
    site.edit("password = { file = \"password\" }", &format!("socket = \"{}\"", server.socket().display()));
    reaches(&site, &[]);
    site.secret("password", PASSWORD);
    site.edit("socket =", "password = { file = \"password\" }\nsocket =");
    reaches(&site, &["Access denied for user 'bare'"]);

    // There, the server can see who asks. Last, since it may be root's own account.
    let me = String::from_utf8(std::process::Command::new("id").arg("-un").output().unwrap().stdout).unwrap();
    let me = me.trim();
    server.app(&format!(
        "CREATE OR REPLACE USER `{me}`@localhost IDENTIFIED VIA unix_socket; GRANT ALL ON asterisell.* TO `{me}`@localhost"
    ));
    let site = Site::new(&format!("mysql://{me}@localhost/asterisell"));
    site.edit("password = { file = \"password\" }", &format!("socket = \"{}\"", server.socket().display()));
    reaches(&site, &[]);
}

#[test]
fn a_connection_is_as_encrypted_as_the_pipeline_says() {
    let keys = tempfile::tempdir().unwrap();
    let made = Tls::start(keys.path());
    drop(made);
    let path = |name: &str| keys.path().join(name).display().to_string();
    let with = |certificate: &str| {
        let certificate = path(certificate);
        let server = Server::new(Engine::InnoDb)
            .option(&format!("--ssl-cert={certificate}"))
            .option(&format!("--ssl-key={certificate}"))
            .start();
        server.app("ALTER USER cdrvault@'127.0.0.1' REQUIRE SSL");
        server
    };
    let (plain, good, other_name) = (MariaDb::start(Engine::InnoDb), with("good.pem"), with("other-name.pem"));
    let expired = with("expired.pem");
    let (ca, other_ca) = (format!("tls-ca = \"{}\"", path("ca.pem")), format!("tls-ca = \"{}\"", path("other-ca.pem")));
    let no_ca = format!("tls-ca = \"{}\"", path("ports.txt"));
    let cases: [(&MariaDb, &str, &str, &[&str]); 17] = [
        (&plain, "disabled", "", &[]),
        (&plain, "preferred", "", &[]),
        (&plain, "required", "", &["TLS", "does not offer it", "`tls-ca`"]),
        (&plain, "verify-identity", &ca, &["TLS", "does not offer it"]),
        (&good, "disabled", "", &["Access denied"]),
        (&good, "preferred", "", &[]),
        (&good, "required", "", &[]),
        (&good, "verify-ca", &ca, &[]),
        (&good, "verify-identity", &ca, &[]),
        (&good, "verify-ca", "", &["TLS failed", "certificate", "UnknownIssuer"]),
        (&good, "verify-ca", &other_ca, &["TLS failed", "certificate"]),
        (&good, "verify-identity", &other_ca, &["TLS failed", "certificate"]),
        (&good, "verify-identity", &no_ca, &["TLS failed", "ports.txt", "no certificate"]),
        (&other_name, "verify-ca", &ca, &[]),
        (&other_name, "verify-identity", &ca, &["not valid for name", "127.0.0.1", "`tls-ca`"]),
        (&expired, "required", "", &[]),
        (&expired, "verify-ca", &ca, &["expired"]),
    ];
    for (server, tls, authority, missing) in cases {
        reaches(&site(&server.url(), &format!("tls = \"{tls}\"\n{authority}")), missing);
    }

    // Rows, and what is asked for beside them, come the same way.
    Rating::new(78, 2, 30).fill(&good);
    let site = site(&good.url(), &format!("tls = \"verify-identity\"\n{ca}"));
    site.ok("run", &[]);
    site.ok("verify", &["--against-source"]);
    services::python::compare(&good, &site.vault(), false).unwrap();
}

/// A server that anybody can start: it has no certificate, and asks for the password in one way after the other. Gives its
/// port, and what is said to it after it has asked.
fn impostor(plugin: &'static str, asking: &'static [u8]) -> (u16, Arc<Mutex<Vec<Vec<u8>>>>) {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
    let port = listener.local_addr().unwrap().port();
    let heard = Arc::new(Mutex::new(Vec::new()));
    let hearing = Arc::clone(&heard);
    std::thread::spawn(move || {
        for client in listener.incoming() {
            let mut client = client.unwrap();
            let mut packet = |number: u8, body: &[u8]| {
                let [a, b, c, _] = u32::try_from(body.len()).unwrap().to_le_bytes();
                let mut header = [0; 4];
                let sent = client.write_all(&[&[a, b, c, number], body].concat());
                if sent.and_then(|()| client.read_exact(&mut header)).is_err() {
                    return Vec::new();
                }
                let mut said = vec![0; u32::from_le_bytes([header[0], header[1], header[2], 0]) as usize];
                client.read_exact(&mut said).unwrap();
                said
            };
            // Protocol 4.1, logins with plugins, and no TLS.
            let capabilities: [u8; 4] = 0x0008_a20a_u32.to_le_bytes();
            let greeting = [
                b"\x0a8.0.36\0\x07\0\0\0abcdefgh\0",
                &capabilities[..2],
                &[45, 2, 0],
                &capabilities[2..],
                b"\x15\0\0\0\0\0\0\0\0\0\0ijklmnopqrst\0",
                plugin.as_bytes(),
                b"\0",
            ]
            .concat();
            packet(0, &greeting);
            let said = packet(2, asking);
            hearing.lock().unwrap().push(said);
        }
    });
    (port, heard)
}

#[test]
fn nobody_gets_the_password_who_has_not_proved_to_be_the_server() {
    // A man in the middle who is asked for the key answers with one of his own, and can read what is encrypted with it.
    let not_cached: &[u8] = &[1, 4];
    let switch: &[u8] = b"\xfesha256_password\0abcdefghijklmnopqrst\0";
    let switch_to_clear: &[u8] = b"\xfemysql_clear_password\0";
    for (plugin, asking, refusal) in [
        ("caching_sha2_password", not_cached, "has not proved which server it is"),
        ("caching_sha2_password", switch, "has not proved which server it is"),
        ("sha256_password", switch, "has not proved which server it is"),
        ("mysql_native_password", switch_to_clear, "logs in with `mysql_clear_password`"),
    ] {
        for tls in ["disabled", "preferred", ""] {
            let (port, heard) = impostor(plugin, asking);
            let line = if tls.is_empty() { String::new() } else { format!("tls = \"{tls}\"") };
            reaches(&site(&format!("mysql://cdrvault@127.0.0.1:{port}/asterisell"), &line), &[refusal]);
            let heard = heard.lock().unwrap();
            assert!(!heard.is_empty(), "{plugin}: nobody came");
            assert!(heard.iter().all(Vec::is_empty), "{plugin}, {tls}: {heard:02x?}");
        }
        // Without TLS, a server whose certificate is to be looked at hears nothing at all.
        let (port, heard) = impostor(plugin, asking);
        let site = site(&format!("mysql://cdrvault@127.0.0.1:{port}/asterisell"), "tls = \"verify-identity\"");
        reaches(&site, &["TLS failed", "does not offer it", "tls-ca"]);
        assert!(heard.lock().unwrap().iter().all(Vec::is_empty));
    }
}

#[test]
fn a_restore_is_as_encrypted_as_its_url_says() {
    let keys = tempfile::tempdir().unwrap();
    drop(Tls::start(keys.path()));
    let certificate = keys.path().join("good.pem").display().to_string();
    let server = Server::new(Engine::InnoDb)
        .option(&format!("--ssl-cert={certificate}"))
        .option(&format!("--ssl-key={certificate}"))
        .start();
    Rating::new(79, 1, 10).fill(&server);
    let site = Site::on(&server);
    site.ok("run", &[]);
    let target = site.admin(&server);
    let into = |options: &str| {
        let of = |part: &String| if part.starts_with("mysql:") { format!("{part}{options}") } else { part.clone() };
        let target: Vec<String> = target.iter().map(of).collect();
        let target: Vec<&str> = ["--from-sink", "vault"].into_iter().chain(target.iter().map(String::as_str)).collect();
        site.run("restore", &target)
    };
    let ca = keys.path().join("ca.pem").display().to_string();
    for options in ["", "?tls=required", &format!("?tls=verify-identity&tls-ca={ca}")] {
        let said = into(options);
        assert_eq!(said.status, 0, "{options}: {}", said.err);
    }
    for (options, expected) in [
        ("?tls=verify-identity", "certificate"),
        ("?tls=verified", "unknown variant `verified`"),
        ("?ssl=1", "`ssl` is not one of `socket`, `tls` and `tls-ca`"),
    ] {
        let said = into(options);
        assert!(said.status != 0 && said.err.contains(expected), "{options}: {}", said.err);
    }
}

#[test]
fn what_a_server_says_stays_on_the_line_of_the_message() {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
    let port = listener.local_addr().unwrap().port();
    std::thread::spawn(move || {
        for client in listener.incoming() {
            let said = b"\xff\x69\x04\x1b]0;title\x07\x1b[2J\r\n2026-01-05 run: all is well";
            let length = u8::try_from(said.len()).unwrap();
            let _ = client.unwrap().write_all(&[&[length, 0, 0, 0], &said[..]].concat());
        }
    });
    let site = Site::new(&format!("mysql://cdrvault@127.0.0.1:{port}/asterisell"));
    for (verb, more) in
        [("run", &[][..]), ("validate", &["--connect"]), ("run", &["--log-format", "json"]), ("history", &[])]
    {
        let said = site.run(verb, more);
        for text in [&said.out, &said.err] {
            assert!(!text.contains(['\u{1b}', '\u{7}', '\r']), "{verb}: {text:?}");
            assert!(!text.lines().any(|line| line.trim_start().starts_with("2026-01-05 run")), "{verb}: {text}");
        }
    }
    assert!(site.run("run", &[]).err.contains("\\u{1b}[2J\\r\\n2026-01-05 run: all is well (error 1129)"));
}

#[test]
fn a_server_that_sends_without_end_gets_no_memory() {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
    let port = listener.local_addr().unwrap().port();
    std::thread::spawn(move || {
        let part = vec![7; 0xff_ffff];
        for client in listener.incoming() {
            let mut client = client.unwrap();
            let mut number = 0_u8;
            while client.write_all(&[0xff, 0xff, 0xff, number]).and_then(|()| client.write_all(&part)).is_ok() {
                number = number.wrapping_add(1);
            }
        }
    });
    reaches(
        &site(&format!("mysql://cdrvault@127.0.0.1:{port}/asterisell"), ""),
        &["sends more than 1048576 bytes at once"],
    );
}
