//! The Debian package, installed on a Debian that has nothing else: from there to the first restore, and away again.

use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};
use std::process::Command;

use crate::services::fresh_root::FreshRoot;
use crate::services::home::said;
use crate::services::places;

/// Packs the program that is under test.
fn packed(into: &Path) -> PathBuf {
    let done = Command::new(Path::new(env!("CARGO_MANIFEST_DIR")).join("packaging/deb"))
        .args(["--fast", "--binary", env!("CARGO_BIN_EXE_cdrvault"), "--output"])
        .arg(into)
        .output()
        .unwrap();
    let done = said(done);
    assert_eq!(done.status, 0, "packaging/deb:\n{}{}", done.out, done.err);
    let made: Vec<_> = std::fs::read_dir(into).unwrap().map(|entry| entry.unwrap().path()).collect();
    assert!(matches!(made.as_slice(), [only] if only.extension().is_some_and(|it| it == "deb")), "{made:?}");
    made.into_iter().next().unwrap()
}

#[test]
fn the_package_is_installed_used_and_removed_on_a_fresh_debian() {
    let home = tempfile::tempdir().unwrap();
    let package = packed(home.path());
    if !rustix::process::geteuid().is_root() {
        eprintln!("SKIPPED: only root can install packages; the program is tried where it is unpacked");
        return unpacked(&package, &home.path().join("unpacked"));
    }
    let root = FreshRoot::make();
    std::fs::copy(&package, root.path("/tmp/cdrvault.deb")).unwrap();
    root.ok("root", "dpkg -i /tmp/cdrvault.deb");

    // The directories are those of its user, and of nobody else.
    let user = root.ok("root", "id -u cdrvault; getent passwd cdrvault");
    assert!(user.contains(":/var/lib/cdrvault:/usr/sbin/nologin"), "{user}");
    let uid: u32 = user.lines().next().unwrap().parse().unwrap();
    for directory in ["/etc/cdrvault", "/etc/cdrvault/pipelines.d", "/var/lib/cdrvault"] {
        let is = std::fs::metadata(root.path(directory)).unwrap();
        assert_eq!((is.uid(), is.mode() & 0o7777), (uid, 0o750), "{directory}");
    }

    // What it says in /etc/cdrvault/pipelines.d/README, with the database of the demo.
    root.ok("cdrvault", "cdrvault demo --dir /var/lib/cdrvault/try --days 3 --calls-per-day 50");
    root.ok("root", "install -d -o cdrvault -g cdrvault -m 0750 /var/backups/asterisell");
    root.ok(
        "cdrvault",
        "cdrvault init /etc/cdrvault/pipelines.d/asterisell.toml --database-url sqlite:/var/lib/cdrvault/try/billing.sqlite",
    );
    root.ok("cdrvault", "cdrvault validate asterisell --connect");
    let plan = root.ok("cdrvault", "cdrvault run asterisell -n");
    assert!(plan.contains("2026-01-01"), "{plan}");
    let said = root.ok("cdrvault", "cdrvault run asterisell");
    assert_eq!(said, "", "when its output is not a terminal, a successful run prints nothing");
    root.ok("cdrvault", "cdrvault verify asterisell");
    root.ok("cdrvault", "cdrvault status asterisell --max-age 1h");
    root.ok(
        "cdrvault",
        "cdrvault restore asterisell --from-sink vault --day 2026-01-02 --into csv:/var/lib/cdrvault/back",
    );
    let back = std::fs::read_to_string(root.path("/var/lib/cdrvault/back/ar_cdr/y_2026/m_01/ar_cdr-2026-01-02.csv"));
    assert!(back.unwrap().lines().count() > 20);

    // Upgraded, it keeps what is the administrator's; removed, it leaves nothing of its own.
    root.ok("root", "echo '# mine' >> /etc/cdrvault/pipelines.d/README; dpkg -i /tmp/cdrvault.deb");
    assert!(std::fs::read_to_string(root.path("/etc/cdrvault/pipelines.d/README")).unwrap().contains("# mine"));
    root.ok("root", "dpkg --remove cdrvault");
    assert!(!root.path("/usr/bin/cdrvault").exists());
    let purged = root.ok("root", "dpkg --purge cdrvault");
    assert!(purged.contains("/var/lib/cdrvault is not empty and stays"), "{purged}");
    assert!(!root.path("/etc/cdrvault/pipelines.d/README").exists());
    for kept in
        ["/etc/cdrvault/pipelines.d/asterisell.toml", "/var/lib/cdrvault/asterisell", "/var/backups/asterisell/ar_cdr"]
    {
        assert!(root.path(kept).exists(), "{kept} is gone");
    }

    // Where nobody made anything, nothing stays.
    root.ok("root", "rm -r /etc/cdrvault /var/lib/cdrvault; dpkg -i /tmp/cdrvault.deb; dpkg --purge cdrvault");
    for gone in ["/etc/cdrvault", "/var/lib/cdrvault", "/usr/share/doc/cdrvault"] {
        assert!(!root.path(gone).exists(), "{gone} is still there");
    }
}

fn unpacked(package: &Path, to: &Path) {
    let run = |program: &Path, args: &[&str]| {
        let done = said(Command::new(program).current_dir(to.parent().unwrap()).args(args).output().unwrap());
        assert_eq!(done.status, 0, "{args:?}: {}{}", done.out, done.err);
        done.out
    };
    run(&places::program("dpkg-deb", "dpkg"), &["-x", package.to_str().unwrap(), to.to_str().unwrap()]);
    let cdrvault = to.join("usr/bin/cdrvault");
    run(&cdrvault, &["demo", "--days", "3", "--calls-per-day", "50"]);
    run(&cdrvault, &["run", "cdrvault-demo/pipeline.toml"]);
    run(&cdrvault, &["restore", "cdrvault-demo/pipeline.toml", "--from-sink", "vault", "--into", "csv:back"]);
    assert!(to.parent().unwrap().join("back/ar_cdr").is_dir());
}

#[test]
fn the_package_holds_all_that_it_should() {
    let home = tempfile::tempdir().unwrap();
    let package = packed(home.path());
    let dpkg = |what: &str| said(Command::new("dpkg-deb").arg(what).arg(&package).output().unwrap()).out;
    let listed = dpkg("--contents");
    let mut wanted = vec![
        "-rwxr-xr-x 0/0 ./usr/bin/cdrvault".to_owned(),
        "-rw-r--r-- 0/0 ./etc/cdrvault/pipelines.d/asterisell.toml.example".to_owned(),
        "-rw-r--r-- 0/0 ./usr/share/bash-completion/completions/cdrvault".to_owned(),
        "-rw-r--r-- 0/0 ./usr/share/zsh/vendor-completions/_cdrvault".to_owned(),
        "-rw-r--r-- 0/0 ./usr/share/fish/vendor_completions.d/cdrvault.fish".to_owned(),
        "-rw-r--r-- 0/0 ./usr/share/man/man1/cdrvault.1.gz".to_owned(),
        "-rw-r--r-- 0/0 ./usr/share/man/man1/cdrvault-run.1.gz".to_owned(),
        "-rw-r--r-- 0/0 ./usr/share/doc/cdrvault/copyright".to_owned(),
    ];
    let configs = Path::new(env!("CARGO_MANIFEST_DIR")).join("configs");
    for (from, to) in [("", "usr/share/doc/cdrvault/examples"), ("systemd", "usr/lib/systemd/system")] {
        for entry in std::fs::read_dir(configs.join(from)).unwrap() {
            let entry = entry.unwrap();
            if entry.file_type().unwrap().is_file() {
                wanted.push(format!("-rw-r--r-- 0/0 ./{to}/{}", entry.file_name().into_string().unwrap()));
            }
        }
    }
    // "-rw-r--r-- 0/0   1869 2026-11-24 00:00 ./etc/cdrvault/pipelines.d/README"
    let entries: Vec<String> = listed
        .lines()
        .map(|line| line.split_whitespace().collect::<Vec<_>>())
        .map(|words| format!("{} {} {}", words[0], words[1], words[5]))
        .collect();
    let missing: Vec<_> = wanted.iter().filter(|wanted| !entries.contains(wanted)).collect();
    assert!(missing.is_empty(), "{missing:#?}\nis not in\n{listed}");
    // Nothing there is run by itself.
    assert!(!entries.iter().any(|entry| entry.contains("/etc/cron") || entry.ends_with("pipelines.d/asterisell.toml")));
    // The manual names the glibc that the package wants.
    let info = dpkg("--info");
    let glibc = info.split("libc6 (>= ").nth(1).and_then(|rest| rest.split(')').next()).expect("a dependency on libc6");
    let manual = std::fs::read_to_string(configs.with_file_name("docs/packages.md")).unwrap();
    assert!(manual.contains(&format!("glibc {glibc}")), "docs/packages.md does not name glibc {glibc}");
}
