//! How we log in to MariaDB: by each plugin that keeps the password to itself, and encrypted as the pipeline says.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, missing_docs, reason = "a test")]
#![allow(clippy::disallowed_methods, reason = "a test")]

mod services;

use services::home::Site;
use services::mariadb::{Engine, MariaDb, PASSWORD, Server};
use services::rating::Rating;
use services::tls::Tls;

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
        (&plain, "required", "", &["TLS", "does not offer it", "set `tls`"]),
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
        (&other_name, "verify-identity", &ca, &["not valid for name", "127.0.0.1", "set `tls`"]),
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
