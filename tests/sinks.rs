//! One pipeline with sinks everywhere: what each of them holds, and what happens when they are away, full, or killed.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, missing_docs, reason = "a test")]
#![allow(clippy::disallowed_methods, reason = "a test")]

mod services;

use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Duration;

use services::Random;
use services::garage::Garage;
use services::home::{Said, Site, said};
use services::mariadb::{Engine, MariaDb};
use services::moto::Moto;
use services::python;
use services::rating::{Rating, transaction};
use services::remote;
use services::sshd::Sshd;

/// Other prices for a day, announced.
fn rate_again(server: &MariaDb, day: &str) {
    let sql = format!(
        "UPDATE ar_cdr SET income = income + 7 WHERE calldate >= '{day}' AND calldate < '{day}' + INTERVAL 1 DAY;"
    );
    server.app(&transaction(&sql, &[day]));
}

fn owed(server: &MariaDb) -> u64 {
    server.app("SELECT COUNT(*) FROM ar_daily_status_change").trim().parse().unwrap()
}

fn files(directory: &Path) -> Vec<PathBuf> {
    let mut found = Vec::new();
    for entry in std::fs::read_dir(directory).into_iter().flatten() {
        let path = entry.unwrap().path();
        if path.is_dir() { found.extend(files(&path)) } else { found.push(path) }
    }
    found.sort();
    found
}

fn live_of(vault: &Path, day: &str) -> Vec<u8> {
    std::fs::read(vault.join(format!("ar_cdr/day={day}/ar_cdr-{day}.parquet"))).unwrap()
}

/// The kept objects of a day.
fn kept_of(vault: &Path, day: &str) -> Vec<Vec<u8>> {
    files(&vault.join(format!(".cdrvault/versions/ar_cdr/{day}")))
        .iter()
        .map(|path| std::fs::read(path).unwrap())
        .collect()
}

#[test]
fn each_sink_alone_gives_everything_back_and_the_version_before() {
    let (server, ssh, s3) = (MariaDb::start(Engine::InnoDb), Sshd::start(), Garage::start());
    Rating::new(1, 4, 60).fill(&server);
    let site = Site::on(&server);
    let sections = remote::rsync(&ssh) + &remote::rdiff(&ssh) + &remote::s3(&s3, &site);
    remote::add(&site, &sections, &["mirror", "offsite", "bucket"]);
    site.ok("run", &[]);
    assert_eq!(owed(&server), 0);
    let (far, back) = (ssh.directory().join("rsync"), site.path("back"));
    let each = |check: &dyn Fn(&str, &Path)| {
        check("vault", &site.vault());
        check("rsync", &far);
        check("rdiff", &remote::rdiff_restore(&ssh, 0, &back));
        check("s3", &remote::download(&s3, &back));
    };
    each(&|name, vault| {
        python::compare(&server, vault, false).unwrap_or_else(|error| panic!("{name}: {error}"));
        let counted = python::reader("count_rows.py", &[vault.to_str().unwrap()]);
        assert!(counted.contains("ar_cdr 240"), "{name}: {counted}");
    });
    let old = live_of(&site.vault(), "2026-01-02");

    std::thread::sleep(Duration::from_millis(1100));
    rate_again(&server, "2026-01-02");
    assert_eq!(site.published(), ["ar_cdr 2026-01-02"]);
    each(&|name, vault| {
        python::compare(&server, vault, false).unwrap_or_else(|error| panic!("{name}: {error}"));
        assert_ne!(live_of(vault, "2026-01-02"), old, "{name}");
        if name != "rdiff" {
            assert_eq!(kept_of(vault, "2026-01-02"), std::slice::from_ref(&old), "{name}");
        }
    });
    assert_eq!(live_of(&remote::rdiff_restore(&ssh, 1, &back), "2026-01-02"), old);

    let listed = site.ok("snapshots", &["--day", "2026-01-02", "--flow", "ar_cdr", "--json"]);
    let listed: serde_json::Value = serde_json::from_str(&listed.out).unwrap();
    let sinks = listed["snapshots"][0]["sinks"].as_object().unwrap();
    assert_eq!(sinks.keys().collect::<Vec<_>>(), ["bucket", "mirror", "offsite", "vault"]);
    // Nothing changed: nothing is read, nothing travels.
    let before = (site.content(), files(&ssh.directory().join("rdiff/rdiff-backup-data")).len());
    assert_eq!(site.published(), Vec::<String>::new());
    assert!(before == (site.content(), files(&ssh.directory().join("rdiff/rdiff-backup-data")).len()));
}

#[test]
fn a_required_sink_that_is_away_keeps_the_debt_and_an_optional_one_warns() {
    let (server, mut ssh, mut s3) = (MariaDb::start(Engine::InnoDb), Sshd::start(), Garage::start());
    Rating::new(2, 3, 40).fill(&server);
    let site = Site::on(&server);
    let bucket = remote::s3(&s3, &site).replace("[sink.bucket.s3]\n", "[sink.bucket.s3]\noptional = true\n");
    remote::add(&site, &(remote::rsync(&ssh) + &bucket), &["mirror", "bucket"]);
    site.ok("run", &[]);

    s3.stop();
    rate_again(&server, "2026-01-01");
    let said = site.run("run", &[]);
    assert_eq!(said.status, 0, "{}", said.err);
    assert!(said.err.contains("bucket") && said.err.contains("optional"), "{}", said.err);
    assert_eq!(owed(&server), 0, "an optional sink owes nothing");
    python::compare(&server, &ssh.directory().join("rsync"), false).unwrap();
    let status = site.run("status", &[]);
    assert!(status.out.contains("cannot be read"), "{}", status.out);

    ssh.stop();
    rate_again(&server, "2026-01-02");
    let said = site.run("run", &[]);
    assert_eq!(said.status, 3, "{}", said.err);
    assert!(said.err.contains("Connection refused"), "{}", said.err);
    python::compare(&server, &site.vault(), false).expect("the others get the day");
    assert!(owed(&server) > 0, "what a required sink lacks stays owed");

    s3.restart();
    ssh.restart();
    let behind = site.run("status", &[]);
    assert!(behind.out.contains("1 behind"), "{}", behind.out);
    site.ok("run", &[]);
    assert_eq!(owed(&server), 0);
    python::compare(&server, &ssh.directory().join("rsync"), false).unwrap();
    python::compare(&server, &remote::download(&s3, &site.path("back")), false).unwrap();
}

#[test]
fn new_sinks_are_filled_from_the_vault_and_a_lost_vault_from_a_mirror() {
    let (server, ssh, s3) = (MariaDb::start(Engine::InnoDb), Sshd::start(), Garage::start());
    Rating::new(3, 3, 40).fill(&server);
    let site = Site::on(&server);
    site.ok("run", &[]);
    remote::add(
        &site,
        &(remote::rsync(&ssh) + &remote::rdiff(&ssh) + &remote::s3(&s3, &site)),
        &["mirror", "offsite", "bucket"],
    );
    let said = site.ok("run", &["--json"]);
    let report = said.report();
    assert_eq!(report["units"].as_array().unwrap().len(), 0, "the database is not asked: {}", said.out);
    assert_eq!(report["caught-up"], serde_json::json!({ "bucket": 6, "mirror": 6, "offsite": 6 }));
    python::compare(&server, &ssh.directory().join("rsync"), false).unwrap();
    python::compare(&server, &remote::rdiff_restore(&ssh, 0, &site.path("back")), false).unwrap();
    python::compare(&server, &remote::download(&s3, &site.path("back")), false).unwrap();

    std::fs::remove_dir_all(site.vault()).unwrap();
    let refused = site.run("run", &[]);
    assert_ne!(refused.status, 0);
    assert!(refused.err.contains("is the disk mounted"), "{}", refused.err);
    assert!(!site.vault().exists(), "nothing is made in the place of a lost vault");
    let said = site.ok("run", &["--adopt-vault", "--json"]);
    let report = said.report();
    assert_eq!(report["caught-up"]["vault"], 6, "{}", said.out);
    python::compare(&server, &site.vault(), false).unwrap();
    site.ok("run", &[]);
    assert_eq!(owed(&server), 0);
}

#[test]
fn what_one_sink_lost_comes_back_from_another() {
    let (server, ssh, s3) = (MariaDb::start(Engine::InnoDb), Sshd::start(), Garage::start());
    Rating::new(4, 3, 40).fill(&server);
    let site = Site::on(&server);
    remote::add(&site, &(remote::rsync(&ssh) + &remote::s3(&s3, &site)), &["mirror", "bucket"]);
    site.ok("run", &[]);
    let path = "ar_cdr/day=2026-01-02/ar_cdr-2026-01-02.parquet";
    let good = std::fs::read(site.vault().join(path)).unwrap();
    std::fs::remove_file(site.vault().join(path)).unwrap();
    s3.boto3(&format!("s3.delete_object(Bucket='{}', Key='site/{path}')", s3.bucket())).unwrap();
    std::fs::remove_file(ssh.directory().join("rsync/ar_source_cdr/day=2026-01-03/ar_source_cdr-2026-01-03.parquet"))
        .unwrap();
    let said = site.ok("run", &["--json"]);
    let report = said.report();
    assert_eq!(report["caught-up"], serde_json::json!({ "bucket": 1, "mirror": 1, "vault": 1 }), "{}", said.out);
    assert_eq!(std::fs::read(site.vault().join(path)).unwrap(), good);
    python::compare(&server, &site.vault(), false).unwrap();
    python::compare(&server, &ssh.directory().join("rsync"), false).unwrap();
    python::compare(&server, &remote::download(&s3, &site.path("back")), false).unwrap();
    assert_eq!(site.published(), Vec::<String>::new());
}

#[test]
fn a_damaged_receipt_in_an_optional_sink_stops_nothing() {
    let (server, s3) = (MariaDb::start(Engine::InnoDb), Garage::start());
    Rating::new(5, 3, 40).fill(&server);
    let site = Site::on(&server);
    let section = remote::s3(&s3, &site).replace("[sink.bucket.s3]\n", "[sink.bucket.s3]\noptional = true\n");
    remote::add(&site, &section, &["bucket"]);
    site.ok("run", &[]);
    let key = "site/.cdrvault/manifests/ar_cdr/2026-01-01/g0001.json";
    s3.boto3(&format!("s3.put_object(Bucket='{}', Key='{key}', Body=b'{{')", s3.bucket())).unwrap();
    for number in 0..3 {
        rate_again(&server, &Rating::day(number));
    }
    let said = site.run("run", &[]);
    assert_eq!(said.status, 0, "{}", said.err);
    assert!(said.err.contains("receipt") && said.err.contains("2026-01-01"), "{}", said.err);
    python::compare(&server, &site.vault(), false).unwrap();
    assert_eq!(owed(&server), 0);
}

#[test]
fn options_that_cannot_work_are_told_with_their_place() {
    let (_server, site) = filled(121);
    let wrong = [
        ("rsync", "mirror = \"vault\"\nto = \"-oProxyCommand=touch@x:y\"", "this is no `USER@HOST`"),
        ("rsync", "mirror = \"vault\"\nto = \"host:a$(touch x)\"", "another character with a meaning to shells"),
        ("rsync", "mirror = \"vault\"\nto = \"/mnt/b\"\nssh = { port = 22 }", "`ssh` is for targets of the form"),
        ("rsync", "mirror = \"vault\"\nto = \"h:b\"\npassword = { env = \"X\" }", "`password` is for an rsync daemon"),
        ("rdiff", "mirror = \"vault\"\nto = \"me@host:path\"", "neither `USER@HOST::PATH` nor an absolute path"),
        (
            "rdiff",
            "mirror = \"vault\"\nto = \"h::p\"\nkeep = { last = 3 }",
            "`last` does not work in a sink of kind `rdiff`",
        ),
        ("s3", "url = \"https://bucket/x\"", "this is no URL of a bucket"),
        ("s3", "url = \"s3://b\"\naccess-key-id = \"AK\"", "`access-key-id` needs `secret-access-key`"),
        ("s3", "url = \"s3://b\"\nstorage-class = \"DEEP_ARCHIVE\"", "`storage-class` cannot be `DEEP_ARCHIVE`"),
        ("s3", "url = \"s3://b\"\nkms-key = \"k\"", "`kms-key` is for `encryption = \"aws:kms\"`"),
        ("s3", "url = \"s3://b\"\nendpoint = \"ftp://host\"", "this is no endpoint"),
        ("s3", "url = \"s3://b\"\nkeep = {}", "`keep` says nothing"),
    ];
    let sections = wrong.iter().enumerate();
    let sections: String =
        sections.map(|(n, (kind, options, _))| format!("[sink.s{n}.{kind}]\n{options}\n\n")).collect();
    remote::add(&site, &sections, &[]);
    let said = site.run("validate", &[]);
    assert_eq!(said.status, 78, "{}", said.err);
    for (_, options, message) in wrong {
        assert!(said.err.contains(message), "`{message}` is not in:\n{}", said.err);
        let last = options.lines().last().unwrap();
        assert!(said.err.contains(last), "the line `{last}` is not shown:\n{}", said.err);
    }
    assert_eq!(said.err.matches("\nerror: ").count() + 1, wrong.len(), "one error each:\n{}", said.err);
}

/// How often each thing is killed.
fn kills() -> u64 {
    if std::env::var_os("CDRVAULT_TEST_FULL").is_some() { 200 } else { 20 }
}

/// The processes below one, by their names.
fn below(pid: u32, name: &str) -> Vec<u32> {
    let children = std::fs::read_to_string(format!("/proc/{pid}/task/{pid}/children")).unwrap_or_default();
    let mut found = Vec::new();
    // Children of any thread.
    let tasks = std::fs::read_dir(format!("/proc/{pid}/task")).into_iter().flatten();
    let of_threads = tasks.filter_map(|task| std::fs::read_to_string(task.ok()?.path().join("children")).ok());
    let all: Vec<String> = of_threads.chain([children]).collect();
    for child in all.iter().flat_map(|text| text.split_whitespace()).filter_map(|pid| pid.parse::<u32>().ok()) {
        if std::fs::read_to_string(format!("/proc/{child}/comm")).is_ok_and(|comm| comm.trim() == name) {
            found.push(child);
        }
        found.extend(below(child, name));
    }
    found.sort_unstable();
    found.dedup();
    found
}

fn kill(pid: u32) {
    let _ = Command::new("kill").args(["-9", &pid.to_string()]).stderr(Stdio::null()).status();
}

/// Re-rates, changes a file, begins a run, and has something killed at a random moment; in the end everything is
/// everywhere. `hit` says whether it killed something that a run was at work with: only such a round counts.
fn killed(
    site: &Site,
    server: &MariaDb,
    seed: u64,
    sink: &str,
    mut hit: impl FnMut(u32) -> bool,
    vault: impl Fn() -> PathBuf,
) {
    remote::add_files_and_dump(site, server, &["vault", sink]);
    let mut random = Random(seed);
    let mut rating = Rating::new(seed, 4, 40);
    // How long a run takes that nobody disturbs.
    let (mut round, mut hits, mut longest) = (0, 0, Duration::from_secs(5));
    while hits < kills() {
        round += 1;
        assert!(round <= kills() * 5, "only {hits} of {round} kills hit anything");
        rating.step(server);
        std::fs::write(site.path("etc/asterisk.conf"), format!("round {round}")).unwrap();
        let mut run = site.start("");
        let began = std::time::Instant::now();
        let moment = Duration::from_millis(random.below(u64::try_from(longest.as_millis()).unwrap()));
        while began.elapsed() < moment && run.try_wait().unwrap().is_none() {
            std::thread::sleep(Duration::from_millis(5));
        }
        if run.try_wait().unwrap().is_none() {
            hits += u64::from(hit(run.id()));
        } else {
            longest = began.elapsed();
        }
        let status = run.wait().unwrap();
        // What is live over there can be read to its end; what is not there yet is still owed.
        let far = vault();
        whole(&far, round);
        if registered(server) && !status.success() && python::compare(server, &far, true).is_err() {
            assert!(owed(server) > 0, "round {round}: the debt went before the delivery");
        }
    }
    site.ok("run", &[]);
    let far = vault();
    whole(&far, round);
    site.ok("verify", &[]);
    let left = |path: &PathBuf| {
        // rdiff-backup's own notes have names of their own.
        if path.starts_with(far.join("rdiff-backup-data")) {
            return false;
        }
        let name = path.file_name().unwrap().to_str().unwrap();
        name.starts_with('.') && name.len() > 8 || name.contains("rdiff-backup.tmp")
    };
    let left: Vec<PathBuf> = files(&far).into_iter().filter(left).collect();
    assert!(left.is_empty(), "left over there: {left:?}");
    python::compare(server, &far, true).unwrap();
    python::compare(server, &site.vault(), true).unwrap();
    assert_eq!(owed(server), 0);
    assert_eq!(site.published(), Vec::<String>::new(), "a second run finds nothing");
}

/// Whether the first run came so far that the engine tells us of changes.
fn registered(server: &MariaDb) -> bool {
    server.app("SELECT COUNT(*) FROM ar_daily_status_job WHERE name LIKE 'cdrvault/%'").trim() != "0"
}

/// Every live object of a vault can be read to its end.
fn whole(vault: &Path, round: u64) {
    for path in files(vault) {
        let name = path.file_name().unwrap().to_str().unwrap();
        if !name.starts_with("ar_") || path.extension().is_none_or(|extension| extension != "parquet") {
            continue;
        }
        let file = std::fs::File::open(&path).unwrap();
        let reader = parquet::arrow::arrow_reader::ParquetRecordBatchReaderBuilder::try_new(file)
            .unwrap_or_else(|error| panic!("round {round}: {} is not whole: {error}", path.display()));
        for batch in reader.build().unwrap() {
            batch.unwrap_or_else(|error| panic!("round {round}: {} is not whole: {error}", path.display()));
        }
    }
}

fn filled(seed: u64) -> (MariaDb, Site) {
    let server = MariaDb::start(Engine::InnoDb);
    Rating::new(seed, 4, 40).fill(&server);
    let site = Site::on(&server);
    (server, site)
}

/// Kills the run itself.
fn the_program(run: u32) -> bool {
    kill(run);
    true
}

/// Kills what a run has started; whether there was any.
fn below_it(run: u32, name: &str) -> bool {
    let found = below(run, name);
    found.iter().copied().for_each(kill);
    !found.is_empty()
}

/// Kills the server that a run is logged in to; whether it was.
fn sshd(ssh: &mut Sshd, run: u32) -> bool {
    let logged_in = !below(run, "ssh").is_empty();
    ssh.kill();
    ssh.restart();
    logged_in
}

fn with_rsync(seed: u64) -> (MariaDb, Site, Sshd) {
    let ((server, site), ssh) = (filled(seed), Sshd::start());
    remote::add(&site, &remote::rsync(&ssh), &["mirror"]);
    (server, site, ssh)
}

fn with_rdiff(seed: u64) -> (MariaDb, Site, Sshd) {
    let ((server, site), ssh) = (filled(seed), Sshd::start());
    remote::add(&site, &remote::rdiff(&ssh), &["offsite"]);
    (server, site, ssh)
}

#[test]
fn rsync_survives_kills_of_the_program() {
    let (server, site, ssh) = with_rsync(11);
    killed(&site, &server, 12, "mirror", the_program, || ssh.directory().join("rsync"));
}

#[test]
fn rsync_survives_kills_of_rsync() {
    let (server, site, ssh) = with_rsync(13);
    killed(&site, &server, 14, "mirror", |run| below_it(run, "rsync"), || ssh.directory().join("rsync"));
}

#[test]
fn rsync_survives_kills_of_sshd() {
    let (server, site, mut ssh) = with_rsync(21);
    let far = ssh.directory().join("rsync");
    killed(&site, &server, 22, "mirror", |run| sshd(&mut ssh, run), || far.clone());
}

#[test]
fn rdiff_survives_kills_of_the_program() {
    let (server, site, ssh) = with_rdiff(31);
    killed(&site, &server, 32, "offsite", the_program, || ssh.directory().join("rdiff"));
}

#[test]
fn rdiff_survives_kills_of_rdiff_backup() {
    let (server, site, ssh) = with_rdiff(33);
    killed(&site, &server, 34, "offsite", |run| below_it(run, "rdiff-backup"), || ssh.directory().join("rdiff"));
}

#[test]
fn rdiff_survives_kills_of_sshd() {
    let (server, site, mut ssh) = with_rdiff(41);
    let far = ssh.directory().join("rdiff");
    killed(&site, &server, 42, "offsite", |run| sshd(&mut ssh, run), || far.clone());
}

#[test]
fn s3_survives_kills_of_the_program() {
    let ((server, site), s3) = (filled(51), Garage::start());
    remote::add(&site, &remote::s3(&s3, &site), &["bucket"]);
    let back = site.path("back");
    killed(&site, &server, 52, "bucket", the_program, || remote::download(&s3, &back));
}

#[test]
fn s3_survives_kills_of_the_server() {
    let ((server, site), s3) = (filled(53), std::cell::RefCell::new(Garage::start()));
    remote::add(&site, &remote::s3(&s3.borrow(), &site), &["bucket"]);
    let hit = |_| {
        s3.borrow_mut().kill();
        s3.borrow_mut().restart();
        true
    };
    let back = site.path("back");
    killed(&site, &server, 54, "bucket", hit, || remote::download(&s3.borrow(), &back));
}

/// Runs what must fail in one sink only: the vault gets the day, the debt stays.
fn refused(site: &Site, server: &MariaDb, says: &[&str]) -> Said {
    rate_again(server, "2026-01-01");
    let said = site.run("run", &[]);
    assert_eq!(said.status, 3, "{}", said.err);
    for part in says {
        assert!(said.err.contains(part), "`{part}` is not in:\n{}", said.err);
    }
    python::compare(server, &site.vault(), false).expect("the vault gets the day");
    assert!(owed(server) > 0, "the debt stays");
    said
}

#[test]
fn what_is_wrong_with_ssh_is_told() {
    let ((server, site), mut ssh) = (filled(61), Sshd::start());
    remote::add(&site, &(remote::rsync(&ssh) + &remote::rdiff(&ssh)), &["mirror", "offsite"]);
    site.ok("run", &[]);
    let good = std::fs::read_to_string(site.path("pipeline.toml")).unwrap();
    let before = files(&ssh.directory());

    let other = ssh.other_identity();
    site.edit(ssh.identity_file().to_str().unwrap(), other.to_str().unwrap());
    refused(&site, &server, &["does not accept our key", "authorized_keys", "mirror", "offsite"]);
    site.pipeline(&good);

    std::fs::write(site.path("nobody"), "").unwrap();
    let nobody = site.path("nobody");
    site.edit(ssh.known_hosts().to_str().unwrap(), nobody.to_str().unwrap());
    refused(&site, &server, &["host key of the other side is not known", "compare its fingerprint"]);
    site.pipeline(&good);

    site.edit(&format!("{}@127.0.0.1:", ssh.user()), "me@no-such-host.invalid:");
    refused(&site, &server, &["there is no such host", "correct the name of the host"]);
    site.pipeline(&good);

    ssh.change_host_key();
    refused(&site, &server, &["host key of the other side has changed", "find out why"]);
    assert_eq!(files(&ssh.directory()), before, "nothing was touched");
}

#[test]
fn a_full_disk_over_there_is_told_and_leaves_what_was_there() {
    let ((server, site), ssh) = (filled(71), Sshd::start());
    let far = ssh.directory().join("rsync");
    std::fs::create_dir(&far).unwrap();
    let mounted =
        said(Command::new("mount").args(["-t", "tmpfs", "-o", "size=600k", "tmpfs"]).arg(&far).output().unwrap());
    assert_eq!(mounted.status, 0, "{}", mounted.err);
    remote::add(&site, &remote::rsync(&ssh), &["mirror"]);
    site.ok("run", &[]);
    let full = far.join("full");
    let _ = std::fs::write(&full, vec![0; 600 << 10]);
    let before = live_of(&far, "2026-01-01");
    refused(&site, &server, &["No space left", "free some space there"]);
    assert_eq!(live_of(&far, "2026-01-01"), before);
    std::fs::remove_file(&full).unwrap();
    site.ok("run", &[]);
    python::compare(&server, &far, false).unwrap();
    assert!(Command::new("umount").arg("-l").arg(&far).status().unwrap().success());
}

/// Whose vault it is arrives before anything else: or the next run would not know it for its own.
#[test]
fn a_new_mirror_whose_first_transfer_was_cut_off_is_gone_on_with() {
    let ((server, site), ssh) = (filled(72), Sshd::start());
    let far = ssh.directory().join("rsync");
    std::fs::create_dir(&far).unwrap();
    let mount = |options: &str| {
        let done =
            said(Command::new("mount").args(["-t", "tmpfs", "-o", options, "tmpfs"]).arg(&far).output().unwrap());
        assert_eq!(done.status, 0, "{}", done.err);
    };
    mount("size=32k");
    remote::add(&site, &remote::rsync(&ssh), &["mirror"]);
    let cut = site.run("run", &[]);
    assert_eq!(cut.status, 3, "{}", cut.err);
    assert!(cut.err.contains("No space left"), "{}", cut.err);
    let identity = ".cdrvault/vault.json";
    let there = std::fs::read(far.join(identity)).unwrap();
    assert!(there == std::fs::read(site.vault().join(identity)).unwrap());
    assert!(!far.join(".cdrvault/manifests").exists(), "no receipt without its object");
    mount("remount,size=8m");
    site.ok("run", &[]);
    python::compare(&server, &far, false).unwrap();
    assert!(Command::new("umount").arg("-l").arg(&far).status().unwrap().success());
}

#[test]
fn what_is_wrong_with_a_bucket_is_told() {
    let ((server, site), s3) = (filled(81), Garage::start());
    remote::add(&site, &remote::s3(&s3, &site), &["bucket"]);
    site.ok("run", &[]);
    let good = std::fs::read_to_string(site.path("pipeline.toml")).unwrap();
    let before = remote::download(&s3, &site.path("before"));

    let (reads, secret) = s3.new_key(true, false);
    site.edit(s3.access_key(), &reads);
    site.secret("s3-secret", &secret);
    let said = refused(&site, &server, &["sink `bucket`", "s3://vault/site", "right to list, read and write"]);
    assert!(!said.err.contains(&secret));
    site.pipeline(&good);

    site.secret("s3-secret", "0123456789wrong-canary");
    let said = refused(&site, &server, &["correct `access-key-id` and `secret-access-key`"]);
    assert!(!said.err.contains("wrong-canary"));
    site.secret("s3-secret", s3.secret_key());

    site.edit("region = \"garage\"", "region = \"eu-nowhere-1\"");
    refused(&site, &server, &["correct `region`"]);
    site.pipeline(&good);

    site.edit("s3://vault/site", "s3://no-such-bucket/site");
    refused(&site, &server, &["make the bucket"]);
    site.pipeline(&good);

    let after = remote::download(&s3, &site.path("after"));
    let names =
        |root: &Path| files(root).iter().map(|path| path.strip_prefix(root).unwrap().to_owned()).collect::<Vec<_>>();
    assert_eq!(names(&before), names(&after), "nothing was touched");
    site.ok("run", &[]);
    python::compare(&server, &remote::download(&s3, &site.path("back")), false).unwrap();
}

#[test]
fn certificates_that_are_expired_or_unknown_are_refused() {
    let (server, site) = filled(91);
    let tls = services::tls::Tls::start(&site.path("tls"));
    site.secret("s3-secret", "never-sent-canary");
    for (port, authority, says) in [
        (tls.expired, "tls/ca.pem", ["expired", "renew the server's certificate"]),
        (tls.good, "tls/other-ca.pem", ["certificate", "tls-ca"]),
        (tls.other_name, "tls/ca.pem", ["certificate", "correct `endpoint`"]),
    ] {
        let plain = Site::text(&server.url());
        site.pipeline(&plain);
        let section = remote::s3_section(&format!("https://127.0.0.1:{port}"), "x", "vault", "key");
        let section = section.replace("retry-for", &format!("tls-ca = \"{authority}\"\nretry-for"));
        remote::add(&site, &section, &["bucket"]);
        let said = refused(&site, &server, &says);
        assert!(!said.err.contains("never-sent-canary"));
    }
}

#[test]
fn no_secret_is_seen_anywhere() {
    let ((server, site), ssh, s3) = (filled(101), Sshd::start(), Garage::start());
    let sections = remote::rsync(&ssh) + &remote::rdiff(&ssh) + &remote::s3(&s3, &site);
    remote::add(&site, &sections, &["mirror", "offsite", "bucket"]);
    let canaries = [s3.secret_key().to_owned(), services::mariadb::PASSWORD.to_owned()];
    let mut run = site.command("run", &["-vv"]);
    run.env("RUST_LOG", "trace").stdout(Stdio::piped()).stderr(std::fs::File::create(site.path("log")).unwrap());
    let mut run = run.spawn().unwrap();
    let (mut looks, mut seen_rsync) = (0, false);
    while run.try_wait().unwrap().is_none() {
        for pid in std::fs::read_dir("/proc").unwrap().filter_map(|entry| entry.ok()?.file_name().into_string().ok()) {
            let Ok(text) = std::fs::read(format!("/proc/{pid}/cmdline")) else { continue };
            let text = String::from_utf8_lossy(&text).into_owned();
            seen_rsync |= text.starts_with("rsync\0");
            // The tests' own servers and clients are told theirs.
            let ours = text.contains("cdrvault\0run")
                || text.starts_with("rsync")
                || text.starts_with("ssh")
                || text.contains("rdiff-backup");
            assert!(!ours || canaries.iter().all(|canary| !text.contains(canary)), "in ps: {text}");
        }
        looks += 1;
        std::thread::sleep(Duration::from_millis(3));
    }
    assert!(run.wait().unwrap().success());
    assert!(looks > 20 && seen_rsync, "{looks} looks");
    let clean =
        |what: &str, text: &str| assert!(canaries.iter().all(|canary| !text.contains(canary)), "in {what}: {text}");
    let look_at_files = || {
        let mut spooled = 0;
        for path in files(site.home.path()) {
            if path.ends_with("password") || path.ends_with("s3-secret") {
                continue;
            }
            spooled += u64::from(path.to_string_lossy().contains("/spool/"));
            clean(&path.display().to_string(), &String::from_utf8_lossy(&std::fs::read(&path).unwrap()));
        }
        spooled
    };
    look_at_files();
    assert!(std::fs::metadata(site.path("log")).unwrap().len() > 0, "the log says nothing");
    // The spool of a run that was stopped when everything was sealed, and the words of runs that fail.
    rate_again(&server, "2026-01-01");
    let stopped = site.with_failpoint("run", "after-seal=abort");
    clean("what a stopped run says", &(stopped.out + &stopped.err));
    assert!(look_at_files() > 0, "nothing was in the spool");
    site.edit(&s3.endpoint(), "http://127.0.0.1:9");
    site.edit("asterisell\"", "asterisk\"");
    for more in [&["-vv"][..], &["--json"], &["--log-format", "json", "-vv"]] {
        let failed = site.run("run", more);
        assert_ne!(failed.status, 0);
        clean("what a failing run says", &(failed.out + &failed.err));
    }
    let shown = site.run("validate", &["--connect", "-vv"]);
    clean("what validate says", &(shown.out + &shown.err));
}

#[test]
fn versioned_buckets_and_object_lock_are_respected() {
    let ((server, site), s3) = (filled(111), Moto::start());
    s3.versioned_bucket("locked", true);
    site.secret("s3-secret", s3.secret_key());
    let section = remote::s3_section(&s3.endpoint(), s3.region(), "locked", s3.access_key())
        .replace("[sink.bucket.s3]\n", "[sink.bucket.s3]\nkeep = { last = 1 }\n");
    remote::add(&site, &section, &["bucket"]);
    site.ok("run", &[]);
    for _ in 0..3 {
        rate_again(&server, "2026-01-01");
        site.ok("run", &[]);
    }
    let script = r#"
names = [found["Key"] for found in s3.list_objects_v2(Bucket="locked", Prefix="site/.cdrvault/versions/ar_cdr").get("Contents", [])]
print(len(names))
versions = s3.list_object_versions(Bucket="locked", Prefix="site/.cdrvault/versions/ar_cdr")
print(len(versions.get("DeleteMarkers", [])))
"#;
    assert_eq!(s3.boto3(script).unwrap(), "1\n2\n", "one version stays; of two there is a delete marker");
}
