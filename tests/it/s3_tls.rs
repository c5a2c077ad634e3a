//! A bucket behind TLS whose certificate was signed by an authority that only `tls-ca` names.

use crate::services::garage::Garage;
use crate::services::home::Site;
use crate::services::mariadb::{Engine, MariaDb};
use crate::services::rating::{Rating, owed};
use crate::services::tls::Tls;
use crate::services::{python, remote};

#[test]
fn an_authority_of_our_own_is_believed_when_it_is_named_and_only_then() {
    let (server, s3) = (MariaDb::start(Engine::InnoDb), Garage::start());
    Rating::new(301, 2, 40).fill(&server);
    let site = Site::on(&server);
    let tls = Tls::before(&site.path("tls"), Some(s3.port()));
    site.secret("s3-secret", s3.secret_key());
    let endpoint = format!("https://127.0.0.1:{}", tls.good);
    remote::add(&site, &remote::s3_section(&endpoint, s3.region(), s3.bucket(), s3.access_key()), &["bucket"]);
    let listed = format!("print(s3.list_objects_v2(Bucket='{}')['KeyCount'])", s3.bucket());

    for authority in ["", "tls-ca = \"tls/other-ca.pem\"\n"] {
        site.edit("retry-for", &format!("{authority}retry-for"));
        let said = site.run("run", &[]);
        assert_eq!(said.status, 3, "{}", said.err);
        for part in ["certificate", "name its authority in `tls-ca`", "bucket"] {
            assert!(said.err.contains(part), "`{part}` is not in:\n{}", said.err);
        }
        assert!(owed(&server) > 0, "the debt stays");
        assert_eq!(s3.boto3(&listed).unwrap().trim(), "0", "nothing is there");
    }

    site.edit("tls/other-ca.pem", "tls/ca.pem");
    let said = site.ok("run", &[]);
    assert_eq!(said.err, "");
    assert_eq!(owed(&server), 0);
    python::compare(&server, &s3.download(&site.path("back")), false).unwrap();
    site.ok("validate", &["--connect"]);
    site.ok("verify", &["--against-source"]);
    std::fs::remove_dir_all(site.vault()).unwrap();
    let into = site.path("restored.sqlite");
    site.ok("restore", &["--from-sink", "bucket", "--into", &format!("sqlite:{}", into.display())]);
    let count = "import sqlite3, sys\nfound = sqlite3.connect(sys.argv[1]).execute('SELECT COUNT(*) FROM ar_cdr').fetchone()[0]\nassert found == int(sys.argv[2]), found";
    let calls = server.app("SELECT COUNT(*) FROM ar_cdr");
    python::run(count, &[into.to_str().unwrap(), calls.trim()]);
}
