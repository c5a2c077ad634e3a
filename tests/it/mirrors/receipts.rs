//! Receipts that a mirror lost.

use std::path::{Path, PathBuf};

use crate::repair::{self, add, flip, lines, receipt, site};
use crate::services::home::Site;

const INDEX: &str = ".cdrvault/index/ar_source_cdr.json";

/// A vault with two generations of the first day, a mirror by rsync in `far`, and one of another kind in another place.
fn mirrored(keep: &str, other: Option<(&str, &str)>) -> Site {
    let site = site(&["vault"]);
    let section = |name: &str, kind: &str, more: &str| {
        let to = site.path(name);
        format!("[sink.{name}.{kind}]\nmirror = \"vault\"\nto = \"{}\"\n{more}", to.display())
    };
    let mut sections = section("far", "rsync", keep);
    sections += &other.map(|(name, kind)| section(name, kind, "")).unwrap_or_default();
    site.edit("[flow.ar_source_cdr]", &format!("{sections}[flow.ar_source_cdr]"));
    let list = other.map(|(name, _)| format!(", \"{name}\"")).unwrap_or_default();
    site.edit("sinks = [\"vault\"]", &format!("sinks = [\"vault\", \"far\"{list}]"));
    site.ok("run", &[]);
    again(&site, 50);
    site
}

fn again(site: &Site, call: u32) {
    add(site, "2026-01-01 11:00:00", call);
    site.ok("replay", &["--flow", "ar_source_cdr", "--day", "2026-01-01"]);
}

fn restored(site: &Site, sink: &str) -> i32 {
    let into = site.path("back");
    let _ = std::fs::remove_dir_all(&into);
    let into = format!("csv:{}", into.display());
    site.run("restore", &["--from-sink", sink, "--flow", "ar_source_cdr", "--into", &into]).status
}

/// Without the kept object whose receipt is lost.
fn findings(site: &Site, more: &[&str]) -> (i32, Vec<String>) {
    let (status, mut found) = repair::findings(site, more);
    found.retain(|line| !line.contains("orphaned"));
    (status, found)
}

fn lose(path: &Path) -> (PathBuf, Vec<u8>) {
    let text = std::fs::read(path).unwrap();
    std::fs::remove_file(path).unwrap();
    (path.to_owned(), text)
}

#[test]
fn a_receipt_that_a_mirror_lost_is_found_there_without_its_vault_and_comes_back() {
    let site = mirrored("", None);
    let far = site.path("far");
    assert_eq!(findings(&site, &[]), (0, vec![]));
    for generation in [2, 1] {
        let (path, text) = lose(&receipt(&far, "2026-01-01", generation));
        let lost = lines(&["far missing-receipt 2026-01-01"]);
        assert_eq!(findings(&site, &["--sink", "far"]), (4, lost), "generation {generation}");
        assert_eq!(restored(&site, "far"), if generation == 2 { 3 } else { 0 }, "generation {generation}");
        let mended = lines(&["far missing-receipt 2026-01-01 repaired"]);
        assert_eq!(findings(&site, &["--sink", "far", "--repair"]), (0, mended), "generation {generation}");
        assert!(std::fs::read(path).unwrap() == text, "generation {generation}");
        assert_eq!(findings(&site, &[]), (0, vec![]));
    }
    // The next run brings the newest one, too.
    let (path, text) = lose(&receipt(&far, "2026-01-01", 2));
    site.ok("run", &[]);
    assert!(std::fs::read(path).unwrap() == text);
    // All that there was of a dataset.
    std::fs::remove_dir_all(far.join(".cdrvault/manifests/tree")).unwrap();
    let (status, found) = findings(&site, &["--sink", "far"]);
    assert!(status == 4 && found.contains(&"far missing-receipt snapshot".to_owned()), "{found:?}");
}

#[test]
fn a_mirror_of_an_older_version_gets_an_index_and_a_damaged_one_is_told_and_mended() {
    let site = mirrored("", Some(("history", "rdiff")));
    let index = site.path("far").join(INDEX);
    std::fs::remove_dir_all(index.parent().unwrap()).unwrap();
    assert_eq!(findings(&site, &[]), (0, vec![]), "as an older version left it");
    site.ok("run", &[]);
    let whole = std::fs::read(&index).unwrap();
    assert_eq!(whole, std::fs::read(site.vault().join(INDEX)).unwrap(), "it has all that the vault has");
    for sink in ["far", "history"] {
        flip(&site.path(sink).join(INDEX));
        let damaged = format!("{sink} damaged-notes -");
        assert_eq!(findings(&site, &[]), (4, lines(&[&damaged])), "{sink}");
        assert_eq!(findings(&site, &["--repair"]), (0, lines(&[&format!("{damaged} repaired")])), "{sink}");
        assert_eq!(findings(&site, &[]), (0, vec![]), "{sink}");
    }
}

#[test]
fn what_a_mirror_has_pruned_or_did_not_get_yet_was_not_lost() {
    let site = mirrored("keep = { last = 1 }\n", None);
    for call in 51..53 {
        again(&site, call);
        assert_eq!(findings(&site, &[]).0, 0);
    }
    site.ok("prune", &["--yes"]);
    assert!(!receipt(&site.path("far"), "2026-01-01", 1).exists());
    assert!(receipt(&site.vault(), "2026-01-01", 1).exists());
    assert_eq!(findings(&site, &[]), (0, vec![]));
    // Killed when the receipts were there, and the index was not.
    add(&site, "2026-01-01 12:00:00", 60);
    let mut killed = site.command("replay", &["--flow", "ar_source_cdr", "--day", "2026-01-01"]);
    assert!(!killed.env("CDRVAULT_FAILPOINT", "before-mirror-index=abort").status().unwrap().success());
    assert!(receipt(&site.path("far"), "2026-01-01", 5).exists());
    site.ok("run", &[]);
    assert_eq!(findings(&site, &[]), (0, vec![]));
    lose(&receipt(&site.path("far"), "2026-01-01", 5));
    let lost = lines(&["far missing-receipt 2026-01-01"]);
    assert_eq!(findings(&site, &["--sink", "far"]), (4, lost), "the next run named it");
}
