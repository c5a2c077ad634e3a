//! Who hears of runs: pings, webhooks, programs, Prometheus, terminals, and programs that read events.

use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::net::TcpListener;
use std::path::PathBuf;
use std::process::{Command, Stdio};
use std::sync::mpsc::{self, Receiver};
use std::time::Duration;

use crate::services;
use crate::services::home::Site;
use cdrvault::generator::{Generator, Settings, sqlite};
use jiff::ToSpan as _;
use jiff::civil::date;

/// A token that must be seen nowhere.
const TOKEN: &str = "0c1f-canary-9d3e";

/// A request as a server saw it: its path, and its body.
type Request = (String, String);

/// Answers every request with this status, and tells what it was.
fn server(status: &'static str) -> (u16, Receiver<Request>) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = listener.local_addr().unwrap().port();
    let (tell, told) = mpsc::channel();
    std::thread::spawn(move || {
        for stream in listener.incoming() {
            let mut stream = stream.unwrap();
            let mut reader = BufReader::new(stream.try_clone().unwrap());
            let (mut first, mut length) = (String::new(), 0);
            reader.read_line(&mut first).unwrap();
            loop {
                let mut line = String::new();
                reader.read_line(&mut line).unwrap();
                if let Some(value) = line.to_ascii_lowercase().strip_prefix("content-length:") {
                    length = value.trim().parse().unwrap();
                }
                if line.trim().is_empty() {
                    break;
                }
            }
            let mut body = vec![0; length];
            reader.read_exact(&mut body).unwrap();
            let path = first.split(' ').nth(1).unwrap().to_owned();
            write!(stream, "HTTP/1.1 {status}\r\ncontent-length: 0\r\nconnection: close\r\n\r\n").unwrap();
            if tell.send((path, String::from_utf8(body).unwrap())).is_err() {
                return;
            }
        }
    });
    (port, told)
}

/// Three days of calls in SQLite.
fn site() -> Site {
    let site = Site::new("sqlite:billing.sqlite");
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    runtime.block_on(async {
        let mut connection = sqlite::create(&site.path("billing.sqlite")).await.unwrap();
        let settings = Settings { calls_per_day: 300, start: date(2026, 1, 1), ..Settings::default() };
        let generator = Generator::new(settings);
        for day in 1..=3 {
            sqlite::load(&mut connection, generator.calls(date(2026, 1, day))).await.unwrap();
        }
    });
    site
}

fn add(site: &Site, section: &str) {
    let text = std::fs::read_to_string(site.path("pipeline.toml")).unwrap();
    site.pipeline(&format!("{text}\n{section}\n"));
}

fn all(told: &Receiver<Request>) -> Vec<Request> {
    told.try_iter().collect()
}

#[test]
fn pings_webhooks_and_programs_hear_how_a_run_went() {
    let (port, told) = server("200 OK");
    let site = site();
    site.secret("ping", &format!("http://127.0.0.1:{port}/ping/{TOKEN}"));
    site.secret("hook", &format!("http://127.0.0.1:{port}/hook?key={TOKEN}"));
    let heard = site.path("heard");
    add(
        &site,
        &format!(
            "[notify]\nping = {{ file = \"ping\" }}\nwebhook = {{ file = \"hook\" }}\n\
             command = [\"sh\", \"-c\", \"cat >> '{}'\"]\non = [\"success\", \"partial\", \"failure\", \"overdue\"]",
            heard.display()
        ),
    );
    let said = site.ok("run", &[]);
    assert_eq!((said.out.as_str(), said.err.as_str()), ("", ""), "a good run is silent");
    let requests = all(&told);
    let paths: Vec<&str> = requests.iter().map(|(path, _)| path.as_str()).collect();
    assert_eq!(paths[0], format!("/ping/{TOKEN}/start"));
    assert!(paths[1..].contains(&format!("/ping/{TOKEN}").as_str()), "{paths:?}");
    let (_, body) = requests.iter().find(|(path, _)| path.starts_with("/hook")).unwrap();
    let message: serde_json::Value = serde_json::from_str(body).unwrap();
    assert_eq!((&message["event"], &message["pipeline"]), (&"success".into(), &"test".into()), "{message:#}");
    assert_eq!(message["report"]["units"].as_array().unwrap().len(), 6);
    let program: serde_json::Value = serde_json::from_str(&std::fs::read_to_string(&heard).unwrap()).unwrap();
    assert_eq!(program["summary"], message["summary"]);

    // Nothing that can be saved: a failure, and the ping says so.
    std::fs::rename(site.path("billing.sqlite"), site.path("away")).unwrap();
    std::fs::remove_file(&heard).unwrap();
    assert_eq!(site.run("run", &[]).status, 1);
    let requests = all(&told);
    assert!(requests.iter().any(|(path, _)| *path == format!("/ping/{TOKEN}/fail")), "{requests:?}");
    assert!(std::fs::read_to_string(&heard).unwrap().contains("\"event\":\"failure\""));
    // Too long without a good run, and only when a limit was asked for.
    std::fs::remove_file(&heard).unwrap();
    site.ok("status", &[]);
    assert_eq!(all(&told), Vec::new());
    assert_eq!(site.run("status", &["--max-age", "0s"]).status, 1);
    assert!(all(&told).iter().any(|(path, body)| path.starts_with("/hook") && body.contains("\"alarms\":[")));
    assert!(std::fs::read_to_string(&heard).unwrap().contains("\"event\":\"overdue\""));
}

#[test]
fn a_notifier_that_fails_never_fails_the_run_and_no_url_is_shown() {
    let (broken, asked) = server("500 Internal Server Error");
    let (refusing, refused) = server("403 Forbidden");
    let site = site();
    site.secret("ping", &format!("http://127.0.0.1:{broken}/{TOKEN}"));
    site.secret("hook", &format!("http://127.0.0.1:{refusing}/{TOKEN}"));
    add(
        &site,
        "[notify]\nping = { file = \"ping\" }\nwebhook = { file = \"hook\" }\ncommand = [\"false\"]\non = [\"success\"]\ntimeout = \"20s\"",
    );
    let said = site.ok("run", &["-v"]);
    for part in
        ["ping", "webhook", "command", "500", "403", "false ended with exit status: 1", "the run itself succeeded"]
    {
        assert!(said.err.contains(part), "`{part}` is not in:\n{}", said.err);
    }
    assert!(!said.err.contains(TOKEN), "{}", said.err);
    assert!(all(&asked).len() > 2, "a server that fails is asked again");
    assert_eq!(all(&refused).len(), 1, "one that refuses is not");
    // Nobody there at all, an invalid URL, and a program that hangs.
    site.secret("ping", &format!("http://127.0.0.1:9/{TOKEN}"));
    site.secret("hook", TOKEN);
    site.edit("[\"false\"]", "[\"sleep\", \"1000\"]");
    site.edit("\"20s\"", "\"1s\"");
    let said = site.ok("run", &[]);
    assert!(said.err.contains("not a URL of http or https") && said.err.contains("longer than 1 s"), "{}", said.err);
    assert!(!said.err.contains(TOKEN), "{}", said.err);
    // As a literal it is a secret that others must not read.
    site.edit("{ file = \"ping\" }", &format!("\"http://127.0.0.1:9/{TOKEN}\""));
    let refused = site.run("run", &[]);
    assert_eq!(refused.status, 78, "{}", refused.err);
    assert!(!refused.err.contains(TOKEN), "{}", refused.err);
}

#[test]
fn metrics_are_written_after_every_run_and_prometheus_takes_them() {
    let site = site();
    add(&site, "[metrics]\ntextfile = \"metrics/cdrvault.prom\"");
    std::fs::create_dir(site.path("metrics")).unwrap();
    site.edit("path = \"vault\"\n", "path = \"vault\"\n\n[sink.second.local]\npath = \"second\"\noptional = true\n");
    site.edit("sinks = [\"vault\"]", "sinks = [\"vault\", \"second\"]");
    let text = || std::fs::read_to_string(site.path("metrics/cdrvault.prom")).unwrap();
    let value = |name: &str| -> f64 {
        let text = text();
        let line = text.lines().find_map(|line| line.strip_prefix(name));
        line.unwrap_or_else(|| panic!("no {name} in\n{text}")).trim().parse().unwrap()
    };
    site.ok("run", &[]);
    let good = value("cdrvault_last_success_timestamp_seconds{pipeline=\"test\"}");
    assert!(value("cdrvault_last_run_success{pipeline=\"test\"}") == 1.0);
    let of =
        |flow: &str| format!("cdrvault_last_run_partitions{{flow=\"{flow}\",pipeline=\"test\",result=\"published\"}}");
    assert!(value(&of("ar_cdr")) == 3.0 && value(&of("ar_source_cdr")) == 3.0);
    assert!(value("cdrvault_free_bytes{pipeline=\"test\",sink=\"vault\"}") > 0.0);
    let promtool = || {
        let mut child = Command::new("promtool")
            .args(["check", "metrics"])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .expect("this test needs promtool: run ./test, which installs it");
        child.stdin.take().unwrap().write_all(text().as_bytes()).unwrap();
        let done = child.wait_with_output().unwrap();
        assert!(done.status.success() && done.stderr.is_empty(), "{}", String::from_utf8_lossy(&done.stderr));
    };
    promtool();
    // A run that failed writes them, too; what was good before stays known, and the sinks are looked at.
    std::fs::rename(site.path("billing.sqlite"), site.path("away")).unwrap();
    std::fs::rename(site.path("second"), site.path("second-away")).unwrap();
    assert_eq!(site.run("run", &[]).status, 1);
    assert!(value("cdrvault_last_success_timestamp_seconds{pipeline=\"test\"}") == good);
    assert!(value("cdrvault_last_attempt_timestamp_seconds{pipeline=\"test\"}") > good);
    assert!(value("cdrvault_last_run_success{pipeline=\"test\"}") == 0.0);
    assert!(value("cdrvault_sink_up{pipeline=\"test\",sink=\"second\"}") == 0.0);
    assert!(value("cdrvault_sink_up{pipeline=\"test\",sink=\"vault\"}") == 1.0);
    promtool();
    let temporary = std::fs::read_dir(site.path("metrics")).unwrap().count();
    assert_eq!(temporary, 1, "whole, or not at all");
    // Where they cannot be written, the run is not affected.
    std::fs::rename(site.path("away"), site.path("billing.sqlite")).unwrap();
    std::fs::rename(site.path("second-away"), site.path("second")).unwrap();
    std::fs::remove_dir_all(site.path("metrics")).unwrap();
    std::fs::write(site.path("metrics"), "in the way").unwrap();
    let said = site.ok("run", &[]);
    assert!(said.err.contains("warning: the metrics"), "{}", said.err);
}

/// Changes one byte of a live object, with the time of before: a disk does not tell.
fn flip(path: &std::path::Path) {
    let mut bytes = std::fs::read(path).unwrap();
    bytes[200] ^= 0x10;
    let kept = std::fs::metadata(path).unwrap().modified().unwrap();
    std::fs::remove_file(path).unwrap();
    std::fs::write(path, bytes).unwrap();
    std::fs::File::open(path).unwrap().set_modified(kept).unwrap();
}

fn object(site: &Site, day: &str) -> PathBuf {
    site.vault().join(format!("ar_cdr/day={day}/ar_cdr-{day}.parquet"))
}

#[test]
fn damage_is_an_alarm_everywhere_until_it_is_mended() {
    let (port, told) = server("200 OK");
    let site = site();
    site.secret("ping", &format!("http://127.0.0.1:{port}/ping"));
    site.secret("hook", &format!("http://127.0.0.1:{port}/hook"));
    std::fs::create_dir(site.path("metrics")).unwrap();
    let sections = "[notify]\nping = { file = \"ping\" }\nwebhook = { file = \"hook\" }\n\
                    [metrics]\ntextfile = \"metrics/cdrvault.prom\"";
    add(&site, sections);
    site.edit("path = \"vault\"\n", "path = \"vault\"\n\n[sink.second.local]\npath = \"second\"\n");
    site.edit("sinks = [\"vault\"]", "sinks = [\"vault\", \"second\"]");
    site.ok("run", &[]);
    let day = object(&site, "2026-01-02");
    flip(&day);
    all(&told);
    // Found by a look at that day alone, in a sink that was never verified as a whole.
    assert_eq!(site.run("verify", &["--day", "2026-01-02"]).status, 4);
    let requests = all(&told);
    assert!(requests.iter().any(|(path, _)| path == "/ping/fail"), "{requests:?}");
    let hook = requests.iter().find(|(path, _)| path == "/hook").unwrap_or_else(|| panic!("{requests:?}"));
    let message: serde_json::Value = serde_json::from_str(&hook.1).unwrap();
    assert_eq!((&message["event"], &message["damage"]), (&"damage".into(), &1.into()), "{message:#}");
    assert!(message["summary"].as_str().unwrap().contains("ar_cdr 2026-01-02 g0001 damaged"), "{message:#}");
    assert_eq!(message["verified"]["findings"][0]["partition"], "2026-01-02", "{message:#}");
    let text = || std::fs::read_to_string(site.path("metrics/cdrvault.prom")).unwrap();
    let metric = |value: u64| format!("cdrvault_verify_damage{{pipeline=\"test\",sink=\"vault\"}} {value}\n");
    assert!(text().contains(&metric(1)), "{}", text());
    assert!(text().contains("cdrvault_last_run_success{pipeline=\"test\"} 1"), "the last run stays: {}", text());
    let history = site.ok("history", &[]).out;
    let last = history.lines().last().unwrap();
    assert!(last.contains("verify") && last.contains("damage") && last.contains("1 finding"), "{history}");

    let alarms = || {
        let plain = site.run("status", &[]);
        let aged = site.run("status", &["--max-age", "26h"]);
        let nagios = site.run("status", &["--max-age", "26h", "--nagios"]);
        for said in [&plain.err, &aged.err, &nagios.out] {
            let named = said.contains("ar_cdr 2026-01-02 damaged") && said.contains("in the sink vault");
            assert!(named, "{said}");
        }
        assert!(plain.out.contains("1 damaged"), "{}", plain.out);
        assert!(nagios.out.starts_with("CDRVAULT CRITICAL"), "{}", nagios.out);
        let report = site.ok("report", &["--json"]).out;
        let report: serde_json::Value = serde_json::from_str(&report).unwrap();
        assert_eq!(report["verdict"]["level"], "bad", "{:#}", report["verdict"]);
        assert!(report["verdict"].to_string().contains("ar_cdr 2026-01-02 damaged"), "{:#}", report["verdict"]);
        (plain.status, aged.status, nagios.status)
    };
    assert_eq!(alarms(), (1, 1, 2));
    let requests = all(&told);
    let damage = |(path, body): &&Request| path == "/hook" && body.contains("\"event\":\"damage\"");
    assert_eq!(requests.iter().filter(damage).count(), 2, "of `status --max-age`, twice: {requests:?}");

    // A run that goes well ends nothing; nor does a good look at something else.
    site.ok("run", &[]);
    let requests = all(&told);
    assert_eq!(requests.last().unwrap().0, "/ping/fail", "{requests:?}");
    assert!(requests.last().unwrap().1.contains("ar_cdr 2026-01-02 damaged"), "{requests:?}");
    assert!(text().contains(&metric(1)), "{}", text());
    site.ok("verify", &["--day", "2026-01-01"]);
    site.ok("verify", &["--flow", "ar_source_cdr"]);
    site.ok("verify", &["--sink", "second"]);
    assert_eq!(alarms(), (1, 1, 2));
    // What a run writes at its end does not overwrite what was found while it went on.
    let go = site.path("go");
    let mut run = site.start(&format!("after-claim=pause:{}", go.display()));
    while !site.path("go.reached").exists() && run.try_wait().unwrap().is_none() {
        std::thread::sleep(Duration::from_millis(20));
    }
    std::fs::write(&go, "").unwrap();
    run.wait().unwrap();
    assert_eq!(alarms(), (1, 1, 2));

    // A repair does.
    all(&told);
    site.ok("verify", &["--repair"]);
    assert!(text().contains(&metric(0)), "{}", text());
    assert_eq!(site.ok("status", &["--max-age", "26h", "--nagios"]).out.split(' ').nth(1), Some("OK"));
    assert!(site.ok("status", &[]).out.contains("up to date"));
    site.ok("run", &[]);
    assert_eq!(all(&told).last().unwrap().0, "/ping");
    // And so does a good look at what somebody else put back.
    let sound = std::fs::read(&day).unwrap();
    flip(&day);
    assert_eq!(site.run("verify", &[]).status, 4);
    assert_eq!(alarms(), (1, 1, 2));
    std::fs::write(&day, &sound).unwrap();
    site.ok("verify", &["--day", "2026-01-02"]);
    site.ok("status", &["--max-age", "26h"]);
}

#[test]
fn what_is_missing_and_comes_back_by_a_run_is_an_alarm_no_longer() {
    let site = site();
    site.edit("path = \"vault\"\n", "path = \"vault\"\n\n[sink.second.local]\npath = \"second\"\n");
    site.edit("sinks = [\"vault\"]", "sinks = [\"vault\", \"second\"]");
    site.ok("run", &[]);
    std::fs::remove_file(object(&site, "2026-01-03")).unwrap();
    assert_eq!(site.run("verify", &[]).status, 4);
    let said = site.run("status", &[]);
    assert!(said.status == 1 && said.err.contains("ar_cdr 2026-01-03 missing"), "{}", said.err);
    site.ok("run", &[]);
    site.ok("status", &[]);
}

#[test]
fn damage_in_a_vault_without_a_pipeline_is_told_to_be_remembered_nowhere() {
    let site = site();
    site.ok("run", &[]);
    flip(&object(&site, "2026-01-02"));
    let verify = |arguments: &[&str]| {
        let mut command = Command::new(env!("CARGO_BIN_EXE_cdrvault"));
        services::home::said(command.current_dir(site.home.path()).arg("verify").args(arguments).output().unwrap())
    };
    let said = verify(&["--vault", "vault"]);
    assert_eq!(said.status, 4);
    assert!(said.err.contains("this is not remembered"), "{}", said.err);
    // Nor is it where there is no state, and none is made.
    std::fs::rename(site.path("state"), site.path("away")).unwrap();
    let said = site.run("verify", &[]);
    assert_eq!(said.status, 4);
    assert!(said.err.contains("what was found is not remembered: there is no state directory"), "{}", said.err);
    assert!(!site.path("state").exists());
    // An older version noted how much it found, and not what.
    std::fs::rename(site.path("away"), site.path("state")).unwrap();
    let file = site.path("state/state.json");
    let mut state: serde_json::Value = serde_json::from_slice(&std::fs::read(&file).unwrap()).unwrap();
    state["verified"] = serde_json::json!({ "vault": { "at": "2026-01-05T10:00:00Z", "percent": 100.0, "damage": 2 } });
    std::fs::write(&file, state.to_string()).unwrap();
    let said = site.run("status", &[]);
    assert!(said.status == 1 && said.err.contains("in the sink vault: 2 findings"), "{}", said.err);
}

/// Everything below a directory, with its content.
fn everything(directory: &std::path::Path) -> Vec<(PathBuf, Vec<u8>)> {
    let mut files: Vec<_> = services::files(directory)
        .into_iter()
        .map(|path| {
            let content = std::fs::read(&path).unwrap();
            (path, content)
        })
        .collect();
    files.sort();
    files
}

#[test]
fn what_was_never_run_is_critical_and_looking_at_it_makes_nothing() {
    let site = site();
    let before = everything(site.home.path());
    let entries = || {
        let names = std::fs::read_dir(site.home.path()).unwrap().map(|entry| entry.unwrap().file_name());
        names.collect::<std::collections::BTreeSet<_>>()
    };
    let names = entries();
    let into = format!("csv:{}", site.path("back").display());
    for (verb, more, status) in [
        ("status", vec![], 1),
        ("status", vec!["--max-age", "26h"], 1),
        ("status", vec!["--json"], 1),
        ("report", vec![], 0),
        ("report", vec!["--json"], 0),
        ("snapshots", vec!["--all"], 0),
        ("history", vec![], 0),
        ("verify", vec![], 3),
        ("verify", vec!["--against-source"], 4),
        ("verify", vec!["--repair"], 3),
        ("restore", vec!["--from-sink", "vault", "--into", &into], 1),
        ("restore", vec!["--from-sink", "vault", "--into", &into, "-n"], 1),
        ("prune", vec!["-n"], 0),
        ("run", vec!["-n"], 0),
        ("validate", vec!["--connect"], 0),
    ] {
        let said = site.run(verb, &more);
        assert_eq!(said.status, status, "{verb} {more:?}: {}{}", said.out, said.err);
        assert_eq!(entries(), names, "{verb} {more:?} made something");
        assert!(everything(site.home.path()) == before, "{verb} {more:?} changed something");
        if verb == "status" {
            assert!((said.out + &said.err).contains("nothing is saved yet"), "{}", said.err);
        }
    }
    let said = site.run("status", &["--nagios"]);
    assert_eq!(said.status, 2);
    assert!(said.out.starts_with("CDRVAULT CRITICAL - test: nothing is saved yet |"), "{}", said.out);
    assert!(site.run("status", &[]).out.contains("nothing saved"));
    // A vault that was made, and of which nothing is saved, is not good.
    site.ok("run", &[]);
    for name in ["ar_cdr", "ar_source_cdr", ".cdrvault/manifests", ".cdrvault/index"] {
        std::fs::remove_dir_all(site.vault().join(name)).unwrap();
    }
    let said = site.run("verify", &[]);
    assert_ne!(said.status, 0);
    assert!(said.err.contains("nothing is saved yet"), "{}", said.err);
    assert_eq!(site.run("status", &["--nagios"]).status, 2);
    site.ok("run", &[]);
    site.ok("verify", &[]);
    assert_eq!(site.run("status", &["--nagios"]).status, 0);
}

#[test]
fn events_are_lines_of_json_and_the_last_one_is_the_report() {
    let site = site();
    let said = site.ok("run", &["--json"]);
    let events: Vec<serde_json::Value> = said.out.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    assert!(events.iter().all(|event| event["schema-version"] == 1), "{}", said.out);
    let count = |name: &str| events.iter().filter(|event| event["event"] == name).count();
    assert_eq!((count("planned"), count("began"), count("ended"), count("report")), (1, 6, 6, 1), "{}", said.out);
    assert_eq!(events[0]["units"], serde_json::json!({ "ar_cdr": 3, "ar_source_cdr": 3 }));
    assert_eq!(events.last().unwrap()["outcome"], "done");
    std::fs::remove_file(site.path("billing.sqlite")).unwrap();
    let failed = site.run("replay", &["--day", "2026-01-01", "--json"]);
    assert_eq!(failed.status, 1);
    assert_eq!(failed.report()["outcome"], "failed", "{}", failed.out);
}

#[test]
fn the_last_line_of_a_failed_run_says_what_failed_and_what_happens_next() {
    let site = site();
    site.ok("run", &[]);
    std::fs::remove_file(site.path("billing.sqlite")).unwrap();
    let said = site.run("run", &[]);
    let last = said.err.lines().last().unwrap();
    assert!(last.starts_with("failed: nothing was done in "), "{last}");
    assert!(last.contains("the next run tries it again"), "{last}");
    assert_eq!(said.out, "");
}

/// What a terminal shows, with the escape sequences that moved the cursor.
fn on_a_terminal(site: &Site, more: &[&str]) -> String {
    let run = site.command("run", more);
    let words: Vec<String> = std::iter::once(run.get_program())
        .chain(run.get_args())
        .map(|word| format!("'{}'", word.to_str().unwrap()))
        .collect();
    let done = Command::new("script")
        .args(["--quiet", "--return", "--command", &words.join(" "), "/dev/null"])
        .env("TERM", "xterm-256color")
        .env("COLUMNS", "120")
        .env_remove("NO_COLOR")
        .env_remove("CDRVAULT_FAILPOINT")
        .stdin(Stdio::null())
        .output()
        .expect("this test needs `script`, of Debian's bsdutils");
    let shown = String::from_utf8_lossy(&done.stdout).into_owned();
    assert!(done.status.success(), "{shown}");
    shown
}

#[test]
fn a_terminal_shows_a_bar_for_the_run_and_one_for_each_flow_and_then_a_summary() {
    let site = site();
    let shown = on_a_terminal(&site, &[]);
    for part in ["ar_cdr", "ar_source_cdr", "/6 ", "/3 ", "rows"] {
        assert!(shown.contains(part), "`{part}` is not in {shown:?}");
    }
    let last = shown.trim_end().lines().last().unwrap();
    assert!(last.contains("6 partitions published"), "{shown:?}");
    // No bars where nobody wants them, and not a byte off a terminal.
    let plain = on_a_terminal(&site, &["--no-progress"]);
    assert!(plain.trim_start().starts_with("nothing to do in ") && !plain.contains('\u{1b}'), "{plain:?}");
    assert_eq!(on_a_terminal(&site, &["--quiet"]), "");
    let piped = site.ok("run", &[]);
    assert_eq!((piped.out.as_str(), piped.err.as_str()), ("", ""));
}

/// A message that comes while bars are drawn stands above them, whole.
#[test]
fn messages_stand_above_the_bars() {
    let site = site();
    let go = site.path("go");
    let command = site.command("run", &["-vv"]);
    let words: Vec<String> = std::iter::once(command.get_program())
        .chain(command.get_args())
        .map(|word| format!("'{}'", word.to_str().unwrap()))
        .collect();
    let mut run = Command::new("script")
        .args(["--quiet", "--return", "--command", &words.join(" "), site.path("shown").to_str().unwrap()])
        .env("TERM", "xterm-256color")
        .env("CDRVAULT_FAILPOINT", format!("after-claim=pause:{}", go.display()))
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .spawn()
        .unwrap();
    while !site.path("go.reached").exists() {
        std::thread::sleep(Duration::from_millis(20));
    }
    let pid = std::fs::read_to_string(site.path("state/lock")).unwrap();
    let pid = serde_json::from_str::<serde_json::Value>(&pid).unwrap()["pid"].to_string();
    Command::new("kill").arg(&pid).status().unwrap();
    // The message is written before the run looks whether it was stopped.
    while !std::fs::read_to_string(site.path("shown")).is_ok_and(|shown| shown.contains("stopping")) {
        std::thread::sleep(Duration::from_millis(20));
    }
    std::fs::write(&go, "").unwrap();
    assert_eq!(run.wait().unwrap().code(), Some(130));
    let shown = std::fs::read_to_string(site.path("shown")).unwrap();
    let line = shown.lines().find(|line| line.contains("stopping")).unwrap();
    assert!(line.contains("once more to stop at once"), "{line:?}");
}

/// Weeks of days with as many calls as they are given, in SQLite; the last one is that many days from today.
fn weeks(site: &Site, last: i64, calls: impl Fn(i64) -> u64) {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    let _ = std::fs::remove_file(site.path("billing.sqlite"));
    runtime.block_on(async {
        let mut connection = sqlite::create(&site.path("billing.sqlite")).await.unwrap();
        let today = jiff::Timestamp::now().to_zoned(jiff::tz::TimeZone::get("Europe/Rome").unwrap()).date();
        let generator = Generator::new(Settings { start: today.saturating_sub(80.days()), ..Settings::default() });
        for away in -70..=last {
            let day = today.saturating_add(away.days());
            sqlite::load(&mut connection, generator.exactly(day, calls(away))).await.unwrap();
        }
    });
}

#[test]
fn calls_that_stop_or_are_few_and_days_in_the_future_are_alarms_where_somebody_asks_for_it() {
    let (port, told) = server("200 OK");
    let site = Site::new("sqlite:billing.sqlite");
    // Sundays have a tenth of the calls, and that is as usual.
    let sunday = |away: i64| {
        let today = jiff::Timestamp::now().to_zoned(jiff::tz::TimeZone::get("Europe/Rome").unwrap()).date();
        today.saturating_add(away.days()).weekday() == jiff::civil::Weekday::Sunday
    };
    let usual = |away: i64| if sunday(away) { 40 } else { 200 };
    weeks(&site, 0, |away| if (-2..=-1).contains(&away) { usual(away) / 20 } else { usual(away) });
    site.ok("run", &[]);
    let said = site.ok("status", &["--max-age", "26h"]);
    assert_eq!(said.err, "", "nobody asked");
    let few = site.run("status", &["--min-calls", "10%"]);
    assert_eq!(few.status, 1);
    assert_eq!(few.err.matches("error: ar_cdr has ").count(), 2, "{}", few.err);
    assert!(few.err.contains(" on a usual "), "{}", few.err);
    assert_eq!(site.run("status", &["--min-calls", "10%", "--nagios"]).status, 2);
    site.ok("status", &["--min-calls", "4%", "--max-data-age", "1h", "--no-future-days"]);
    assert_eq!(site.run("status", &["--min-calls", "ten"]).status, 2);

    // A telephone system that stopped writing three days ago, and a call with the year 2099.
    let site = Site::new("sqlite:billing.sqlite");
    site.secret("ping", &format!("http://127.0.0.1:{port}/ping"));
    site.secret("hook", &format!("http://127.0.0.1:{port}/hook"));
    weeks(&site, -4, usual);
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    runtime.block_on(async {
        let mut connection = sqlite::create(&site.path("other.sqlite")).await.unwrap();
        let generator = Generator::new(Settings { start: date(2099, 1, 1), ..Settings::default() });
        sqlite::load(&mut connection, generator.exactly(date(2099, 1, 1), 30)).await.unwrap();
        let copy = format!(
            "ATTACH '{}' AS billing; INSERT INTO billing.ar_cdr SELECT * FROM ar_cdr",
            site.path("billing.sqlite").display()
        );
        // Their numbers are taken already.
        let copy = copy
            .replace("SELECT * FROM ar_cdr", "SELECT * FROM ar_cdr WHERE id NOT IN (SELECT id FROM billing.ar_cdr)");
        sqlx::raw_sql(sqlx::AssertSqlSafe("UPDATE ar_cdr SET id = id + 10000000".to_owned()))
            .execute(&mut connection)
            .await
            .unwrap();
        sqlx::raw_sql(sqlx::AssertSqlSafe(copy)).execute(&mut connection).await.unwrap();
    });
    site.ok("run", &[]);
    site.ok("status", &["--max-age", "26h"]);
    let old = site.run("status", &["--max-data-age", "2d"]);
    assert_eq!(old.status, 1);
    assert!(old.err.contains("the newest calls of ar_cdr are those of "), "{}", old.err);
    assert!(old.err.contains("which ended 3 days ago"), "a day in the future does not hide it: {}", old.err);
    site.ok("status", &["--max-data-age", "5d"]);
    let future = site.run("status", &["--no-future-days"]);
    assert_eq!(future.status, 1);
    assert!(future.err.contains("ar_cdr has 2099-01-01, which is in the future"), "{}", future.err);
    // From the file: for `status`, the report, and those whom each run tells.
    add(
        &site,
        "[watch]\nmax-data-age = \"2d\"\nmin-calls = \"10%\"\nno-future-days = true\n\
         [notify]\nping = { file = \"ping\" }\nwebhook = { file = \"hook\" }",
    );
    assert_eq!(site.run("status", &["--nagios"]).status, 2);
    assert_eq!(all(&told), Vec::new(), "of somebody who only looks nobody hears");
    let report: serde_json::Value = serde_json::from_str(&site.ok("report", &["--json"]).out).unwrap();
    assert!(report["verdict"].to_string().contains("The newest calls of ar_cdr"), "{:#}", report["verdict"]);
    let said = site.ok("run", &[]);
    assert_eq!(said.err, "", "cron's mail does not say it each hour");
    let requests = all(&told);
    let (_, body) = requests.iter().find(|(path, _)| path == "/hook").unwrap_or_else(|| panic!("{requests:?}"));
    let message: serde_json::Value = serde_json::from_str(body).unwrap();
    assert_eq!(
        (&message["event"], message["alarms"].as_array().map(Vec::len)),
        (&"data".into(), Some(3)),
        "{message:#}"
    );
    let pings: Vec<&str> =
        requests.iter().map(|(path, _)| path.as_str()).filter(|path| path.starts_with("/ping")).collect();
    assert_eq!(pings, ["/ping/start", "/ping/fail"], "{requests:?}");
}

#[test]
fn what_is_so_for_many_days_is_said_once_with_their_range() {
    let site = site();
    site.edit(
        "[\"incremental\", \"parquet\"]",
        "[{ incremental = { sweep-every = \"1s\", window = \"9y\" } }, \"parquet\"]",
    );
    site.ok("run", &[]);
    // The application purges two days.
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    let sql = |text: &str| {
        use sqlx::ConnectOptions as _;
        let text = sqlx::AssertSqlSafe(text.to_owned());
        runtime.block_on(async {
            let options = sqlx::sqlite::SqliteConnectOptions::new().filename(site.path("billing.sqlite"));
            sqlx::raw_sql(text).execute(&mut options.connect().await.unwrap()).await.unwrap();
        });
    };
    sql("DELETE FROM ar_cdr WHERE calldate < '2026-01-03'");
    std::thread::sleep(Duration::from_millis(1100));
    let said = site.ok("run", &[]);
    let gone = "warning: 2 partitions of ar_cdr, from 2026-01-01 to 2026-01-02, are no longer in the database";
    assert_eq!((said.err.lines().count(), said.err.contains(gone)), (1, true), "{}", said.err);
    // A place that takes none of the days.
    std::fs::remove_dir_all(site.vault().join("ar_source_cdr")).unwrap();
    std::fs::write(site.vault().join("ar_source_cdr"), "in the way").unwrap();
    let days = ["--flow", "ar_source_cdr", "--from", "2026-01-01", "--to", "2026-01-04", "--force"];
    let said = site.run("replay", &days);
    assert_ne!(said.status, 0);
    let errors: Vec<&str> = said.err.lines().filter(|line| line.starts_with("error:")).collect();
    assert_eq!(errors.len(), 1, "{}", said.err);
    assert!(errors[0].ends_with("(and so for 3 days from 2026-01-01 to 2026-01-03)"), "{}", said.err);
}

#[test]
fn text_files_of_two_pipelines_in_one_directory_are_one_valid_scrape() {
    let sites = [site(), site()];
    let metrics = sites[0].path("metrics");
    std::fs::create_dir(&metrics).unwrap();
    let file = |name: &str| metrics.join(format!("{name}.prom"));
    for (site, name) in sites.iter().zip(["one", "two"]) {
        add(site, &format!("[metrics]\ntextfile = '{}'", file(name).display()));
        site.edit("name = \"test\"", &format!("name = \"{name}\""));
        site.ok("run", &[]);
        site.ok("verify", &[]);
    }
    // As node exporter joins them: a family has one help and one type, and no series is there twice.
    let mut families: std::collections::BTreeMap<String, (String, Vec<String>)> = std::collections::BTreeMap::new();
    let mut seen = std::collections::BTreeSet::new();
    for name in ["one", "two"] {
        let text = std::fs::read_to_string(file(name)).unwrap();
        let (mut head, mut family) = (String::new(), String::new());
        for line in text.lines() {
            if let Some(help) = line.strip_prefix("# HELP ") {
                (head, family) = (format!("{line}\n"), help.split(' ').next().unwrap().to_owned());
            } else if line.starts_with("# TYPE ") {
                head += &format!("{line}\n");
                let known = families.entry(family.clone()).or_insert((head.clone(), Vec::new()));
                assert_eq!(known.0, head, "{family} is the same everywhere");
            } else {
                assert!(seen.insert(line.rsplit_once(' ').unwrap().0.to_owned()), "twice: {line}");
                families.get_mut(&family).unwrap().1.push(line.to_owned());
            }
        }
    }
    let joined: String = families.values().map(|(head, series)| format!("{head}{}\n", series.join("\n"))).collect();
    let mut child = Command::new("promtool")
        .args(["check", "metrics"])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .expect("this test needs promtool: run ./test, which installs it");
    child.stdin.take().unwrap().write_all(joined.as_bytes()).unwrap();
    let done = child.wait_with_output().unwrap();
    assert!(done.status.success() && done.stderr.is_empty(), "{}", String::from_utf8_lossy(&done.stderr));
    // One file for both of them would show one of them.
    sites[1].edit("two.prom", "one.prom");
    let said = sites[1].ok("run", &[]);
    assert!(said.err.contains("was the text file of pipeline `one`"), "{}", said.err);
    assert_eq!(sites[1].ok("run", &[]).err, "");
}

#[test]
fn with_log_format_json_every_line_on_standard_error_is_json() {
    let site = site();
    let json = |verb: &str, more: &[&str]| {
        let said = site.run(verb, &[&["--log-format", "json"], more].concat());
        let lines = said.err.lines().map(|line| {
            let line: serde_json::Value =
                serde_json::from_str(line).unwrap_or_else(|error| panic!("{verb} {more:?}: {error}: {line}"));
            assert!(line["timestamp"].is_string(), "{line}");
            let text = |value: &serde_json::Value| value.as_str().unwrap().to_owned();
            (text(&line["level"]), text(&line["fields"]["message"]))
        });
        (said.status, lines.collect::<Vec<_>>())
    };
    let level = |lines: &[(String, String)], level: &str| lines.iter().filter(|(one, _)| one == level).count();
    // What was done, and with one more how.
    let published =
        |lines: &[(String, String)]| lines.iter().filter(|(_, said)| said.contains("g0001 is in vault")).count();
    let (status, lines) = json("run", &["-v"]);
    assert_eq!((status, level(&lines, "DEBUG"), published(&lines)), (0, 0, 0), "{lines:#?}");
    std::fs::remove_dir_all(site.vault()).unwrap();
    std::fs::remove_dir_all(site.path("state")).unwrap();
    let (status, lines) = json("run", &["-vv", "--adopt-vault"]);
    assert_eq!((status, published(&lines)), (0, 6), "{lines:#?}");
    for part in ["sink vault is the vault", "database billing is", "ar_cdr 2026-01-02 is read: ", "flow ar_cdr "] {
        assert!(lines.iter().any(|(level, message)| level == "DEBUG" && message.contains(part)), "{part}: {lines:#?}");
    }
    // Everything that goes wrong.
    flip(&object(&site, "2026-01-02"));
    let (status, lines) = json("verify", &["-v"]);
    assert_eq!((status, level(&lines, "ERROR")), (4, 1), "{lines:#?}");
    let (status, lines) = json("status", &["--max-age", "26h"]);
    assert_eq!((status, level(&lines, "ERROR")), (1, 1), "{lines:#?}");
    let (status, lines) = json("restore", &["--from-sink", "vault", "--into", "csv:/nonexistent/place"]);
    assert!(status != 0 && level(&lines, "ERROR") > 0, "{lines:#?}");
    for usage in [&["--no-such-flag"][..], &["--sink", "nowhere"]] {
        let (status, lines) = json("verify", usage);
        assert_eq!((status, lines.len()), (2, 1), "{lines:#?}");
    }
    std::fs::rename(site.path("billing.sqlite"), site.path("away")).unwrap();
    let (status, lines) = json("run", &[]);
    assert!(status == 1 && level(&lines, "ERROR") > 0 && lines.len() > 1, "{lines:#?}");
    site.edit("min-free", "min-fee");
    let (status, lines) = json("run", &[]);
    assert_eq!((status, level(&lines, "ERROR")), (78, 1), "{lines:#?}");
    assert!(lines[0].1.contains("pipeline.toml:5:1: unknown key `min-fee`"), "{lines:#?}");
}
