//! Damage of any kind is found, told and, where another sink is whole, repaired; and no damaged bit is ever restored.

use std::io::Read as _;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use crate::services;
use crate::services::Random;
use crate::services::garage::Garage;
use crate::services::home::Site;
use crate::services::mariadb::{Engine, MariaDb};
use crate::services::rating::{Rating, transaction};
use crate::services::remote;
use crate::services::sshd::Sshd;
use cdrvault_engine::config;
use cdrvault_engine::recovery::{self, Wanted, findings, restore, verify};
use cdrvault_format::partition::DayRange;
use cdrvault_plugin::context::{Context, Writer};
use cdrvault_plugin::progress::Quiet;
use cdrvault_plugin::target::TargetOptions;

/// Runs `verify --json`; gives its exit status and its findings, as `sink problem unit`.
fn findings(site: &Site, more: &[&str]) -> (i32, Vec<String>) {
    let said = site.run("verify", &[&["--json"], more].concat());
    let report: serde_json::Value =
        serde_json::from_str(&said.out).unwrap_or_else(|error| panic!("{error}: {}\n{}", said.out, said.err));
    let text = |value: &serde_json::Value| value.as_str().unwrap_or("-").to_owned();
    let line = |finding: &serde_json::Value| {
        let fate = if finding["repaired"] == true { " repaired" } else { "" };
        let unit = format!("{} {}", text(&finding["dataset"]), text(&finding["partition"]));
        format!("{} {} {unit}{fate}", text(&finding["sink"]), text(&finding["problem"]))
    };
    let mut lines: Vec<String> = report["findings"].as_array().unwrap().iter().map(line).collect();
    lines.sort();
    (said.status, lines)
}

fn day_of(vault: &Path, day: &str) -> PathBuf {
    vault.join(format!("ar_cdr/day={day}/ar_cdr-{day}.parquet"))
}

fn flip(path: &Path, at: usize) {
    let mut bytes = std::fs::read(path).unwrap();
    bytes[at] ^= 0x10;
    let kept = std::fs::metadata(path).unwrap().modified().unwrap();
    // Not through the hard link of a version, and with the time of before: a disk does not tell.
    std::fs::remove_file(path).unwrap();
    std::fs::write(path, bytes).unwrap();
    std::fs::File::open(path).unwrap().set_modified(kept).unwrap();
}

#[test]
fn each_kind_of_damage_is_found_and_what_another_sink_holds_is_repaired() {
    let (server, ssh, s3) = (MariaDb::start(Engine::InnoDb), Sshd::start(), Garage::start());
    Rating::new(201, 4, 40).fill(&server);
    let site = Site::on(&server);
    let sections = remote::rsync(&ssh) + &remote::rdiff(&ssh) + &remote::s3(&s3, &site);
    remote::add(&site, &sections, &["mirror", "offsite", "bucket"]);
    site.ok("run", &[]);
    server.app(&transaction("UPDATE ar_cdr SET income = income + 7 WHERE calldate < '2026-01-02';", &["2026-01-01"]));
    site.ok("run", &[]);
    assert!(site.ok("status", &[]).out.contains("never"));
    assert_eq!(findings(&site, &[]), (0, vec![]));
    let status = site.ok("status", &["--json"]).out;
    let status: serde_json::Value = serde_json::from_str(&status).unwrap();
    assert!(
        status["datasets"].as_array().unwrap().iter().all(|dataset| dataset["verified"]["damage"] == 0),
        "{status}"
    );
    assert_eq!(findings(&site, &["--sample", "10%"]), (0, vec![]));

    let far = ssh.directory().join("rsync");
    flip(&day_of(&site.vault(), "2026-01-02"), 200);
    std::fs::remove_file(day_of(&site.vault(), "2026-01-03")).unwrap();
    flip(&day_of(&far, "2026-01-03"), 300);
    flip(&day_of(&ssh.directory().join("rdiff"), "2026-01-04"), 250);
    let key = "site/ar_cdr/day=2026-01-04/ar_cdr-2026-01-04.parquet";
    s3.boto3(&format!("s3.put_object(Bucket='{}', Key='{key}', Body=b'damage')", s3.bucket())).unwrap();
    let versions = site.vault().join(".cdrvault/versions/ar_cdr/2026-01-01");
    let version = std::fs::read_dir(&versions).unwrap().next().unwrap().unwrap().path();
    flip(&version, 100);
    let hurt = [
        "bucket damaged ar_cdr 2026-01-04",
        "mirror damaged ar_cdr 2026-01-03",
        "offsite damaged ar_cdr 2026-01-04",
        "vault damaged ar_cdr 2026-01-01",
        "vault damaged ar_cdr 2026-01-02",
        "vault missing ar_cdr 2026-01-03",
    ];
    assert_eq!(findings(&site, &[]), (4, hurt.map(str::to_owned).to_vec()));
    let said = site.run("verify", &["--sink", "vault"]);
    assert_eq!((said.status, said.out.as_str()), (4, ""));
    assert!(said.err.contains("vault: ar_cdr 2026-01-03 g0001 missing"), "{}", said.err);
    assert!(site.run("status", &[]).out.contains("3 damaged"));

    let repaired = hurt.map(|line| format!("{line} repaired")).to_vec();
    assert_eq!(findings(&site, &["--repair"]), (0, repaired));
    assert_eq!(findings(&site, &[]), (0, vec![]));

    // A receipt comes back from another sink; what nobody else holds cannot be repaired, and says so.
    std::fs::write(day_of(&site.vault(), "2026-01-04").with_file_name("more.parquet"), "x").unwrap();
    let orphan = site.vault().join(format!(".cdrvault/objects/ab/ab{}", "0".repeat(62)));
    std::fs::create_dir_all(orphan.parent().unwrap()).unwrap();
    std::fs::write(&orphan, "x").unwrap();
    let receipt = site.vault().join(".cdrvault/manifests/ar_source_cdr/2026-01-02/g0001.json");
    flip(&receipt, 40);
    let odd = ["vault damaged-receipt ar_source_cdr 2026-01-02 repaired", "vault extra - -", "vault orphaned - -"];
    assert_eq!(findings(&site, &["--repair"]), (4, odd.map(str::to_owned).to_vec()));
}

#[test]
fn what_is_saved_is_compared_with_the_database() {
    let server = MariaDb::start(Engine::InnoDb);
    Rating::new(202, 4, 40).fill(&server);
    let site = Site::on(&server);
    site.ok("run", &[]);
    assert_eq!(findings(&site, &["--against-source"]), (0, vec![]));
    // Unannounced changes that no sum shows, a day that is gone, one that is new, and one that was announced.
    server.app(
        "UPDATE ar_cdr SET imported_info = 'a\\tx' WHERE calldate < '2026-01-02' LIMIT 1;
         DELETE FROM ar_source_cdr WHERE calldate >= '2026-01-02' AND calldate < '2026-01-03';
         INSERT INTO ar_source_cdr VALUES ('2026-02-02 05:00:00', 7, 1, 2, 'new', 0);",
    );
    server.app(&transaction("UPDATE ar_cdr SET cost = 5 WHERE calldate >= '2026-01-04';", &["2026-01-04"]));
    let wrong = [
        " source-differs ar_source_cdr 2026-02-02",
        "vault source-differs ar_cdr 2026-01-01",
        "vault source-differs ar_source_cdr 2026-01-02",
    ];
    assert_eq!(findings(&site, &["--against-source"]), (4, wrong.map(str::to_owned).to_vec()));
    assert_eq!(findings(&site, &["--against-source", "--day", "2026-01-04"]), (0, vec![]));
    assert_eq!(findings(&site, &[]), (0, vec![]), "the vault itself is whole");
}

/// A vault as small as one can be, and what is needed to look at it within this process.
struct Small {
    site: Site,
    cx: Context,
    runtime: tokio::runtime::Runtime,
}

impl Small {
    fn new() -> Self {
        let site = Site::new("sqlite:billing.sqlite");
        std::fs::create_dir_all(site.path("tree/a")).unwrap();
        std::fs::write(site.path("tree/a/file"), "content").unwrap();
        std::fs::write(site.path("tree/b"), vec![1; 3000]).unwrap();
        std::os::unix::fs::symlink("b", site.path("tree/link")).unwrap();
        let script = r"
import sqlite3, sys
db = sqlite3.connect(sys.argv[1])
db.execute('CREATE TABLE ar_source_cdr (calldate DATETIME, id INT, ar_cdr_provider_id INT, ar_physical_format_id INT, content TEXT, is_hacked TINYINT, PRIMARY KEY (calldate, id))')
for day in (1, 2):
    for call in range(20):
        db.execute('INSERT INTO ar_source_cdr VALUES (?, ?, 1, 2, ?, 0)', ('2026-01-%02d 10:%02d:00' % (day, call), call, 'call %d' % call))
db.commit()
";
        services::python::run(script, &[site.path("billing.sqlite").to_str().unwrap()]);
        site.pipeline(
            "name = \"test\"\nstate = \"state\"\nmin-free = \"1MiB\"\n[database.billing]\nurl = \"sqlite:billing.sqlite\"\n\
             [sink.vault.local]\npath = \"vault\"\n\
             [flow.ar_source_cdr]\nsource.ar-source-cdr = { database = \"billing\" }\ntransforms = [\"incremental\", \"parquet\"]\nsinks = [\"vault\"]\n\
             [flow.tree]\nsource.files = { path = \"tree\" }\ntransforms = [\"incremental\", \"compress\"]\nsinks = [\"vault\"]\n",
        );
        site.ok("run", &[]);
        let writer = Writer {
            pipeline: "test".to_owned(),
            id: "00000000".to_owned(),
            timezone: jiff::tz::TimeZone::UTC,
            state: site.path("state"),
        };
        let cx = Context {
            cancel: tokio_util::sync::CancellationToken::new(),
            progress: Arc::new(Quiet),
            writer: Arc::new(writer),
            scratch: None,
        };
        let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build().unwrap();
        Self { site, cx, runtime }
    }

    /// Every object and receipt.
    fn files(&self) -> Vec<PathBuf> {
        let files = self.site.content().into_iter().map(|(path, _)| path);
        let rest = [".cdrvault/vault.json", ".cdrvault/vault-copy.json", ".cdrvault/dirty"];
        let besides = ["/spool/", "/.cdrvault/index/"];
        files
            .filter(|path| !rest.iter().any(|name| path.ends_with(name)))
            .filter(|path| !besides.iter().any(|part| path.to_string_lossy().contains(part)))
            .collect()
    }

    /// What `verify` finds, and what a restore says, in this process.
    fn look(&self) -> (u64, Result<u64, String>) {
        let registry = cdrvault::registry();
        let pipeline = Arc::new(config::open(&self.site.path("pipeline.toml"), &registry).unwrap());
        let job = findings::Job {
            flows: vec![],
            sinks: vec![],
            days: DayRange::ALL,
            percent: 100.0,
            against_source: false,
            repair: false,
            bare: false,
        };
        self.runtime.block_on(async {
            let report = verify::verify(&self.cx, &pipeline, &registry.codecs, &job).await.unwrap();
            assert!(report.failures.is_empty(), "{:?}", report.failures);
            let restoring = async {
                let (sink, _) = recovery::open(&self.cx, pipeline.sink("vault").unwrap()).await?;
                let mut rows = 0;
                for (flow, into) in [("ar_source_cdr", "csv:"), ("tree", "dir:")] {
                    let into = format!("{into}{}", self.site.path("back").display());
                    let plugin = registry.targets.iter().find(|plugin| into.starts_with(plugin.scheme)).unwrap();
                    let target = (plugin.build)(&into, &TargetOptions::default())?;
                    let wanted = Wanted { flows: vec![flow.to_owned()], days: DayRange::ALL, at: None, nearest: false };
                    let found = recovery::find(&self.cx, &sink, &wanted).await?;
                    let plan = restore::plan(&self.cx, &sink, found, &target, true).await?;
                    let done = restore::execute(&self.cx, &sink, &registry.codecs, &plan, &target).await?;
                    if let Some(failure) = done.failed.first() {
                        return Err(cdrvault_format::error::Error::failed(failure.message.clone()));
                    }
                    rows += done.rows;
                }
                Ok::<_, cdrvault_format::error::Error>(rows)
            };
            let restored = restoring.await.map_err(|error| error.one_line());
            let _ = std::fs::remove_dir_all(self.site.path("back"));
            (report.damage(), restored)
        })
    }
}

fn replay(site: &Site, call: u32) {
    let script = "import sqlite3, sys\ndb = sqlite3.connect(sys.argv[1])\n\
                  db.execute(\"INSERT INTO ar_source_cdr VALUES ('2026-01-01 11:00:00', ?, 1, 2, 'x', 0)\", (int(sys.argv[2]),))\ndb.commit()";
    services::python::run(script, &[site.path("billing.sqlite").to_str().unwrap(), &call.to_string()]);
    site.ok("replay", &["--flow", "ar_source_cdr", "--day", "2026-01-01"]);
}

#[test]
fn what_is_being_read_stays_what_it_was_when_a_run_replaces_it() {
    let small = Small::new();
    let registry = cdrvault::registry();
    let pipeline = Arc::new(config::open(&small.site.path("pipeline.toml"), &registry).unwrap());
    small.runtime.block_on(async {
        let (sink, _) = recovery::open(&small.cx, pipeline.sink("vault").unwrap()).await.unwrap();
        let flows = vec!["ar_source_cdr".to_owned()];
        let wanted = Wanted { flows, days: DayRange::ALL, at: None, nearest: false };
        let found = recovery::find(&small.cx, &sink, &wanted).await.unwrap();
        for manifest in found.manifests {
            let fetched = recovery::Fetched::fetch(&small.cx, &sink, manifest.clone()).await.unwrap();
            tokio::task::block_in_place(|| {
                replay(&small.site, 100 + u32::try_from(manifest.unit.partition.day().unwrap().day()).unwrap());
            });
            let reading = fetched.open().unwrap();
            let objects = reading.objects().unwrap();
            let payload = recovery::undo(&small.cx, &registry.codecs, &manifest, objects).await.unwrap();
            recovery::compare(&small.cx, &manifest, payload).await.unwrap();
        }
    });
}

/// Has a day saved again while the first things are read.
struct Meanwhile {
    site: Site,
    left: std::sync::atomic::AtomicU32,
}

impl cdrvault_plugin::progress::Progress for Meanwhile {
    fn planned(&self, _: &std::collections::BTreeMap<String, u64>) {}
    fn read(&self, _: &cdrvault_format::partition::Unit, _: u64, _: u64) {}
    fn ended(&self, _: &cdrvault_format::partition::Unit, _: bool) {}
    fn began(&self, _unit: &cdrvault_format::partition::Unit) {
        use std::sync::atomic::Ordering;
        if let Ok(left) = self.left.fetch_update(Ordering::SeqCst, Ordering::SeqCst, |left| left.checked_sub(1)) {
            tokio::task::block_in_place(|| replay(&self.site, 200 + left));
        }
    }
}

#[test]
fn what_a_run_does_beside_verify_is_no_damage() {
    for keep in ["", "keep = { last = 1 }\n"] {
        let Small { site, cx, runtime } = Small::new();
        site.edit(
            "path = \"vault\"\n",
            &format!("path = \"vault\"\n{keep}[sink.second.local]\npath = \"second\"\n{keep}"),
        );
        site.edit("\"parquet\"]\nsinks = [\"vault\"]", "\"parquet\"]\nsinks = [\"vault\", \"second\"]");
        site.ok("run", &[]);
        site.run("prune", &["--yes"]);
        let registry = cdrvault::registry();
        let pipeline = Arc::new(config::open(&site.path("pipeline.toml"), &registry).unwrap());
        let job = findings::Job {
            flows: vec![],
            sinks: vec![],
            days: DayRange::ALL,
            percent: 100.0,
            against_source: false,
            repair: false,
            bare: false,
        };
        let meanwhile = Arc::new(Meanwhile { site, left: 4.into() });
        let cx = Context { progress: Arc::clone(&meanwhile) as Arc<dyn cdrvault_plugin::progress::Progress>, ..cx };
        let report = runtime.block_on(verify::verify(&cx, &pipeline, &registry.codecs, &job)).unwrap();
        assert!(report.failures.is_empty(), "{:?}", report.failures);
        assert_eq!(report.damage(), 0, "{:?}", report.findings);
        assert_eq!(meanwhile.left.load(std::sync::atomic::Ordering::SeqCst), 0);
    }
}

#[test]
fn no_flipped_bit_and_no_cut_goes_unseen_or_is_restored() {
    let small = Small::new();
    let files = small.files();
    let bytes: u64 = files.iter().map(|path| path.metadata().unwrap().len()).sum();
    assert!(bytes <= 24 << 10, "{bytes} bytes are not a small vault");
    assert_eq!(small.look(), (0, Ok(44)), "it is whole");
    let full = std::env::var_os("CDRVAULT_TEST_FULL").is_some();
    let mut random = Random(203);
    let mut harm = Vec::new();
    for path in &files {
        let length = usize::try_from(path.metadata().unwrap().len()).unwrap();
        if full {
            harm.extend((0..length * 8).map(|bit| (path, bit, false)));
            harm.extend((0..length).map(|length| (path, length, true)));
        } else {
            // As many in each file as its share of the vault, of 5,000.
            let share = 5100 * length / usize::try_from(bytes).unwrap();
            harm.extend(
                (0..share * 4 / 5).map(|_| (path, usize::try_from(random.below(length as u64 * 8)).unwrap(), false)),
            );
            harm.extend((0..=share / 5).map(|_| (path, usize::try_from(random.below(length as u64)).unwrap(), true)));
        }
    }
    assert!(harm.len() >= 5000, "{} cases", harm.len());
    for (path, at, cut) in harm {
        let sound = std::fs::read(path).unwrap();
        let mut hurt = sound.clone();
        if cut {
            hurt.truncate(at);
        } else {
            hurt[at / 8] ^= 1 << (at % 8);
        }
        std::fs::write(path, &hurt).unwrap();
        let (damage, restored) = small.look();
        std::fs::write(path, &sound).unwrap();
        let what = || format!("{} {} at {at}", path.display(), if cut { "cut" } else { "flipped" });
        assert!(damage > 0, "verify does not see {}", what());
        assert!(restored.is_err(), "restored although {}", what());
    }
    assert!(peak_kib() < 512 << 10, "{} KiB", peak_kib());
}

/// The most memory that this process ever had.
fn peak_kib() -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap();
    let peak = status.lines().find_map(|line| line.strip_prefix("VmHWM:")).unwrap();
    peak.trim().trim_end_matches(" kB").parse().unwrap()
}

/// A receipt as a forger would write it: changed, with a checksum that is right.
fn forge(receipt: &Path, change: impl FnOnce(&mut serde_json::Value)) {
    let text = std::fs::read_to_string(receipt).unwrap();
    let mut value: serde_json::Value = serde_json::from_str(&text).unwrap();
    value.as_object_mut().unwrap().remove("self-sha256");
    change(&mut value);
    let body = value.to_string();
    let sealed = format!("{},\"self-sha256\":\"{}\"}}", &body[..body.len() - 1], sha256(body.as_bytes()));
    std::fs::write(receipt, sealed).unwrap();
}

fn sha256(bytes: &[u8]) -> String {
    use sha2::{Digest as _, Sha256};
    hex::encode(Sha256::digest(bytes))
}

/// Everything in them fits together, and still they are refused.
#[test]
fn forged_vaults_are_refused() {
    let small = Small::new();
    let vault = small.site.vault();
    let receipt = |day: &str| vault.join(format!(".cdrvault/manifests/ar_source_cdr/{day}/g0001.json"));
    let live = |day: &str| vault.join(format!("ar_source_cdr/day={day}/ar_source_cdr-{day}.parquet"));
    let (first, second) = (receipt("2026-01-01"), receipt("2026-01-02"));
    let tree = vault.join(".cdrvault/manifests/tree/snapshot/g0001.json");
    let sound: Vec<(PathBuf, Vec<u8>)> = small.site.content();
    let refused = |what: &str, forging: &dyn Fn()| {
        forging();
        let (damage, restored) = small.look();
        assert!(damage > 0, "verify does not see {what}");
        let error = restored.expect_err(what);
        for (path, content) in &sound {
            std::fs::write(path, content).unwrap();
        }
        error
    };
    let outside = small.site.path("outside");
    std::fs::copy(live("2026-01-01"), &outside).unwrap();
    let error = refused("a path that leads out", &|| {
        forge(&first, |receipt| receipt["content"]["object"]["path"] = "../outside".into());
    });
    assert!(error.contains("is not a place of"), "{error}");
    let error = refused("an absolute path", &|| {
        forge(&first, |receipt| receipt["content"]["object"]["path"] = outside.display().to_string().into());
    });
    assert!(error.contains("is not a place of"), "{error}");
    for odd in ["ar_source_cdr/day=2026-01-01/a\nb.parquet", "ar_source_cdr/day=2026-01-01/a\0b.parquet"] {
        let error = refused("a path with a line break or a NUL", &|| {
            forge(&first, |receipt| receipt["content"]["object"]["path"] = odd.into());
        });
        assert!(error.contains("is not a name for a part of a vault"), "{error}");
    }
    let error = refused("the receipt of another day", &|| {
        std::fs::copy(&second, &first).unwrap();
    });
    assert!(error.contains("it is that of"), "{error}");
    let error = refused("the receipt of another dataset", &|| {
        forge(&first, |receipt| {
            receipt["dataset"] = "other".into();
            let path = live("2026-01-01").strip_prefix(&vault).unwrap().display().to_string();
            receipt["content"]["object"]["path"] = path.replacen("ar_source_cdr", "other", 1).into();
        });
    });
    assert!(error.contains("it is that of other"), "{error}");
    let error = refused("a link to a good copy in the place of an object", &|| {
        std::fs::remove_file(live("2026-01-01")).unwrap();
        std::os::unix::fs::symlink(&outside, live("2026-01-01")).unwrap();
    });
    assert!(error.contains("is not a regular file"), "{error}");
    std::fs::remove_file(live("2026-01-01")).unwrap();
    std::fs::copy(&outside, live("2026-01-01")).unwrap();
    // The object of another day under a receipt that says all that is true of it but its day.
    let other: serde_json::Value = serde_json::from_slice(&std::fs::read(&second).unwrap()).unwrap();
    let error = refused("the content of another day", &|| {
        std::fs::copy(live("2026-01-02"), live("2026-01-01")).unwrap();
        forge(&first, |receipt| {
            receipt["fingerprint"] = other["fingerprint"].clone();
            let (to, from) = (&mut receipt["content"]["object"], &other["content"]["object"]);
            (to["sha256"], to["bytes"]) = (from["sha256"].clone(), from["bytes"].clone());
        });
    });
    assert!(error.contains("names itself as another day"), "{error}");

    let bomb = zstd::encode_all(std::io::repeat(0).take(2 << 30), 19).unwrap();
    let error = refused("a file that decompresses to two gigabytes", &|| {
        let name = sha256(&bomb);
        let at = vault.join(format!(".cdrvault/objects/{}/{name}", &name[..2]));
        std::fs::create_dir_all(at.parent().unwrap()).unwrap();
        std::fs::write(at, &bomb).unwrap();
        forge(&tree, |receipt| {
            let entries = receipt["content"]["tree"]["entries"].as_array_mut().unwrap();
            let file = entries.iter_mut().find(|entry| entry["path"] == "a/file").unwrap();
            (file["stored"]["sha256"], file["stored"]["bytes"]) = (name.into(), bomb.len().into());
        });
    });
    assert!(error.contains("decompresses to more than its 7 bytes"), "{error}");

    let bomb = parquet_bomb();
    let forged = |bomb: &[u8]| {
        std::fs::write(live("2026-01-01"), bomb).unwrap();
        forge(&first, |receipt| {
            let object = &mut receipt["content"]["object"];
            (object["sha256"], object["bytes"]) = (sha256(bomb).into(), bomb.len().into());
        });
    };
    let error = refused("a Parquet file that needs two gigabytes", &|| forged(&bomb));
    assert!(error.contains("more memory than any of ours"), "{error}");
    let error = refused("one whose footer says that it is small", &|| forged(&with_lying_footer(&bomb)));
    assert!(error.contains("more memory than any of ours"), "{error}");
    let dictionary = dictionary_bomb();
    refused("a long value that many rows name", &|| forged(&dictionary));
    assert!(peak_kib() < 512 << 10, "{} KiB", peak_kib());
}

/// The same pages under a footer that gives no bytes to any of them.
fn with_lying_footer(file: &[u8]) -> Vec<u8> {
    use parquet::file::metadata::{ParquetMetaDataReader, ParquetMetaDataWriter};
    let stored = tempfile::NamedTempFile::new().unwrap();
    std::fs::write(stored.path(), file).unwrap();
    let metadata = ParquetMetaDataReader::new().parse_and_finish(stored.as_file()).unwrap();
    let mut metadata = metadata.into_builder();
    let groups = metadata.take_row_groups().into_iter().map(|group| {
        let columns = group
            .columns()
            .iter()
            .map(|column| column.clone().into_builder().set_total_uncompressed_size(1).build().unwrap());
        let columns = columns.collect();
        group.into_builder().set_column_metadata(columns).set_total_byte_size(1).build().unwrap()
    });
    let metadata = metadata.set_row_groups(groups.collect()).build();
    let footer = usize::try_from(u32::from_le_bytes(file[file.len() - 8..file.len() - 4].try_into().unwrap())).unwrap();
    let mut lying = file[..file.len() - 8 - footer].to_vec();
    let mut writer = std::io::Cursor::new(&mut lying);
    writer.set_position(u64::try_from(file.len() - 8 - footer).unwrap());
    ParquetMetaDataWriter::new(writer, &metadata).finish().unwrap();
    lying
}

/// Three gigabytes in 200 rows that are one value of 16 MB, stored once.
fn dictionary_bomb() -> Vec<u8> {
    use arrow_array::{DictionaryArray, Int32Array, RecordBatch, StringArray};
    use parquet::basic::{Compression, ZstdLevel};
    use parquet::file::properties::WriterProperties;
    let long = "0".repeat(16 << 20);
    let column = DictionaryArray::new(Int32Array::from(vec![0; 200]), Arc::new(StringArray::from(vec![long.as_str()])));
    let batch = RecordBatch::try_from_iter([("content", Arc::new(column) as arrow_array::ArrayRef)]).unwrap();
    let properties = WriterProperties::builder()
        .set_dictionary_page_size_limit(1 << 30)
        .set_compression(Compression::ZSTD(ZstdLevel::try_new(3).unwrap()))
        .build();
    let options = parquet::arrow::arrow_writer::ArrowWriterOptions::new()
        .with_properties(properties)
        .with_skip_arrow_metadata(true);
    let mut writer = parquet::arrow::ArrowWriter::try_new_with_options(Vec::new(), batch.schema(), options).unwrap();
    writer.write(&batch).unwrap();
    writer.into_inner().unwrap()
}

/// Two gigabytes of zeros in one row group.
fn parquet_bomb() -> Vec<u8> {
    use arrow_array::{ArrayRef, BinaryArray, RecordBatch};
    use parquet::basic::{Compression, ZstdLevel};
    use parquet::file::properties::WriterProperties;
    let zeros = vec![0_u8; 16 << 20];
    let column: ArrayRef = Arc::new(BinaryArray::from_vec(vec![zeros.as_slice()]));
    let batch = RecordBatch::try_from_iter([("content", column)]).unwrap();
    let properties = WriterProperties::builder()
        .set_dictionary_enabled(false)
        .set_compression(Compression::ZSTD(ZstdLevel::try_new(3).unwrap()))
        .set_max_row_group_row_count(Some(1 << 20))
        .build();
    let mut writer = parquet::arrow::ArrowWriter::try_new(Vec::new(), batch.schema(), Some(properties)).unwrap();
    for _ in 0..128 {
        writer.write(&batch).unwrap();
    }
    writer.into_inner().unwrap()
}
