//! Every way in that `validate` accepts has a way back, and vaults of older formats have one for ever.

use std::collections::BTreeMap;
use std::path::Path;
use std::process::Command;

use cdrvault_engine::config;

use crate::services::home::Site;
use crate::services::python;

/// Two days of calls; one of the first day changed after it had been saved.
const CALLS: &str = r"
import sqlite3, sys
db = sqlite3.connect(sys.argv[1])
db.execute('CREATE TABLE ar_source_cdr (calldate DATETIME, id INT, ar_cdr_provider_id INT, ar_physical_format_id INT, content TEXT, is_hacked TINYINT, PRIMARY KEY (calldate, id))')
for day in (1, 2):
    for call in range(20):
        db.execute('INSERT INTO ar_source_cdr VALUES (?, ?, 1, 2, ?, 0)', ('2026-01-%02d 10:%02d:00' % (day, call), call, 'call %d' % call))
db.execute(sys.argv[2])
db.commit()
";

const HEAD: &str = "name = \"test\"\nstate = \"state\"\nmin-free = \"1MiB\"\n\
                    [database.billing]\nurl = \"sqlite:billing.sqlite\"\n\
                    [sink.vault.local]\npath = \"vault\"\n";

const ROWS: &str = "ar-source-cdr = { database = \"billing\" }";

fn site(change: &str) -> Site {
    let site = Site::new("sqlite:billing.sqlite");
    python::run(CALLS, &[site.path("billing.sqlite").to_str().unwrap(), change]);
    std::fs::create_dir_all(site.path("tree/a")).unwrap();
    std::fs::write(site.path("tree/a/file"), "content").unwrap();
    std::fs::write(site.path("tree/b"), vec![1; 3000]).unwrap();
    // Neither its name nor its bytes say how it is stored.
    std::fs::write(site.path("tree/empty.zst"), "").unwrap();
    site
}

fn flow(name: &str, source: &str, transforms: &[&str]) -> String {
    format!("[flow.{name}]\nsource.{source}\ntransforms = {transforms:?}\nsinks = [\"vault\"]\n")
}

/// The files below a directory, by their names.
fn below(directory: &Path) -> BTreeMap<String, Vec<u8>> {
    let mut files = BTreeMap::new();
    for entry in std::fs::read_dir(directory).unwrap().map(Result::unwrap) {
        let name = entry.file_name().into_string().unwrap();
        if entry.file_type().unwrap().is_dir() {
            files.extend(below(&entry.path()).into_iter().map(|(below, bytes)| (format!("{name}/{below}"), bytes)));
        } else {
            files.insert(name, std::fs::read(entry.path()).unwrap());
        }
    }
    files
}

/// Every chain of so many transforms, or fewer.
fn chains<'a>(kinds: &[&'a str], longest: usize) -> Vec<Vec<&'a str>> {
    let (mut all, mut last) = (vec![Vec::new()], vec![Vec::new()]);
    for _ in 0..longest {
        let longer =
            last.iter().flat_map(|chain: &Vec<&str>| kinds.iter().map(|kind| [chain.as_slice(), &[*kind]].concat()));
        last = longer.collect();
        all.extend(last.iter().cloned());
    }
    all
}

#[test]
fn every_chain_that_validate_accepts_is_saved_and_restored() {
    let site = site("SELECT 1");
    let registry = cdrvault::registry();
    let kinds: Vec<&str> = registry.transforms.iter().map(|plugin| plugin.kind).collect();
    let (mut text, mut flows) = (HEAD.to_owned(), Vec::new());
    for source in [ROWS, "files = { path = \"tree\" }"] {
        for chain in chains(&kinds, 4) {
            let name = format!("f{}", flows.len());
            let flow = flow(&name, source, &chain);
            if config::load(&site.path("pipeline.toml"), &format!("{HEAD}{flow}"), &registry).is_ok() {
                text += &flow;
                flows.push((name, source == ROWS, chain));
            }
        }
    }
    assert!(flows.iter().any(|(_, rows, chain)| *rows && chain[..] == ["incremental", "parquet", "compress"]));
    assert!(flows.iter().any(|(_, rows, chain)| !*rows && chain[..] == ["compress", "compress"]));
    site.pipeline(&text);
    site.ok("run", &[]);
    site.ok("verify", &["--against-source"]);
    let unchanged = site.content();
    site.ok("run", &[]);
    site.ok("replay", &["--from", "2026-01-01", "--to", "2026-01-03"]);
    assert_eq!(site.content(), unchanged, "nothing changed");

    let mut calls = None;
    for (name, rows, chain) in &flows {
        let back = site.path("back");
        let into = format!("{}:{}", if *rows { "csv" } else { "dir" }, back.display());
        site.ok("restore", &["--flow", name, "--into", &into]);
        let files = below(&back);
        std::fs::remove_dir_all(&back).unwrap();
        if *rows {
            let tables: Vec<Vec<u8>> =
                files.into_iter().filter(|(name, _)| name.ends_with(".csv")).map(|(_, table)| table).collect();
            let text = String::from_utf8(tables.concat()).unwrap();
            assert_eq!(text.matches("\"2026-01-0").count(), 40, "{chain:?}: {text}");
            assert!((0..20).all(|call| text.matches(&format!("\"call {call}\"")).count() == 2), "{chain:?}: {text}");
            assert_eq!(*calls.get_or_insert_with(|| tables.clone()), tables, "{chain:?}");
        } else {
            let contents: Vec<&[u8]> = files.values().map(Vec::as_slice).collect();
            assert!(files.keys().any(|name| name.ends_with("empty.zst")), "{chain:?}: {:?}", files.keys());
            assert!(
                contents.contains(&b"content".as_slice()) && contents.contains(&vec![1; 3000].as_slice()),
                "{chain:?}"
            );
        }
    }
}

/// Puts the vault that the program wrote before receipts named encodings in the place of the one that is there, as if this
/// very pipeline had written it.
fn go_back_to_format_1(site: &Site) {
    let own = std::fs::read_to_string(site.vault().join(".cdrvault/vault.json")).unwrap();
    std::fs::remove_dir_all(site.vault()).unwrap();
    let fixture = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures/vault-format-1.tar.gz");
    let unpacked =
        Command::new("tar").arg("-xzf").arg(fixture).arg("-C").arg(site.home.path()).arg("--no-same-owner").status();
    assert!(unpacked.unwrap().success());
    let mut identity: serde_json::Value = serde_json::from_str(&own).unwrap();
    assert_eq!(identity["format"], 2);
    identity["format"] = 1.into();
    // Its first versions wrote no checksum, which is read.
    identity.as_object_mut().unwrap().remove("self-sha256");
    for name in ["vault.json", "vault-copy.json"] {
        std::fs::write(site.vault().join(".cdrvault").join(name), identity.to_string()).unwrap();
    }
}

fn formats(site: &Site) -> BTreeMap<String, u64> {
    let receipts = below(&site.vault().join(".cdrvault/manifests"));
    let format = |text: &[u8]| serde_json::from_slice::<serde_json::Value>(text).unwrap()["format"].as_u64().unwrap();
    receipts.into_iter().map(|(name, text)| (name, format(&text))).collect()
}

#[test]
fn a_vault_of_format_1_is_verified_restored_and_continued() {
    let site = site("UPDATE ar_source_cdr SET content = 'changed' WHERE calldate = '2026-01-01 10:03:00'");
    std::fs::remove_file(site.path("tree/empty.zst")).unwrap();
    let tree = "files = { path = \"tree\" }";
    let flows = [
        flow("ar_source_cdr", ROWS, &["incremental", "parquet"]),
        flow("tree", tree, &["compress"]),
        flow("twice", tree, &["compress", "compress"]),
        flow("plain", tree, &[]),
    ];
    site.pipeline(&format!("{HEAD}{}", flows.concat()));
    site.ok("run", &[]);
    let calls = |at: &str| {
        site.ok("restore", &["--flow", "ar_source_cdr", "--into", &format!("csv:{}", site.path(at).display())]);
        let mut files = below(&site.path(at));
        files.retain(|name, _| name.ends_with(".csv"));
        files
    };
    let expected = calls("new");
    go_back_to_format_1(&site);
    let old = below(&site.vault());

    // Two compressions were saved, and taken off by half.
    let verified = Command::new(env!("CARGO_BIN_EXE_cdrvault")).args(["verify", "--vault"]).arg(site.vault()).output();
    let verified = verified.unwrap();
    assert!(verified.status.success(), "{verified:?}");
    for (flow, files) in [("tree", ["a/file", "b"].as_slice()), ("plain", &["a/file", "b"]), ("twice", &["b"])] {
        let back = site.path("back");
        site.ok("restore", &["--flow", flow, "--into", &format!("dir:{}", back.display())]);
        let found = below(&back);
        for file in files {
            let saved = found.iter().find(|(name, _)| name.ends_with(file)).unwrap_or_else(|| panic!("{flow}: {file}"));
            let content = if *file == "b" { vec![1; 3000] } else { b"content".to_vec() };
            assert_eq!(*saved.1, content, "{flow} {file}");
        }
        std::fs::remove_dir_all(back).unwrap();
    }
    assert_eq!(calls("old"), expected);
    assert_eq!(below(&site.vault()), old, "nobody who reads changes it");

    // It is continued: what did not change stays as it is, beside what did.
    python::run(
        "import sqlite3, sys; db = sqlite3.connect(sys.argv[1]); db.execute(sys.argv[2]); db.commit()",
        &[
            site.path("billing.sqlite").to_str().unwrap(),
            "UPDATE ar_source_cdr SET content = 'changed again' WHERE calldate = '2026-01-02 10:03:00'",
        ],
    );
    site.ok("run", &[]);
    site.ok("replay", &["--from", "2026-01-01", "--to", "2026-01-03"]);
    let days = |formats: BTreeMap<String, u64>| -> Vec<(String, u64)> {
        formats.into_iter().filter(|(name, _)| name.starts_with("ar_source_cdr/")).collect()
    };
    let expected = [("01/g0001", 1), ("01/g0002", 1), ("02/g0001", 1), ("02/g0002", 2)];
    let expected = expected.map(|(name, format)| (format!("ar_source_cdr/2026-01-{name}.json"), format));
    assert_eq!(days(formats(&site)), expected);
    site.ok("verify", &["--against-source"]);
    site.ok("prune", &[]);
    let identity = std::fs::read_to_string(site.vault().join(".cdrvault/vault.json")).unwrap();
    let identity: serde_json::Value = serde_json::from_str(&identity).unwrap();
    assert_eq!(identity["format"], 2, "older programs refuse it");
    let continued: Vec<u8> = calls("continued").into_values().flatten().collect();
    assert!(String::from_utf8(continued).unwrap().contains("changed again"));

    // Another sink that gets the old generations has receipts of today for the same bytes.
    site.edit("[flow.ar_source_cdr]", "[sink.second.local]\npath = \"second\"\n[flow.ar_source_cdr]");
    site.edit("sinks = [\"vault\"]", "sinks = [\"vault\", \"second\"]");
    site.ok("run", &[]);
    site.ok("verify", &[]);
    let copied = std::fs::read(site.path("second/.cdrvault/manifests/ar_source_cdr/2026-01-01/g0002.json")).unwrap();
    let copied: serde_json::Value = serde_json::from_slice(&copied).unwrap();
    assert_eq!(
        (&copied["format"], &copied["content"]["object"]["encodings"]),
        (&2.into(), &serde_json::json!(["parquet"]))
    );
}

#[test]
fn a_flow_whose_encodings_change_leaves_no_live_object_of_before() {
    let site = site("SELECT 1");
    let chains: [&[&str]; 3] = [&["incremental", "parquet"], &["incremental", "parquet", "compress"], &["parquet"]];
    for (index, chain) in chains.iter().enumerate() {
        site.pipeline(&format!("{HEAD}{}", flow("calls", ROWS, chain)));
        if index == 0 {
            site.ok("run", &[]);
        } else {
            site.ok("replay", &["--from", "2026-01-01", "--to", "2026-01-03"]);
        }
        let suffix = if index == 1 { ".parquet.zst" } else { ".parquet" };
        let live = below(&site.vault().join("calls"));
        let expected = ["01", "02"].map(|day| format!("day=2026-01-{day}/calls-2026-01-{day}{suffix}"));
        assert_eq!(live.into_keys().collect::<Vec<_>>(), expected);
        site.ok("verify", &[]);
        site.ok("run", &[]);
    }
    let receipts = below(&site.vault().join(".cdrvault/manifests/calls"));
    assert_eq!(receipts.len(), 6, "what did not change is not saved again");
    let at = |generation: &str| {
        let receipt = &receipts[&format!("2026-01-01/g000{generation}.json")];
        let receipt: serde_json::Value = serde_json::from_slice(receipt).unwrap();
        (receipt["content"]["object"]["encodings"].clone(), receipt["content"]["object"]["data-sha256"].clone())
    };
    assert_eq!(at("2").0, serde_json::json!(["parquet", "zstd"]));
    assert_eq!([at("1"), at("2"), at("3")].map(|(_, data)| data), [at("1").1, at("1").1, at("1").1], "the same rows");

    // Without its receipts the object tells what it is.
    site.pipeline(&format!("{HEAD}{}", flow("calls", ROWS, chains[1])));
    site.ok("replay", &["--from", "2026-01-01", "--to", "2026-01-03"]);
    let receipts = site.vault().join(".cdrvault/manifests/calls");
    let newest = ["2026-01-01/g0004.json", "2026-01-02/g0004.json"].map(|name| receipts.join(name));
    let told = |path: &Path| {
        let receipt: serde_json::Value = serde_json::from_slice(&std::fs::read(path).unwrap()).unwrap();
        receipt["content"].clone()
    };
    let lost = newest.each_ref().map(|path| told(path));
    std::fs::remove_file(&newest[0]).unwrap();
    std::fs::remove_dir_all(receipts.join("2026-01-02")).unwrap();
    site.run("verify", &["--repair"]);
    assert_eq!(newest.each_ref().map(|path| told(path)), lost);
    assert_eq!(lost[0]["object"]["encodings"], serde_json::json!(["parquet", "zstd"]));
    site.ok("run", &[]);
}

#[test]
fn receipts_of_a_newer_format_are_neither_damaged_nor_set_aside() {
    let site = site("SELECT 1");
    site.pipeline(&format!("{HEAD}{}", flow("calls", ROWS, &["incremental", "parquet"])));
    site.ok("run", &[]);
    let receipt = site.vault().join(".cdrvault/manifests/calls/2026-01-01/g0001.json");
    let text = std::fs::read_to_string(&receipt).unwrap().replacen("\"format\":2", "\"format\":3", 1);
    // With a wrong checksum it is a damaged receipt of today.
    std::fs::write(&receipt, &text).unwrap();
    assert_eq!(site.run("verify", &[]).status, 4);
    let (body, _) = text.rsplit_once(",\"self-sha256\"").unwrap();
    let text = cdrvault_format::checksum::seal(format!("{body}}}").into_bytes());
    std::fs::write(&receipt, &text).unwrap();
    let said = site.run("verify", &["--repair"]);
    assert_ne!(said.status, 0);
    assert!(said.err.contains("has the newer format 3") && said.err.contains("use a newer cdrvault"), "{}", said.err);
    assert!(std::fs::read(&receipt).unwrap() == text);
}
