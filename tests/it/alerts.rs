//! What watches over the runs: alert rules, dashboard and systemd units, each loaded by the program it is for.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::process::Command;

use crate::services::home::said;
use crate::services::places::program;

fn file(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join(name)
}

fn promtool(args: &[&str]) {
    let done = said(
        Command::new(program("promtool", "prometheus"))
            .current_dir(env!("CARGO_MANIFEST_DIR"))
            .args(args)
            .output()
            .unwrap(),
    );
    assert_eq!(done.status, 0, "promtool {args:?}:\n{}{}", done.out, done.err);
}

#[test]
fn prometheus_takes_the_rules_and_they_fire_when_they_should() {
    promtool(&["check", "rules", "--lint-fatal", "configs/prometheus/cdrvault.rules.yml"]);
    promtool(&["test", "rules", "tests/fixtures/alerts.yml"]);
    // Each of them is tested.
    let (rules, tests) = (text("configs/prometheus/cdrvault.rules.yml"), text("tests/fixtures/alerts.yml"));
    let mut alerts = rules.lines().filter_map(|line| line.trim().strip_prefix("- alert: ")).peekable();
    assert!(alerts.peek().is_some());
    for alert in alerts {
        assert!(tests.contains(&format!("alertname: {alert}\n        exp_alerts:")), "{alert} is never seen to fire");
    }
}

#[test]
fn rules_and_dashboard_use_metrics_that_a_run_writes() {
    let written = written();
    let dashboard = text("configs/grafana/cdrvault.json");
    serde_json::from_str::<serde_json::Value>(&dashboard).expect("the dashboard is JSON");
    let shown = used(&dashboard);
    for (name, used) in [("rules", used(&text("configs/prometheus/cdrvault.rules.yml"))), ("dashboard", shown.clone())]
    {
        let unknown: Vec<_> = used.difference(&written).collect();
        assert!(unknown.is_empty(), "the {name} use {unknown:?}, and a run writes {written:?}");
    }
    let hidden: Vec<_> = written.difference(&shown).collect();
    assert!(hidden.is_empty(), "the dashboard does not show {hidden:?}");
}

#[test]
fn the_panels_of_the_dashboard_do_not_overlap() {
    let dashboard: serde_json::Value = serde_json::from_str(&text("configs/grafana/cdrvault.json")).unwrap();
    let mut taken = BTreeSet::new();
    for panel in dashboard["panels"].as_array().unwrap() {
        let at = |side: &str| panel["gridPos"][side].as_u64().unwrap();
        assert!(at("x") + at("w") <= 24, "{} is too wide", panel["title"]);
        for x in at("x")..at("x") + at("w") {
            for y in at("y")..at("y") + at("h") {
                assert!(taken.insert((x, y)), "{} lies on another panel", panel["title"]);
            }
        }
    }
}

/// The names that stand in the file for Prometheus after a run and a verification.
fn written() -> BTreeSet<String> {
    let home = tempfile::tempdir().unwrap();
    let cdrvault = |args: &[&str]| {
        let done =
            said(Command::new(env!("CARGO_BIN_EXE_cdrvault")).current_dir(home.path()).args(args).output().unwrap());
        assert_eq!(done.status, 0, "{args:?}: {}{}", done.out, done.err);
    };
    cdrvault(&["demo", "--dir", "demo", "--days", "3", "--calls-per-day", "20"]);
    let pipeline = home.path().join("demo/pipeline.toml");
    let text = std::fs::read_to_string(&pipeline).unwrap()
        + "\n[watch]\nmin-calls = \"10%\"\n\n[metrics]\ntextfile = \"cdrvault.prom\"\n";
    std::fs::write(&pipeline, text).unwrap();
    cdrvault(&["verify", "demo/pipeline.toml"]);
    cdrvault(&["run", "demo/pipeline.toml"]);
    let text = std::fs::read_to_string(home.path().join("demo/cdrvault.prom")).unwrap();
    text.lines().filter_map(|line| Some(line.strip_prefix("# TYPE ")?.split(' ').next()?.to_owned())).collect()
}

/// Every metric of ours that a text names in an expression.
fn used(text: &str) -> BTreeSet<String> {
    let word = |letter: char| letter.is_ascii_lowercase() || letter == '_' || letter.is_ascii_digit();
    text.split(|letter| !word(letter)).filter(|word| word.starts_with("cdrvault_")).map(str::to_owned).collect()
}

fn text(name: &str) -> String {
    std::fs::read_to_string(file(name)).unwrap_or_else(|error| panic!("{name}: {error}"))
}

/// The units as they are, but for the path of the program, which is not installed here.
#[test]
fn systemd_takes_the_units_and_finds_little_that_they_may_do() {
    let analyze = program("systemd-analyze", "systemd");
    let home = tempfile::tempdir().unwrap();
    let mut instances = Vec::new();
    for entry in std::fs::read_dir(file("configs/systemd")).unwrap() {
        let name = entry.unwrap().file_name().into_string().unwrap();
        let unit =
            text(&format!("configs/systemd/{name}")).replace("/usr/bin/cdrvault", env!("CARGO_BIN_EXE_cdrvault"));
        std::fs::write(home.path().join(&name), &unit).unwrap();
        let instance = home.path().join(name.replace('@', "@test."));
        std::fs::write(&instance, &unit).unwrap();
        instances.push(instance);
    }
    instances.sort();
    assert!(instances.len() >= 4, "{instances:?}");
    let run = |args: &[&str], units: &[PathBuf]| {
        let mut command = Command::new(&analyze);
        command.args(args).args(units).env("SYSTEMD_UNIT_PATH", units_of(home.path()));
        let done = said(command.output().unwrap());
        assert_eq!(done.status, 0, "systemd-analyze {args:?} {units:?}:\n{}{}", done.out, done.err);
        done
    };
    let verified = run(&["verify", "--man=no", "--recursive-errors=one"], &instances);
    let ours: Vec<_> = verified.err.lines().filter(|line| line.contains("cdrvault")).collect();
    assert!(ours.is_empty(), "{ours:#?}");
    for service in instances.iter().filter(|unit| unit.extension().is_some_and(|kind| kind == "service")) {
        // From 0 (may do nothing) to 100 (as any program of root).
        run(&["security", "--offline=true", "--threshold=20"], std::slice::from_ref(service));
    }
}

/// Ours, and those of the system.
fn units_of(directory: &Path) -> String {
    format!("{}:/usr/lib/systemd/system:/lib/systemd/system", directory.display())
}

/// They are locked down alike: what one of them may not do, the others may not, either.
#[test]
fn the_services_differ_in_what_they_start_alone() {
    let settings = |name: &str| {
        let unit = text(&format!("configs/systemd/{name}"));
        let (_, service) = unit.split_once("\n[Service]\nType=").unwrap();
        let own = |line: &&str| ["ExecStart=", "SuccessExitStatus=", "#"].iter().any(|start| line.starts_with(start));
        service.lines().filter(|line| !line.is_empty() && !own(line)).map(str::to_owned).collect::<Vec<_>>()
    };
    let run = settings("cdrvault@.service");
    assert!(run.contains(&"NoNewPrivileges=yes".to_owned()), "{run:#?}");
    for other in ["cdrvault-verify@.service", "cdrvault-check@.service"] {
        assert_eq!(settings(other), run, "{other}");
    }
}

/// Every verb that a unit or the crontab calls, with its flags, is one that there is.
#[test]
fn units_and_crontab_call_verbs_that_there_are() {
    let mut called = 0;
    let mut files = vec!["configs/cdrvault.cron".to_owned()];
    for entry in std::fs::read_dir(file("configs/systemd")).unwrap() {
        files.push(format!("configs/systemd/{}", entry.unwrap().file_name().into_string().unwrap()));
    }
    for name in files {
        // What is commented out is an example, and has to be right, too.
        for line in text(&name).lines() {
            let Some((before, call)) = line.split_once("cdrvault ") else { continue };
            if !(before.ends_with("ExecStart=/usr/bin/") || before.contains(" * *  root")) {
                continue;
            }
            let call = call.replace("%i", "./no-such.toml").replace("asterisell", "./no-such.toml").replace("%%", "%");
            let words: Vec<_> = call.split_whitespace().take_while(|word| *word != ">").collect();
            let done = said(Command::new(env!("CARGO_BIN_EXE_cdrvault")).args(&words).output().unwrap());
            // 2 would be wrong usage.
            assert_eq!(done.status, 1, "{name}: {line}\n{}", done.err);
            assert!(done.err.contains("no-such.toml"), "{name}: {line}\n{}", done.err);
            called += 1;
        }
    }
    assert!(called >= 7, "{called}");
}
