//! What users read is idiomatic English: turns that once were all over the texts do not come back.

use std::path::{Path, PathBuf};
use std::sync::LazyLock;

use regex::Regex;

/// Turns that are not English, or say less than the field's own words.
const TURNS: [&str; 10] = [
    r"that (?:is|are) none\b",
    r"\bis none$",
    r"\bwhoever\b",
    r"\bnobody was told\b",
    r"\bat work\b",
    r"\bwhere it is not said\b",
    r"\bfor people\b",
    r"\bnobody looks on\b",
    r"\b(?:that|is|are) no more(?:$|[^\w ]| [^t])",
    r"\bnone the worse\b",
];

/// Takes a file apart: texts, each with its line.
type Parts = fn(&str) -> Vec<(usize, String)>;

/// "Is no file" for "is not a file".
const NO: &str = r"(?:\b(there|here) )?\b(?:is|are|was|were|be) no ([\w`{]+)";

/// What may follow such a "no": a comparison.
const COMPARISONS: [&str; 9] = ["longer", "more", "less", "fewer", "later", "earlier", "wider", "larger", "other"];

static ALL_TURNS: LazyLock<Vec<Regex>> = LazyLock::new(|| TURNS.iter().map(|turn| regex(turn)).collect());
static ALL_NO: LazyLock<Regex> = LazyLock::new(|| regex(NO));

fn regex(text: &str) -> Regex {
    Regex::new(&format!("(?i){text}")).unwrap()
}

/// The turns in a text; a line break is a space.
fn turns(text: &str) -> Vec<String> {
    let text = text.split_whitespace().collect::<Vec<_>>().join(" ");
    let mut found: Vec<String> = Vec::new();
    for turn in ALL_TURNS.iter() {
        found.extend(turn.find_iter(&text).map(|turn| turn.as_str().to_owned()));
    }
    for no in ALL_NO.captures_iter(&text) {
        if no.get(1).is_none() && !COMPARISONS.contains(&&no[2]) {
            found.push(no[0].to_owned());
        }
    }
    found
}

/// The string literals of a file of code, without those of its tests, each with its line.
fn literals(code: &str) -> Vec<(usize, String)> {
    let code = code.split("#[cfg(test)]\nmod tests").next().unwrap();
    let token = r##"(?s)//[^\n]*|/\*.*?\*/|'(?:\\[^']+|\\'|[^'\\])'|r"([^"]*)"|r#"(.*?)"#|"((?:\\.|[^"\\])*)""##;
    let joined = Regex::new(r"\\\n\s*").unwrap();
    let found = Regex::new(token).unwrap();
    let texts = found.captures_iter(code).filter_map(|token| {
        let literal = (1..=3).find_map(|group| token.get(group))?;
        let line = code[..literal.start()].lines().count();
        Some((line, joined.replace_all(literal.as_str(), "").into_owned()))
    });
    texts.collect()
}

/// The paragraphs of a page, a sample or a transcript, each with its first line.
fn paragraphs(page: &str) -> Vec<(usize, String)> {
    let mut all = vec![(1, String::new())];
    for (index, line) in page.lines().enumerate() {
        let is_new = line.trim().is_empty() || line.starts_with(['|', '#', '-']) || line.contains("\": ");
        if is_new {
            all.push((index + 1, String::new()));
        }
        let (_, text) = all.last_mut().unwrap();
        text.push_str(line.trim_start_matches(['#', ' ']));
        text.push('\n');
    }
    all
}

fn is_test(path: &Path) -> bool {
    path.iter().any(|name| matches!(name.to_str(), Some("tests" | "tests.rs")))
}

#[test]
fn what_users_read_is_free_of_odd_turns() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let below = |folder: &str| -> Vec<PathBuf> {
        let files = crate::services::files(&root.join(folder));
        files
            .into_iter()
            .filter(|file| !is_test(file.strip_prefix(root).unwrap()) || folder.starts_with("tests"))
            .collect()
    };
    let code = crate::structure::CRATES.iter().flat_map(|folder| below(folder)).filter(|file| is_of(file, &["rs"]));
    let mut texts: Vec<_> = code.map(|file| (file, literals as Parts)).collect();
    let pages = ["docs", "configs", "tests/transcripts"].iter().flat_map(|folder| below(folder));
    let pages = pages.chain(["README.md", "CONTRIBUTING.md"].map(|page| root.join(page)));
    texts.extend(pages.map(|file| (file, paragraphs as Parts)));
    assert!(texts.len() > 200, "only {} files", texts.len());
    let mut places = Vec::new();
    for (file, parts) in texts {
        // An image.
        let Ok(text) = std::fs::read_to_string(&file) else { continue };
        for (line, part) in parts(&text) {
            let place = format!("{}:{line}", file.strip_prefix(root).unwrap().display());
            places.extend(turns(&part).into_iter().map(|turn| format!("{place}: {turn}")));
        }
    }
    assert!(places.is_empty(), "say it in idiomatic English:\n{}", places.join("\n"));
}

fn is_of(file: &Path, kinds: &[&str]) -> bool {
    file.extension().is_some_and(|kind| kinds.iter().any(|of| kind == *of))
}

#[test]
fn odd_turns_are_found_and_plain_english_is_not() {
    for odd in [
        "an answer to a login that is none",
        "nobody was told (timeout)",
        "the run is none the worse for it",
        "files are no tables",
        "text that is no\n UTF-8",
        "Remove the job rows of a flow, or of a host, that is no more",
        "another run is at work",
        "for ever where it is not said",
        "Text for people.",
        "Whoever can write",
        "`{}` is no target",
    ] {
        assert!(!turns(odd).is_empty(), "{odd}");
    }
    for plain in [
        "there is no vault in ...",
        "the days are no longer in the database",
        "it is no more than a warning",
        "There are no receipts",
        "a bar is no wider than this",
    ] {
        assert_eq!(turns(plain), Vec::<String>::new(), "{plain}");
    }
    let code = "// is no comment\nlet a = \"is \\\n   no text\"; let b = '\"'; let c = r#\"is no \"raw\" one\"#;";
    assert_eq!(literals(code), [(2, "is no text".to_owned()), (3, "is no \"raw\" one".to_owned())]);
}
