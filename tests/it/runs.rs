//! What a run does, and does not do, in ordinary life.

use crate::services::files;
use crate::services::home::{Site, filled, open_to_all, readable_by_others};
use crate::services::mariadb::{Engine, MariaDb};
use crate::services::python;
use crate::services::rating::{Rating, owed, transaction};

fn notes(site: &Site, dataset: &str, day: &str) -> serde_json::Value {
    let path = site.vault().join(format!(".cdrvault/verified/{dataset}/{day}.json"));
    serde_json::from_slice(&std::fs::read(path).unwrap()).unwrap()
}

#[test]
fn a_run_without_changes_reads_no_day_and_writes_nothing() {
    let server = MariaDb::start(Engine::InnoDb);
    Rating::new(1, 5, 50).fill(&server);
    let site = Site::on(&server);
    let first = site.ok("run", &[]);
    assert_eq!((first.out.as_str(), first.err.as_str()), ("", ""), "a good run is silent off a terminal");
    let before = site.content();
    for _ in 0..2 {
        let said = site.ok("run", &["--json"]);
        let report = said.report();
        assert_eq!(report["units"].as_array().unwrap().len(), 0, "no day is read");
        assert_eq!(report["schema-version"], 1);
        assert!(site.content() == before, "the vault has changed");
    }
    // The state can be thrown away: it costs a sweep.
    std::fs::remove_dir_all(site.path("state")).unwrap();
    assert_eq!(site.published(), Vec::<String>::new());
    assert!(site.content() == before);
}

#[test]
fn only_what_changed_is_exported_and_the_old_version_stays() {
    let server = MariaDb::start(Engine::InnoDb);
    Rating::new(2, 4, 50).fill(&server);
    let site = Site::on(&server);
    site.ok("run", &[]);
    // New ids alone are not a change.
    server.app(&transaction("UPDATE ar_cdr SET id = id + 7 WHERE calldate < '2026-01-02';", &["2026-01-01"]));
    assert_eq!(site.published(), Vec::<String>::new());
    server.app(&transaction("UPDATE ar_cdr SET income = income + 7 WHERE calldate < '2026-01-02';", &["2026-01-01"]));
    let plan = site.ok("run", &["-n"]);
    assert!(plan.out.contains("ar_cdr") && plan.out.contains("announced as changed"), "{}", plan.out);
    let before = site.content();
    site.ok("run", &["-n"]);
    assert!(site.content() == before, "a plan changes nothing");
    assert_eq!(site.published(), ["ar_cdr 2026-01-01"]);
    let versions = site.vault().join(".cdrvault/versions/ar_cdr/2026-01-01");
    let kept: Vec<_> = std::fs::read_dir(versions).unwrap().map(|entry| entry.unwrap().file_name()).collect();
    assert_eq!(kept.len(), 1);
    assert!(kept[0].to_str().unwrap().starts_with("g0001-"), "{kept:?}");
    python::compare(&server, &site.vault(), false).unwrap();
    let listed = site.ok("snapshots", &["--day", "2026-01-01", "--flow", "ar_cdr", "--all"]);
    assert!(
        listed.out.contains("g0001") && listed.out.contains("kept") && listed.out.contains("g0002"),
        "{}",
        listed.out
    );
}

#[test]
fn changes_that_nobody_announced_are_found_by_the_sweep() {
    let server = MariaDb::start(Engine::InnoDb);
    Rating::new(3, 4, 50).fill(&server);
    let site = Site::on(&server);
    site.edit(
        "[\"incremental\", \"parquet\"]",
        "[{ incremental = { sweep-every = \"1s\", window = \"9y\" } }, \"parquet\"]",
    );
    site.ok("run", &[]);
    server.app("UPDATE ar_source_cdr SET is_hacked = 1 WHERE calldate >= '2026-01-03' LIMIT 1");
    std::thread::sleep(std::time::Duration::from_millis(1100));
    assert_eq!(site.published(), ["ar_source_cdr 2026-01-03"]);
    // Emptied without a word: what is saved stays, and is noted.
    server.app("DELETE FROM ar_cdr WHERE calldate < '2026-01-02'");
    std::thread::sleep(std::time::Duration::from_millis(1100));
    let said = site.ok("run", &[]);
    assert!(said.err.contains("ar_cdr 2026-01-01 is no longer in the database"), "{}", said.err);
    assert!(notes(&site, "ar_cdr", "2026-01-01")["gone"].is_string());
    assert_eq!(site.live().len(), 8, "the day is still there");
    std::thread::sleep(std::time::Duration::from_millis(1100));
    assert_eq!(site.ok("run", &[]).err, "", "it is told once");
}

#[test]
fn a_day_that_shrank_is_published_loudly_and_its_predecessor_pinned() {
    let server = MariaDb::start(Engine::InnoDb);
    Rating::new(4, 3, 50).fill(&server);
    let site = Site::on(&server);
    site.ok("run", &[]);
    server.app(&transaction("DELETE FROM ar_cdr WHERE calldate < '2026-01-02';", &["2026-01-01"]));
    let said = site.ok("run", &[]);
    assert!(said.err.contains("ar_cdr 2026-01-01: the day is empty now, 50 rows were saved"), "{}", said.err);
    assert_eq!(notes(&site, "ar_cdr", "2026-01-01")["pins"][0]["generation"], 1);
    python::compare(&server, &site.vault(), false).unwrap();
    // A replay does not, unless it is told to.
    server.app("DELETE FROM ar_cdr WHERE calldate >= '2026-01-02' AND calldate < '2026-01-02 20:00:00'");
    let refused = site.run("replay", &["--day", "2026-01-02", "--flow", "ar_cdr"]);
    assert_eq!(refused.status, 1, "{}", refused.err);
    assert!(refused.err.contains("--allow-shrink"), "{}", refused.err);
    site.ok("replay", &["--day", "2026-01-02", "--flow", "ar_cdr", "--allow-shrink"]);
    python::compare(&server, &site.vault(), false).unwrap();
}

#[test]
fn a_replay_publishes_what_differs_or_is_damaged() {
    let server = MariaDb::start(Engine::InnoDb);
    Rating::new(5, 3, 50).fill(&server);
    let site = Site::on(&server);
    site.ok("run", &[]);
    let before = site.content();
    site.ok("replay", &["--from", "2026-01-01", "--to", "2026-01-03"]);
    assert!(site.content() == before, "the same rows give the same bytes");
    // Renumbered ids are other bytes.
    server.app("UPDATE ar_cdr SET id = id + 1 WHERE calldate < '2026-01-02' ORDER BY id DESC");
    site.ok("replay", &["--month", "2026-01"]);
    python::compare(&server, &site.vault(), false).unwrap();
    // Damage is healed.
    let path = site.live().into_iter().find(|path| path.to_string_lossy().contains("ar_cdr-2026-01-02")).unwrap();
    let mut bytes = std::fs::read(&path).unwrap();
    let middle = bytes.len() / 2;
    bytes[middle] ^= 1;
    std::fs::write(&path, bytes).unwrap();
    let said = site.ok("replay", &["--day", "2026-01-02", "--json"]);
    assert!(said.out.contains("\"published\""), "{}", said.out);
    python::compare(&server, &site.vault(), false).unwrap();
    let forced = site.ok("replay", &["--day", "2026-01-03", "--force", "--json"]);
    assert_eq!(forced.out.matches("\"published\"").count(), 2, "{}", forced.out);
    let usage = site.run("replay", &["--from", "2026-01-03", "--to", "2026-01-03"]);
    assert_eq!(usage.status, 2, "{}", usage.err);
}

#[test]
fn a_new_sink_is_filled_and_a_lagging_one_catches_up() {
    let server = MariaDb::start(Engine::InnoDb);
    Rating::new(6, 3, 50).fill(&server);
    let site = Site::on(&server);
    site.ok("run", &[]);
    site.edit("path = \"vault\"\n", "path = \"vault\"\n\n[sink.second.local]\npath = \"second\"\noptional = true\n");
    site.edit("sinks = [\"vault\"]", "sinks = [\"vault\", \"second\"]");
    let plan = site.ok("run", &["-n"]);
    assert_eq!(plan.out.matches("second lacks generation 1").count(), 6, "{}", plan.out);
    site.ok("run", &[]);
    python::compare(&server, &site.path("second"), false).unwrap();
    // An optional sink that fails warns, and catches up later without the database.
    std::fs::rename(site.path("second"), site.path("away")).unwrap();
    server.app(&transaction("UPDATE ar_cdr SET income = 5 WHERE calldate < '2026-01-02';", &["2026-01-01"]));
    let said = site.ok("run", &[]);
    assert!(said.err.contains("warning") && said.err.contains("second"), "{}", said.err);
    std::fs::rename(site.path("away"), site.path("second")).unwrap();
    let status = site.ok("status", &[]);
    assert!(status.out.contains("1 behind"), "{}", status.out);
    let said = site.ok("run", &["-v"]);
    assert!(said.err.contains("second caught up by 1 partition"), "{}", said.err);
    python::compare(&server, &site.path("second"), false).unwrap();
    assert!(!site.ok("status", &[]).out.contains("behind"));
    // A required one that fails keeps the debt; the others still get the day.
    site.edit("optional = true\n", "");
    std::fs::rename(site.path("second"), site.path("away")).unwrap();
    server.app(&transaction("UPDATE ar_cdr SET income = 6 WHERE calldate < '2026-01-02';", &["2026-01-01"]));
    assert_eq!(site.run("run", &[]).status, 3);
    python::compare(&server, &site.vault(), false).unwrap();
    assert!(python::compare(&server, &site.path("away"), false).is_err());
    std::fs::rename(site.path("away"), site.path("second")).unwrap();
    site.ok("run", &[]);
    python::compare(&server, &site.path("second"), false).unwrap();
    assert_eq!(owed(&server), 0);
    // Generation N is one byte sequence in every sink.
    for path in site.live() {
        let other = site.path("second").join(path.strip_prefix(site.vault()).unwrap());
        assert!(std::fs::read(&path).unwrap() == std::fs::read(&other).unwrap(), "{}", path.display());
    }
}

#[test]
fn one_bad_day_of_a_sink_keeps_no_other_day_from_a_new_one() {
    let server = MariaDb::start(Engine::InnoDb);
    Rating::new(61, 3, 50).fill(&server);
    let site = Site::on(&server);
    site.ok("run", &[]);
    let path = site.live().into_iter().find(|path| path.to_string_lossy().contains("ar_cdr-2026-01-01")).unwrap();
    let good = std::fs::read(&path).unwrap();
    let damage = || {
        let mut bytes = good.clone();
        bytes[good.len() / 2] ^= 1;
        std::fs::write(&path, bytes).unwrap();
    };
    damage();
    site.edit("path = \"vault\"\n", "path = \"vault\"\n\n[sink.second.local]\npath = \"second\"\n");
    site.edit("sinks = [\"vault\"]", "sinks = [\"vault\", \"second\"]");
    let said = site.run("run", &["--json"]);
    assert_eq!(said.status, 3, "{}", said.err);
    let report = said.report();
    assert_eq!(report["caught-up"]["second"], 5, "{report:#}");
    assert!(report["failures"][0]["message"].as_str().unwrap().contains("2026-01-01"), "{report:#}");
    std::fs::write(&path, &good).unwrap();
    site.ok("run", &[]);
    // Where several have it, one that holds it whole is enough.
    damage();
    site.edit("path = \"second\"\n", "path = \"second\"\n\n[sink.third.local]\npath = \"third\"\n");
    site.edit("\"second\"]", "\"second\", \"third\"]");
    let report = site.ok("run", &["--json"]).report();
    assert_eq!(report["caught-up"]["third"], 6, "{report:#}");
    python::compare(&server, &site.path("third"), false).unwrap();
}

#[test]
fn a_shrunk_day_reaches_the_sinks_where_its_predecessor_can_be_pinned() {
    let server = MariaDb::start(Engine::InnoDb);
    Rating::new(62, 3, 50).fill(&server);
    let site = Site::on(&server);
    site.edit("path = \"vault\"\n", "path = \"vault\"\n\n[sink.second.local]\npath = \"second\"\n");
    site.edit("sinks = [\"vault\"]", "sinks = [\"vault\", \"second\"]");
    site.ok("run", &[]);
    // No pin can be written there.
    let notes = site.path("second/.cdrvault/verified");
    std::fs::create_dir_all(&notes).unwrap();
    std::fs::write(notes.join("ar_cdr"), "in the way").unwrap();
    server.app(&transaction("DELETE FROM ar_cdr WHERE calldate < '2026-01-02';", &["2026-01-01"]));
    let said = site.run("run", &[]);
    assert_eq!(said.status, 3, "{}", said.err);
    python::compare(&server, &site.vault(), false).unwrap();
    assert!(python::compare(&server, &site.path("second"), false).is_err(), "nothing replaced what cannot be pinned");
    assert_eq!(owed(&server), 1, "the debt stays");
    std::fs::remove_file(notes.join("ar_cdr")).unwrap();
    site.ok("run", &[]);
    python::compare(&server, &site.path("second"), false).unwrap();
    let pins = |vault: &str| {
        let text = std::fs::read(site.path(vault).join(".cdrvault/verified/ar_cdr/2026-01-01.json")).unwrap();
        serde_json::from_slice::<serde_json::Value>(&text).unwrap()["pins"].clone()
    };
    assert_eq!(pins("vault")[0]["generation"], 1);
    assert_eq!(pins("second")[0]["generation"], 1, "what must stay in one must stay in the other");
    assert_eq!(owed(&server), 0);
}

#[test]
fn a_changed_schema_evolves_or_is_refused() {
    let server = MariaDb::start(Engine::InnoDb);
    Rating::new(7, 2, 20).fill(&server);
    let site = Site::on(&server);
    site.ok("run", &[]);
    server.app("ALTER TABLE ar_cdr ADD site_note VARCHAR(20) NULL");
    server.app(&transaction("UPDATE ar_cdr SET site_note = 'x' WHERE calldate < '2026-01-02';", &["2026-01-01"]));
    site.edit("[flow.ar_cdr]", "[flow.ar_cdr]\non-schema-change = \"refuse\"");
    let said = site.run("run", &[]);
    assert_eq!(said.status, 3, "{}", said.err);
    assert!(
        said.err.contains("`site_note` is new") && said.err.contains("on-schema-change = \"evolve\""),
        "{}",
        said.err
    );
    site.edit("\"refuse\"", "\"evolve\"");
    let said = site.ok("run", &[]);
    assert!(said.err.contains("`site_note` is new"), "{}", said.err);
    python::compare(&server, &site.vault(), false).unwrap_err(); // the other day has no such column yet
    site.ok("replay", &["--month", "2026-01", "--force"]);
    python::compare(&server, &site.vault(), false).unwrap();
}

#[test]
fn two_databases_of_one_server_are_saved_by_one_pipeline() {
    let server = MariaDb::start(Engine::InnoDb);
    Rating::new(81, 2, 20).fill(&server);
    server.app(
        "GRANT SHOW VIEW, TRIGGER, EVENT ON asterisell.* TO cdrvault@'127.0.0.1'; INSERT INTO ar_params () VALUES ()",
    );
    let site = Site::on(&server);
    let text = std::fs::read_to_string(site.path("pipeline.toml")).unwrap();
    // The dump by an entry of its own, as by an account with other rights; and another schema.
    let url = text.lines().find(|line| line.starts_with("url")).unwrap();
    server.sql("", "CREATE DATABASE other; CREATE TABLE other.ar_cdr LIKE asterisell.ar_cdr; \
                    GRANT SELECT ON other.* TO cdrvault@'127.0.0.1'; INSERT INTO other.ar_cdr SELECT * FROM asterisell.ar_cdr");
    let more = format!(
        "\n[database.dumps]\n{url}\npassword = {{ file = \"password\" }}\n\n[database.other]\n{}\npassword = {{ file = \"password\" }}\n\n\
         [flow.configurations]\nsource.dump = {{ database = \"dumps\", tables = \"configuration\" }}\n\
         transforms = [\"incremental\", \"compress\"]\nsinks = [\"vault\"]\n\n\
         [flow.others]\nsource.ar-cdr = {{ database = \"other\" }}\ntransforms = [\"incremental\", \"parquet\"]\nsinks = [\"vault\"]\n",
        url.replace("/asterisell", "/other")
    );
    site.pipeline(&(text + &more));
    assert_eq!(site.published().len(), 7);
    assert_eq!(site.published(), Vec::<String>::new());
    let identity = std::fs::read_to_string(site.vault().join(".cdrvault/vault.json")).unwrap();
    assert_eq!(identity.matches("/asterisell\"").count(), 1, "{identity}");
}

#[test]
fn the_rows_of_a_flow_that_is_no_more_are_forgotten() {
    let server = MariaDb::start(Engine::InnoDb);
    Rating::new(84, 2, 20).fill(&server);
    let site = Site::on(&server);
    site.ok("run", &[]);
    server.app(
        "INSERT INTO ar_daily_status_job (name) VALUES ('upstream'), ('cdrvault/test/0badc0de/ar_cdr/inbox'),
         ('cdrvault/other/0badc0de/ar_cdr/inbox');
         CALL add_daily_status_change_event('2026-01-01');",
    );
    let names = || server.app("SELECT name FROM ar_daily_status_job ORDER BY name");
    let before = names();
    let refused = site.run("forget", &["ar_source_cdr"]);
    assert!(refused.status == 1 && refused.err.contains("is in the pipeline file"), "{}", refused.err);
    let text = std::fs::read_to_string(site.path("pipeline.toml")).unwrap();
    let (kept, _) = text.split_once("[flow.ar_source_cdr]").unwrap();
    site.pipeline(kept);
    let plan = site.ok("forget", &["ar_source_cdr", "-n"]);
    assert_eq!(plan.out.lines().count(), 2, "{}", plan.out);
    assert_eq!(names(), before, "a plan changes nothing");
    let denied = site.run("forget", &["ar_source_cdr"]);
    assert!(denied.status == 1 && denied.err.contains("needs DELETE"), "the least account may not: {}", denied.err);
    assert_eq!(names(), before);
    server.app("GRANT DELETE ON asterisell.ar_daily_status_job TO cdrvault@'127.0.0.1'");
    site.ok("forget", &["ar_source_cdr"]);
    assert!(!names().contains("/ar_source_cdr/") && names().contains("/ar_cdr/debt"), "{}", names());
    assert_eq!(site.ok("forget", &["--writer", "0badc0de"]).out, "cdrvault/test/0badc0de/ar_cdr/inbox\n");
    assert!(names().contains("upstream") && names().contains("cdrvault/other/0badc0de"), "{}", names());
    let orphans = "SELECT COUNT(*) FROM ar_daily_status_change WHERE ar_daily_status_job_id NOT IN (SELECT id FROM ar_daily_status_job)";
    assert_eq!(server.app(orphans).trim(), "0");
    assert_eq!(site.published(), Vec::<String>::new(), "the flow that stays is not affected");
}

#[test]
fn an_emptied_directory_keeps_what_was_saved_of_it() {
    let site = Site::new("sqlite:none");
    std::fs::create_dir(site.path("uploads")).unwrap();
    std::fs::write(site.path("uploads/a"), "a").unwrap();
    site.pipeline(
        "name = \"up\"\nstate = \"state\"\n\n[sink.vault.local]\npath = \"vault\"\nkeep = { superseded = \"1s\" }\n\n\
         [flow.uploads]\nsource.files = { path = \"uploads\" }\ntransforms = [\"incremental\"]\nsinks = [\"vault\"]\n",
    );
    site.ok("run", &[]);
    std::fs::remove_file(site.path("uploads/a")).unwrap();
    let said = site.ok("run", &[]);
    assert!(said.err.contains("the directory is empty now, 1 entries were saved"), "{}", said.err);
    std::thread::sleep(std::time::Duration::from_millis(1200));
    site.ok("run", &[]);
    let all = site.ok("snapshots", &["--all"]);
    assert!(all.out.contains("g0001"), "{}", all.out);
    let plan = site.ok("prune", &["-n"]);
    assert!(plan.out.contains("pinned: the directory is empty now"), "{}", plan.out);
}

#[test]
fn a_vault_that_is_away_makes_no_day_a_debt() {
    let server = MariaDb::start(Engine::InnoDb);
    Rating::new(82, 4, 20).fill(&server);
    let site = Site::on(&server);
    site.ok("run", &[]);
    std::fs::rename(site.vault(), site.path("away")).unwrap();
    // A sweep is due, which lists every day.
    let state = std::fs::read_to_string(site.path("state/state.json")).unwrap();
    let mut state: serde_json::Value = serde_json::from_str(&state).unwrap();
    for flow in ["ar_cdr", "ar_source_cdr"] {
        state["flows"][flow]["swept"] = "2020-01-01T00:00:00Z".into();
    }
    std::fs::write(site.path("state/state.json"), state.to_string()).unwrap();
    server.app(&transaction("UPDATE ar_cdr SET income = 5 WHERE calldate < '2026-01-02';", &["2026-01-01"]));
    assert_eq!(site.run("run", &[]).status, 1);
    // The application itself announces to both rows of a flow.
    assert_eq!(
        server.app("SELECT DISTINCT day FROM ar_daily_status_change WHERE day < '4000-01-01'").trim(),
        "2026-01-01"
    );
    std::fs::rename(site.path("away"), site.vault()).unwrap();
    assert_eq!(site.published(), ["ar_cdr 2026-01-01"]);
}

#[test]
fn the_age_counts_from_the_flow_that_is_oldest() {
    let server = MariaDb::start(Engine::InnoDb);
    Rating::new(83, 2, 20).fill(&server);
    let site = Site::on(&server);
    let age = |limit: &str| site.run("status", &["--max-age", limit]);
    site.ok("run", &["--flow", "ar_cdr"]);
    let said = age("1h");
    assert!(said.status == 1 && said.err.contains("no run has gone well yet"), "{}", said.err);
    site.ok("run", &["--flow", "ar_source_cdr"]);
    assert_eq!(age("1h").status, 0);
    site.ok("replay", &["--day", "2026-01-01"]);
    let history = site.path("state/history.jsonl");
    // A line that a crash cut within a character.
    let mut text = std::fs::read(&history).unwrap();
    text.extend(b"{\"verb\":\"St.P\xc3");
    std::fs::write(&history, text).unwrap();
    assert_eq!(age("1h").status, 0);
    site.ok("run", &[]);
    assert!(site.ok("history", &[]).out.matches("done").count() >= 4);
    let plugin = site.run("status", &["--max-age", "1h", "--nagios"]);
    assert!(
        plugin.status == 0 && plugin.out.starts_with("CDRVAULT OK - ") && plugin.out.contains("| age="),
        "{}",
        plugin.out
    );
    let late = site.run("status", &["--max-age", "0s", "--nagios"]);
    assert!(late.status == 2 && late.out.starts_with("CDRVAULT CRITICAL - "), "{}", late.out);
    let unknown = site.run("status", &["--nagios", "--config", "/nowhere.toml"]);
    assert!(unknown.status == 3 && unknown.out.starts_with("CDRVAULT UNKNOWN - "), "{}", unknown.out);
}

#[test]
fn directories_are_saved_with_the_calls() {
    use std::os::unix::ffi::OsStrExt as _;
    let home = tempfile::tempdir().unwrap();
    let tree = home.path().join("etc");
    std::fs::create_dir_all(tree.join("empty")).unwrap();
    std::fs::write(tree.join("a.conf"), "one").unwrap();
    std::fs::write(tree.join("shadow-"), "no").unwrap();
    std::fs::write(tree.join(std::ffi::OsStr::from_bytes(b"odd\xff\n")), "odd").unwrap();
    std::os::unix::fs::symlink("/nowhere", tree.join("link")).unwrap();
    let text = format!(
        "name = \"files\"\nstate = \"{0}/state\"\n[sink.vault.local]\npath = \"{0}/vault\"\n[flow.etc]\n\
         source.files = {{ path = \"{0}/etc\", exclude = [\"shadow*\"] }}\ntransforms = [\"incremental\", \"compress\"]\nsinks = [\"vault\"]\n",
        home.path().display()
    );
    let site = Site { home };
    site.pipeline(&text);
    site.ok("run", &[]);
    let manifest = |generation: u32| -> serde_json::Value {
        let path = site.vault().join(format!(".cdrvault/manifests/etc/snapshot/g{generation:04}.json"));
        serde_json::from_slice(&std::fs::read(path).unwrap()).unwrap()
    };
    let entries = manifest(1)["content"]["tree"]["entries"].as_array().unwrap().clone();
    let kinds: Vec<String> = entries.iter().map(|e| format!("{} {}", e["kind"].as_str().unwrap(), e["path"])).collect();
    assert!(kinds.contains(&"file \"a.conf\"".to_owned()), "{kinds:?}");
    assert!(kinds.contains(&"directory \"empty\"".to_owned()), "{kinds:?}");
    assert!(kinds.contains(&"symlink \"link\"".to_owned()), "{kinds:?}");
    assert!(kinds.iter().any(|kind| kind.contains("base64")), "a name that is not valid UTF-8: {kinds:?}");
    assert!(!kinds.iter().any(|kind| kind.contains("shadow")), "{kinds:?}");
    let before = site.content();
    site.ok("run", &[]);
    assert!(site.content() == before, "an unchanged tree writes nothing");
    std::fs::write(site.path("etc/a.conf"), "two!").unwrap();
    site.ok("run", &[]);
    assert_eq!(manifest(2)["replaced"], 1);
    let objects = |name: &str| files(&site.vault().join(".cdrvault").join(name)).len();
    assert_eq!(objects("objects"), 3, "the unchanged body is stored once");
    site.ok("status", &[]);
}

#[test]
fn files_get_the_mode_and_the_group_of_the_pipeline() {
    use std::os::unix::fs::MetadataExt as _;
    let server = MariaDb::start(Engine::InnoDb);
    Rating::new(9, 1, 10).fill(&server);
    let site = Site::on(&server);
    site.edit("path = \"vault\"", "path = \"vault\"\nmode = \"0640\"\ngroup = \"backup\"");
    site.ok("run", &[]);
    let groups = std::fs::read_to_string("/etc/group").unwrap();
    let backup: u32 =
        groups.lines().find(|line| line.starts_with("backup:")).unwrap().split(':').nth(2).unwrap().parse().unwrap();
    for path in site.live() {
        let file = std::fs::metadata(&path).unwrap();
        assert_eq!((file.mode() & 0o7777, file.gid()), (0o640, backup), "{}", path.display());
        let directory = std::fs::metadata(path.parent().unwrap()).unwrap();
        assert_eq!((directory.mode() & 0o777, directory.gid()), (0o750, backup), "{}", path.display());
    }
    site.edit("group = \"backup\"", "group = \"no-such-group\"");
    let said = site.run("run", &[]);
    assert_eq!(said.status, 1, "{}", said.err);
    assert!(said.err.contains("there is no group `no-such-group`"), "{}", said.err);
}

#[test]
fn nothing_that_a_run_makes_can_be_read_by_others() {
    use std::os::unix::fs::PermissionsExt as _;
    let (server, site) = filled(13, 2);
    for _ in 0..2 {
        let done = open_to_all(&site, "run", &[]).output().unwrap();
        assert!(done.status.success(), "{}", String::from_utf8_lossy(&done.stderr));
        for place in [site.path("state"), site.vault()] {
            assert_eq!(readable_by_others(&place), Vec::<std::path::PathBuf>::new());
        }
        // As an earlier version left it.
        std::fs::set_permissions(site.path("state/history.jsonl"), std::fs::Permissions::from_mode(0o666)).unwrap();
        server.app(&transaction("UPDATE ar_cdr SET income = 7 WHERE calldate < '2026-01-02';", &["2026-01-01"]));
    }
}

#[test]
fn a_history_that_leads_elsewhere_is_left_alone() {
    let (_server, site) = filled(14, 1);
    std::fs::create_dir(site.path("state")).unwrap();
    std::fs::write(site.path("precious"), "kept\n").unwrap();
    std::os::unix::fs::symlink(site.path("precious"), site.path("state/history.jsonl")).unwrap();
    let said = site.ok("run", &[]);
    assert!(said.err.contains("history.jsonl is not a regular file, and is left alone"), "{}", said.err);
    assert_eq!(std::fs::read_to_string(site.path("precious")).unwrap(), "kept\n");
}

/// A share without hard links, as CIFS and FAT are: versions are copies.
#[test]
fn a_vault_without_hard_links_keeps_versions_as_copies() {
    let server = MariaDb::start(Engine::InnoDb);
    Rating::new(10, 2, 30).fill(&server);
    let site = Site::on(&server);
    let run = |site: &Site| {
        // link(2) fails as such a file system lets it fail.
        let output = std::process::Command::new("strace")
            .args(["-f", "-o", "/dev/null", "-e", "trace=linkat,link", "-e", "inject=linkat,link:error=EPERM"])
            .arg(env!("CARGO_BIN_EXE_cdrvault"))
            .arg("run")
            .arg(site.path("pipeline.toml"))
            .output()
            .unwrap();
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    };
    run(&site);
    server.app(&transaction("UPDATE ar_cdr SET income = 7 WHERE calldate < '2026-01-02';", &["2026-01-01"]));
    run(&site);
    python::compare(&server, &site.vault(), false).unwrap();
    let versions = site.vault().join(".cdrvault/versions/ar_cdr/2026-01-01");
    assert_eq!(files(&versions).len(), 1);
    assert_eq!(site.leftovers(), Vec::<std::path::PathBuf>::new());
}
