//! A restore beside a run.

use std::process::{Child, Stdio};
use std::time::Duration;

use crate::repair::{add, site};
use crate::services::files;
use crate::services::home::{Said, Site, said};

/// Starts a restore of one day that stops at this step, does something else meanwhile, and lets it go on. What it said, and
/// how many calls it gave back.
fn restored(site: &Site, step: &str, more: &[&str], meanwhile: impl FnOnce()) -> (Said, usize) {
    let (back, go) = (site.path("back"), site.path("go"));
    for path in [&go, &site.path("go.reached")] {
        let _ = std::fs::remove_file(path);
    }
    let _ = std::fs::remove_dir_all(&back);
    let into = format!("csv:{}", back.display());
    let arguments = [&["--from-sink", "vault", "--flow", "ar_source_cdr", "--into", &into], more].concat();
    let mut command = site.command("restore", &arguments);
    command.env("CDRVAULT_FAILPOINT", format!("{step}=pause:{}", go.display()));
    let mut child: Child = command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    while !site.path("go.reached").exists() && child.try_wait().unwrap().is_none() {
        std::thread::sleep(Duration::from_millis(20));
    }
    assert!(site.path("go.reached").exists(), "it did not come to {step}");
    meanwhile();
    std::fs::write(&go, "").unwrap();
    let said = said(child.wait_with_output().unwrap());
    let calls = files(&back).iter().map(|path| std::fs::read_to_string(path).unwrap().matches("call ").count()).sum();
    (said, calls)
}

#[test]
fn what_a_run_replaces_while_a_restore_goes_on_is_restored_as_it_is_then() {
    let site = site(&["vault"]);
    let today = jiff::Zoned::now().with_time_zone(jiff::tz::TimeZone::UTC).date().to_string();
    let mut call = 1;
    let mut grow = |day: &str| {
        call += 1;
        add(&site, &format!("{day} 00:00:01"), call);
        site.ok("replay", &["--flow", "ar_source_cdr", "--day", day]);
    };
    grow(&today);
    // The day has not ended: nothing is kept of what is superseded.
    for (step, expected) in [("before-fetch", 2), ("before-restore", 3)] {
        let (said, calls) = restored(&site, step, &["--day", &today], || grow(&today));
        assert_eq!((said.status, calls), (0, expected), "{step}: {}", said.err);
    }
    // As of a time: what has the same calls, and more.
    let now = jiff::Timestamp::now().to_string();
    for (step, expected) in [("before-fetch", 4), ("before-restore", 4)] {
        let (said, calls) = restored(&site, step, &["--day", &today, "--at", &now], || {
            if step == "before-fetch" {
                grow(&today);
            }
        });
        assert_eq!((said.status, calls), (0, expected), "{step}: {}", said.err);
    }
    // This one, and no other.
    for step in ["before-fetch", "before-restore"] {
        let newest = files(&site.vault().join(format!(".cdrvault/manifests/ar_source_cdr/{today}"))).len().to_string();
        let (said, calls) = restored(&site, step, &["--day", &today, "--generation", &newest], || grow(&today));
        assert!(said.status != 0 && calls == 0, "{step}: {} {}", said.status, said.err);
        assert!(
            said.err.contains("was replaced by a run meanwhile") && said.err.contains("restore again"),
            "{}",
            said.err
        );
    }
    // What is kept of a day that had ended is read, until `keep` removes it.
    let (said, calls) = restored(&site, "before-restore", &["--day", "2026-01-01"], || grow("2026-01-01"));
    assert_eq!((said.status, calls), (0, 10), "{}", said.err);
    site.edit("path = \"vault\"\n", "path = \"vault\"\nkeep = { last = 1 }\n");
    for (step, expected) in [("before-fetch", 13), ("before-restore", 15)] {
        let (said, calls) = restored(&site, step, &["--day", "2026-01-01"], || {
            grow("2026-01-01");
            grow("2026-01-01");
            site.ok("prune", &["--yes"]);
        });
        assert_eq!((said.status, calls), (0, expected), "{step}: {}", said.err);
    }
}
