//! The manual is run: every ```console block of README.md and docs/ is a transcript that has to hold, and so is each
//! `--help`. `TRYCMD=overwrite` writes into the pages what the program says.
//!
//! A page begins in an empty directory, which it calls `/home/anna`, or, where a recipe is about `/etc` and `/var`, `/`.
//! Files that it needs stand in the page: a block after `<!-- transcript file: NAME -->`, or inside of such a comment; several of one
//! name make one file. What is done before stands after `<!-- transcript before -->`, or inside. The hosts that a recipe names are
//! those of [`services::recipe`]. A command that is not ours is run by a shell.

use std::io::Write as _;
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};
use std::process::Command;

use crate::services;
use crate::services::recipe::{self, Hosts};
use regex::Regex;

const PROGRAM: &str = env!("CARGO_BIN_EXE_cdrvault");

fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

fn is_overwriting() -> bool {
    std::env::var("TRYCMD").is_ok_and(|mode| mode == "overwrite")
}

/// README.md and the pages of the manual that have a transcript.
fn pages() -> Vec<PathBuf> {
    let mut pages = vec![root().join("README.md")];
    for directory in ["docs", "docs/recipes"] {
        let entries = std::fs::read_dir(root().join(directory)).unwrap();
        pages.extend(entries.map(|entry| entry.unwrap().path()).filter(|path| path.extension() == Some("md".as_ref())));
    }
    pages.retain(|page| std::fs::read_to_string(page).unwrap().contains("\n```console\n"));
    pages.sort();
    pages
}

#[test]
fn the_manual_says_what_the_program_does() {
    let pages = pages();
    assert!(pages.len() >= 5, "only {} pages have transcripts", pages.len());
    let wrong: Vec<String> = pages
        .iter()
        .filter(|page| std::panic::catch_unwind(|| play(page)).is_err())
        .map(|page| page.display().to_string())
        .collect();
    assert!(wrong.is_empty(), "TRYCMD=overwrite writes these again; read what it writes: {}", wrong.join(", "));
}

fn play(page: &Path) {
    let text = std::fs::read_to_string(page).unwrap();
    let scratch = tempfile::Builder::new().prefix("cdrvault-page-").tempdir().unwrap();
    let (copy, home) = (scratch.path().join("page.md"), scratch.path().join("page.in"));
    std::fs::create_dir(&home).unwrap();
    for directory in ["srv", "tmp", "root", "var/backups", "var/lib/cdrvault", "etc/cdrvault/pipelines.d"] {
        std::fs::create_dir_all(home.join(directory)).unwrap();
    }
    let names = Names::of(&text);
    let here = home.to_str().unwrap();
    for (name, content) in files(&text) {
        write_file(&home, &name, &names.really(&content, here), names.is_root);
    }
    // What a page takes for granted.
    for database in Regex::new("sqlite:/(srv/[a-z]+)/billing.sqlite").unwrap().captures_iter(&text) {
        demo(&home, database.get(1).unwrap().as_str());
    }
    let bin = scratch.path().join("bin");
    names.hosts.programs(&bin, here);
    let path = format!("{}:{}:/usr/sbin", bin.display(), std::env::var("PATH").unwrap());
    for before in marked(&text, "before") {
        recipe::in_shell(&names.really(&before.1, here), &home, &path);
    }
    names.hosts.authorize(&names.really(&text, here), &home.join("etc/cdrvault/id_ed25519.pub"));
    // Only what is said is compared by what stands for the directory; what is done must name it.
    let in_place = |line: &str| {
        if is_typed(line) { in_a_shell(&names.really(line, here)) } else { names.really(line, "[CWD]") }
    };
    std::fs::write(&copy, in_transcripts(&text, in_place)).unwrap();
    let cases = trycmd::TestCases::new();
    for (name, value) in [("XDG_CONFIG_HOME", home.join("etc")), ("HOME", home.clone())] {
        cases.env(name, value.to_str().unwrap());
    }
    for (name, value) in names.hosts.environment() {
        cases.env(name, &value);
    }
    cases.env("NO_COLOR", "1").env("COLUMNS", "100").env("PATH", &path);
    cases.register_bin("sh", Path::new("/bin/sh")).register_bin("cdrvault", Path::new(PROGRAM)).case(&copy).run();
    names.hosts.check();
    if is_overwriting() {
        let made = std::fs::read_to_string(&copy).unwrap();
        let shown = |line: &str| names.shown(&without_what_differs(&out_of_the_shell(&line.replace(here, "[CWD]"))));
        std::fs::write(page, in_transcripts(&made, shown)).unwrap();
    }
}

/// Whether a line of a transcript is something that is typed: it begins with a prompt.
fn is_typed(line: &str) -> bool {
    line.starts_with("$ ") || line.starts_with("> ")
}

/// A command that is not ours is the shell's: it may have pipes, wildcards and quotes.
fn in_a_shell(line: &str) -> String {
    match line.strip_prefix("$ ").filter(|command| !command.starts_with("cdrvault ")) {
        Some(command) => format!("$ sh -c '{}'\n", command.trim_end().replace('\'', r"'\''")),
        None => line.to_owned(),
    }
}

fn out_of_the_shell(line: &str) -> String {
    match line.strip_prefix("$ sh -c '").and_then(|rest| rest.trim_end().strip_suffix('\'')) {
        Some(command) => format!("$ {}\n", command.replace(r"'\''", "'")),
        None => line.to_owned(),
    }
}

/// Writes a file of a page, or more of it.
fn write_file(home: &Path, name: &str, content: &str, is_root: bool) {
    let path = &home.join(name);
    std::fs::create_dir_all(path.parent().unwrap()).unwrap();
    let is_new = !path.exists();
    // A file whose password others can read is refused.
    let mut file = std::fs::File::options().append(true).create(true).mode(0o600).open(path).unwrap();
    // The default is a directory of this very system.
    if is_new && is_root && path.extension() == Some("toml".as_ref()) && !content.contains("\nstate ") {
        let state = home.join("var/lib/cdrvault").join(path.file_stem().unwrap());
        writeln!(file, "state = \"{}\"", state.display()).unwrap();
    }
    file.write_all(content.as_bytes()).unwrap();
}

/// Makes `billing.sqlite` in a directory, as the demo does.
fn demo(home: &Path, directory: &str) {
    let place = home.join(directory);
    if place.join("billing.sqlite").exists() {
        return;
    }
    std::fs::create_dir_all(&place).unwrap();
    let made = place.join("demo");
    let demo = ["demo", "--days", "3", "--calls-per-day", "50", "--quiet", "--dir"];
    assert!(Command::new(PROGRAM).args(demo).arg(&made).status().unwrap().success());
    std::fs::rename(made.join("billing.sqlite"), place.join("billing.sqlite")).unwrap();
    std::fs::remove_dir_all(made).unwrap();
}

/// The files that a page brings, in its order.
fn files(page: &str) -> Vec<(String, String)> {
    marked(page, "file: ")
}

/// The blocks after a mark, and what stands inside of one.
fn marked(page: &str, mark: &str) -> Vec<(String, String)> {
    let shown = Regex::new(&format!(r"<!-- transcript {mark}(\S*) -->\n```[a-z]*\n(?s:(.*?))```\n")).unwrap();
    let hidden = Regex::new(&format!(r"<!-- transcript {mark}(\S*)\n(?s:(.*?))-->")).unwrap();
    let mut found: Vec<_> = shown.captures_iter(page).chain(hidden.captures_iter(page)).collect();
    found.sort_by_key(|found| found.get(0).map(|whole| whole.start()));
    found.into_iter().map(|found| (found[1].to_owned(), found[2].to_owned())).collect()
}

/// What a page calls the directory that it is played in, and the hosts.
struct Names {
    is_root: bool,
    hosts: Hosts,
}

impl Names {
    fn of(page: &str) -> Self {
        let is_root = page.contains("<!-- transcript file: etc/");
        let local = std::fs::read_to_string(root().join("docs/recipes/local-daily.md")).unwrap();
        Self { is_root, hosts: Hosts::of(if is_root { page } else { "" }, &recipe::blocks(&local, "sql").concat()) }
    }

    /// A line with the directory and the hosts that there are.
    fn really(&self, text: &str, home: &str) -> String {
        if self.is_root {
            let absolute = Regex::new(r"(^|[\s\x22:='(]|//)/(etc|srv|var|tmp|root|restored)\b").unwrap();
            let text =
                absolute.replace_all(text, |found: &regex::Captures<'_>| format!("{}{home}/{}", &found[1], &found[2]));
            self.hosts.really(&text)
        } else {
            text.replace("/home/anna", home)
        }
    }

    fn shown(&self, text: &str) -> String {
        self.hosts.shown(&text.replace("[CWD]", if self.is_root { "" } else { "/home/anna" }))
    }
}

/// Applies `change` to each line of the transcripts.
fn in_transcripts(page: &str, change: impl Fn(&str) -> String) -> String {
    let mut within = false;
    let mut text = String::new();
    for line in page.split_inclusive('\n') {
        if line.starts_with("```") {
            within = line == "```console\n";
        }
        text.push_str(&if within { change(line) } else { line.to_owned() });
    }
    text
}

/// Durations, sizes and moments.
fn without_what_differs(line: &str) -> String {
    if is_typed(line) {
        return line.to_owned();
    }
    let mut text = line.to_owned();
    for (pattern, with) in [
        (r"\d+\.\d s\b", "[..] s"),
        (r"127\.0\.0\.1:\d{5}/", "127.0.0.1:[..]/"),
        (r"\d+ (s|min) ago +", "[..] ago [..] "),
        (r"\d+ (s|min) ago", "[..] ago"),
        (r"\d+(\.\d)? ([KMG]i)?B\b", "[..]"),
        (r"\d+\.\d times", "[..] times"),
        (r"\d{4}-\d\d-\d\d[T ]\d\d:\d\d:\d\d(\.\d+)?Z?", "[..]"),
    ] {
        text = Regex::new(pattern).unwrap().replace_all(&text, with).into_owned();
    }
    text
}

/// Each verb and each of its own verbs.
fn verbs(above: &[&str]) -> Vec<Vec<String>> {
    let help = Command::new(PROGRAM).args(above).arg("--help").output().unwrap();
    let help = String::from_utf8(help.stdout).unwrap();
    let list = help.split_once("\nCommands:\n").map_or("", |(_, rest)| rest);
    let names = list
        .lines()
        .take_while(|line| !line.is_empty())
        .filter(|line| line.starts_with("  ") && !line.starts_with("   "));
    let names: Vec<&str> =
        names.filter_map(|line| line.split_whitespace().next()).filter(|name| *name != "help").collect();
    let mut verbs = Vec::new();
    for name in names {
        let verb: Vec<&str> = above.iter().copied().chain([name]).collect();
        verbs.push(verb.iter().map(|word| (*word).to_owned()).collect());
        verbs.extend(self::verbs(&verb));
    }
    verbs
}

#[test]
fn every_help_is_as_it_was() {
    let directory = root().join("tests/transcripts");
    let mut wanted = vec!["help.trycmd".to_owned()];
    let mut verbs = verbs(&[]);
    assert!(verbs.len() >= 15, "{verbs:?}");
    verbs.insert(0, Vec::new());
    for verb in &verbs {
        let name = format!("{}.trycmd", [&["help".to_owned()], verb.as_slice()].concat().join("-"));
        let path = directory.join(&name);
        if is_overwriting() && !path.exists() {
            let words = [&["cdrvault".to_owned()], verb.as_slice(), &["--help".to_owned()]].concat();
            std::fs::create_dir_all(&directory).unwrap();
            std::fs::write(path, format!("```console\n$ {}\n```\n", words.join(" "))).unwrap();
        }
        wanted.push(name);
    }
    for entry in std::fs::read_dir(&directory).unwrap() {
        let name = entry.unwrap().file_name().into_string().unwrap();
        assert!(wanted.contains(&name), "tests/transcripts/{name} is of no verb any more: remove it");
    }
    for name in &wanted {
        assert!(directory.join(name).exists(), "tests/transcripts/{name} is missing: run this with TRYCMD=overwrite");
    }
    let cases = trycmd::TestCases::new();
    cases.env("COLUMNS", "100").register_bin("cdrvault", Path::new(PROGRAM)).case(directory.join("*.trycmd")).run();
}

/// Commands in code, with an example in place of each name that stands for something.
fn commands(text: &str) -> Vec<String> {
    let mut code = Vec::new();
    let mut within = false;
    for line in text.replace("\\\n", " ").lines() {
        if line.trim_start().starts_with("```") {
            within = !within;
        } else if within {
            code.push(line.trim_start().trim_start_matches("$ ").to_owned());
        } else {
            code.extend(line.split('`').skip(1).step_by(2).map(str::to_owned));
        }
    }
    let start = Regex::new(r"^(?:[-0-9* ]*root  |sudo -u cdrvault )?cdrvault (.+)$").unwrap();
    let end = Regex::new(r"\s(#|>|2>|\||&&|\|\|).*$").unwrap();
    let found = code.iter().filter_map(|line| start.captures(line)).map(|found| found[1].to_owned());
    let mut commands: Vec<String> = found
        .map(|line| end.replace(&line, "").into_owned())
        .filter(|line| !line.contains("...") && !line.starts_with(|c: char| c.is_uppercase()))
        .map(|line| line.replace("--release DAY", "--release 2026-01-15").replace("--day DAY", "--day 2026-01-15"))
        .collect();
    commands.sort();
    commands.dedup();
    commands
}

/// Whether a line parses; with `--help` at its end, nothing is done.
fn is_understood(line: &str) -> bool {
    let script = format!("exec \"$PROGRAM\" {line} --help");
    let done = Command::new("sh").args(["-c", &script]).env("PROGRAM", PROGRAM).output().unwrap();
    done.status.success() && !done.stdout.is_empty()
}

#[test]
fn every_command_in_the_manual_is_understood() {
    let commands: Vec<String> =
        links::documents().iter().flat_map(|document| commands(&std::fs::read_to_string(document).unwrap())).collect();
    assert!(commands.len() > 60, "only {} commands were found", commands.len());
    let wrong: Vec<&String> = commands.iter().filter(|command| !is_understood(command)).collect();
    assert!(wrong.is_empty(), "{wrong:#?}");
    assert!(!is_understood("run --no-such-flag"));
}

/// The page quotes the program, with `...` for what differs; what others say is in italics.
#[test]
fn every_message_of_the_troubleshooting_page_is_one_of_the_program() {
    let mut sources = String::new();
    let mut directories: Vec<PathBuf> = crate::structure::CRATES.iter().map(|name| root().join(name)).collect();
    while let Some(directory) = directories.pop() {
        for path in std::fs::read_dir(directory).unwrap().map(|entry| entry.unwrap().path()) {
            if path.is_dir() {
                directories.push(path);
            } else {
                sources.push_str(&std::fs::read_to_string(path).unwrap());
            }
        }
    }
    // Messages that go on in the next line.
    let sources = Regex::new(r"\\\n\s*").unwrap().replace_all(&sources, "");
    let page = std::fs::read_to_string(root().join("docs/troubleshooting.md")).unwrap();
    let others = Regex::new(r"\*[^*]+\*").unwrap();
    let between = Regex::new(r"`?\.\.\.`?|;|\(|\)|: ").unwrap();
    let row = Regex::new(r"(?m)^\| (.+?) \| .*\|$").unwrap();
    let (mut seen, mut wrong) = (0, Vec::new());
    for message in row.captures_iter(&page).map(|found| found[1].to_owned()).filter(|message| message != "message") {
        for part in between.split(&others.replace_all(&message, "...")) {
            let part = part.trim_matches(|c: char| c.is_whitespace() || matches!(c, '`' | ',' | '.' | '?'));
            let part = part.strip_prefix("cannot ").unwrap_or(part);
            if part.len() < 6 {
                continue;
            }
            seen += 1;
            if !sources.contains(part) {
                wrong.push(format!("`{part}` of: {message}"));
            }
        }
    }
    assert!(wrong.is_empty(), "no message of the program: {wrong:#?}");
    assert!(seen > 100, "only {seen} parts of messages were found");
}

/// cron's own search path is `/usr/bin:/bin`: what is installed from source lies in `/usr/local/bin`.
#[test]
fn every_table_of_cron_says_where_the_program_is() {
    let mut found = 0;
    for path in pages().into_iter().chain([root().join("configs/cdrvault.cron")]) {
        let text = std::fs::read_to_string(&path).unwrap();
        // In a page a table is a block of its own.
        for block in text.split("```") {
            let Some(line) = block.lines().position(|line| line.contains("* * *  root  cdrvault ")) else { continue };
            found += 1;
            let says = block.lines().take(line).any(|line| line.starts_with("PATH=/usr/local/"));
            assert!(says, "{}: no PATH before the first line", path.display());
        }
    }
    assert!(found >= 4, "only {found} tables were found");
}

/// docs/vault.md is enough to read a vault: a program that was written from it alone checks one.
#[test]
fn the_specification_of_the_vault_is_enough() {
    let home = tempfile::tempdir().unwrap();
    demo(home.path(), "srv");
    let pipeline = r#"
name  = "spec"
state = "state"
[database.billing]
url = "sqlite:srv/billing.sqlite"
[sink.vault.local]
path = "vault"
[flow.ar_cdr]
source.ar-cdr = { database = "billing", money-scale = 4 }
transforms = ["incremental", "parquet"]
sinks = ["vault"]
[flow.plain]
source.files = { path = "tree" }
sinks = ["vault"]
[flow.packed]
source.files = { path = "tree" }
transforms = ["compress"]
sinks = ["vault"]
"#;
    std::fs::write(home.path().join("pipeline.toml"), pipeline).unwrap();
    let tree = home.path().join("tree");
    std::fs::create_dir_all(tree.join("sub")).unwrap();
    std::fs::write(tree.join("sub/with \"quotes\" and\ttabs"), "body").unwrap();
    std::fs::write(tree.join("àccènt\u{7f}\u{1}"), "").unwrap();
    std::os::unix::fs::symlink("../elsewhere", tree.join("link")).unwrap();
    for _ in 0..2 {
        let run = Command::new(PROGRAM).args(["run", "./pipeline.toml"]).current_dir(&home).output().unwrap();
        assert!(run.status.success(), "{}", String::from_utf8_lossy(&run.stderr));
        std::fs::write(tree.join("new"), "changes the tree").unwrap();
    }
    let vault = home.path().join("vault");
    let said = services::python::reader("check_vault.py", &[vault.to_str().unwrap()]);
    assert_eq!(said, "3 objects, 4 trees\n");
}

mod links {
    use super::{Path, PathBuf, Regex, root};

    /// Everything that people read, and that links to other files of the repository.
    pub(super) fn documents() -> Vec<PathBuf> {
        let mut documents: Vec<PathBuf> = ["README.md", "CONTRIBUTING.md", "CHANGELOG.md", "sinks/README.md"]
            .iter()
            .map(|name| root().join(name))
            .collect();
        for directory in ["docs", "docs/recipes"] {
            let entries = std::fs::read_dir(root().join(directory)).unwrap().map(|entry| entry.unwrap().path());
            documents.extend(entries.filter(|path| path.extension() == Some("md".as_ref())));
        }
        documents
    }

    /// The text without its blocks of code.
    fn prose(text: &str) -> String {
        let mut fence: Option<String> = None;
        let mut prose = String::new();
        for line in text.lines() {
            let mark: String = line.trim_start().chars().take_while(|c| *c == '`').collect();
            match &fence {
                None if mark.len() >= 3 => fence = Some(mark),
                None => prose.push_str(&(line.to_owned() + "\n")),
                Some(open) if mark.len() >= open.len() && line.trim() == mark => fence = None,
                Some(_) => {}
            }
        }
        prose
    }

    /// The anchors of the headings, as GitHub and mdBook make them.
    fn anchors(path: &Path) -> Vec<String> {
        let text = prose(&std::fs::read_to_string(path).unwrap());
        let mut anchors: Vec<String> = Vec::new();
        for heading in text.lines().filter_map(|line| line.strip_prefix('#')) {
            let heading = heading.trim_start_matches('#').trim().to_lowercase();
            let plain: String =
                heading.chars().filter(|c| c.is_alphanumeric() || matches!(c, ' ' | '-' | '_')).collect();
            let anchor = plain.replace(' ', "-");
            let same = anchors.iter().filter(|known| **known == anchor).count();
            anchors.push(if same == 0 { anchor } else { format!("{anchor}-{same}") });
        }
        anchors
    }

    #[test]
    fn every_link_leads_somewhere() {
        let link = Regex::new(r"\]\(([^)\s]+)\)").unwrap();
        let mut broken = Vec::new();
        let mut seen = 0;
        for document in documents() {
            let text = prose(&std::fs::read_to_string(&document).unwrap());
            for found in link.captures_iter(&text) {
                let target = &found[1];
                if target.contains("://") {
                    continue;
                }
                seen += 1;
                let (file, anchor) =
                    target.split_once('#').map_or((target, None), |(file, anchor)| (file, Some(anchor)));
                let path = if file.is_empty() { document.clone() } else { document.parent().unwrap().join(file) };
                if !path.exists() || anchor.is_some_and(|anchor| !anchors(&path).contains(&anchor.to_owned())) {
                    broken.push(format!("{}: {target}", document.display()));
                }
            }
        }
        assert!(broken.is_empty(), "{}", broken.join("\n"));
        assert!(seen > 50, "only {seen} links were found");
    }

    /// What the table of contents leaves out, nobody finds in the book.
    #[test]
    fn every_page_is_in_the_book() {
        let summary = std::fs::read_to_string(root().join("docs/SUMMARY.md")).unwrap();
        for page in documents().iter().filter_map(|path| path.strip_prefix(root().join("docs")).ok()) {
            let page = page.to_str().unwrap();
            assert!(
                page == "SUMMARY.md" || summary.contains(&format!("]({page})")),
                "{page} is not in docs/SUMMARY.md"
            );
        }
    }
}
