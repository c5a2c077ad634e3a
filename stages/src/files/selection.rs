//! Which names of a tree are saved.

use cdrvault_pipeline::config::{Explained, Glob};
use cdrvault_pipeline::error::{Error, Kind, Result};
use globset::{Candidate, GlobBuilder, GlobSet, GlobSetBuilder};
use schemars::JsonSchema;
use serde::Deserialize;

/// A pattern of `include` or `exclude`, with the rules of `.gitignore`: see [`super::Options`].
#[derive(Debug, Clone, Deserialize, JsonSchema)]
#[serde(try_from = "Glob")]
#[schemars(with = "Glob")]
pub(super) struct Pattern {
    /// Relative to the root, without `/` at its ends; from the root on where it is `anchored`.
    text: String,
    anchored: bool,
    directories_only: bool,
}

impl TryFrom<Glob> for Pattern {
    type Error = Explained;

    fn try_from(glob: Glob) -> Result<Self, Explained> {
        let written = glob.as_str();
        let wrong = |cause: &str, help: &str| Err(Explained::new(format!("`{written}` {cause}"), help));
        if written.starts_with('!') {
            return wrong("is no exception here", "`exclude` always wins; write `\\!` for a name that begins with `!`");
        }
        let (text, directories_only) = match written.strip_suffix('/') {
            Some(text) => (text, true),
            None => (written, false),
        };
        let (text, anchored) = match text.strip_prefix('/') {
            Some(text) => (text, true),
            None => (text, text.contains('/')),
        };
        if text.split('/').any(|part| matches!(part, "" | "." | "..")) {
            return wrong("can match no file", "write it relative to `path`, without empty parts, `.` and `..`");
        }
        let pattern = Self { text: text.to_owned(), anchored, directories_only };
        match pattern.compile() {
            Ok(_) => Ok(pattern),
            Err(error) => wrong("is no pattern", &error.kind().to_string()),
        }
    }
}

impl Pattern {
    fn compile(&self) -> Result<globset::Glob, globset::Error> {
        if self.anchored { compile(&self.text) } else { compile(&format!("**/{}", self.text)) }
    }

    /// Patterns of the directories that must be entered to find what this one matches; `None` for all of them.
    fn way(&self) -> Option<Vec<String>> {
        if !self.anchored {
            return None;
        }
        let mut way = Vec::new();
        let mut above = String::new();
        for part in self.text.split('/') {
            if !above.is_empty() {
                way.push(above.clone());
                above.push('/');
            }
            // These may hold a `/` that separates nothing, or match more than one name.
            if part.contains(['{', '[', '\\']) || part == "**" {
                way.push(format!("{above}**"));
                return Some(way);
            }
            above.push_str(part);
        }
        Some(way)
    }
}

/// One name within a wildcard: neither `*` nor `?` nor a class matches a `/`.
fn compile(text: &str) -> Result<globset::Glob, globset::Error> {
    GlobBuilder::new(text).literal_separator(true).backslash_escape(true).empty_alternates(true).build()
}

/// The patterns of a source, compiled.
#[derive(Debug)]
pub(super) struct Selection {
    include: Matcher,
    exclude: Matcher,
    /// Directories on the way to what `include` matches; `None` for all.
    way: Option<GlobSet>,
    everything: bool,
}

impl Selection {
    /// From the options; no `include` is everything.
    pub(super) fn new(include: &[Pattern], exclude: &[Pattern]) -> Result<Self> {
        let ways: Option<Vec<Vec<String>>> = include.iter().map(Pattern::way).collect();
        let way = ways.map(|ways| set(ways.iter().flatten().map(|text| compile(text)))).transpose()?;
        Ok(Self {
            include: Matcher::new(include)?,
            exclude: Matcher::new(exclude)?,
            way,
            everything: include.is_empty(),
        })
    }

    /// Whether everything is included that is not excluded.
    pub(super) fn includes_everything(&self) -> bool {
        self.everything
    }

    /// Whether `include` matches the path itself. What lies below an included directory is included too.
    pub(super) fn includes(&self, path: &[u8], directory: bool) -> bool {
        self.include.matches(path, directory)
    }

    /// Whether `exclude` matches the path itself. Nobody asks for what lies below.
    pub(super) fn excludes(&self, path: &[u8], directory: bool) -> bool {
        self.exclude.matches(path, directory)
    }

    /// Whether something below this directory could be included, though the directory itself is not.
    pub(super) fn leads_on(&self, path: &[u8]) -> bool {
        self.way.as_ref().is_none_or(|way| way.is_match_candidate(&Candidate::from_bytes(path)))
    }
}

#[derive(Debug)]
struct Matcher {
    any: GlobSet,
    directories: GlobSet,
}

impl Matcher {
    fn new(patterns: &[Pattern]) -> Result<Self> {
        let part = |wanted: bool| {
            set(patterns.iter().filter(|pattern| pattern.directories_only == wanted).map(Pattern::compile))
        };
        Ok(Self { any: part(false)?, directories: part(true)? })
    }

    fn matches(&self, path: &[u8], directory: bool) -> bool {
        let candidate = Candidate::from_bytes(path);
        self.any.is_match_candidate(&candidate) || (directory && self.directories.is_match_candidate(&candidate))
    }
}

fn set(globs: impl Iterator<Item = Result<globset::Glob, globset::Error>>) -> Result<GlobSet> {
    let mut builder = GlobSetBuilder::new();
    // Each was compiled when it was parsed; only all of them together can still be too large.
    let too_large =
        |error| Error::new(Kind::Config, "the patterns of a `files` source cannot be used").with_source(error);
    for glob in globs {
        builder.add(glob.map_err(too_large)?);
    }
    builder.build().map_err(too_large)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pattern(text: &str) -> Result<Pattern, String> {
        let glob: Glob = text.parse().map_err(|wrong: Explained| wrong.to_string())?;
        Pattern::try_from(glob).map_err(|wrong| wrong.to_string())
    }

    fn selection(include: &[&str], exclude: &[&str]) -> Selection {
        let patterns = |texts: &[&str]| texts.iter().map(|text| pattern(text).unwrap()).collect::<Vec<_>>();
        Selection::new(&patterns(include), &patterns(exclude)).unwrap()
    }

    #[test]
    fn patterns_follow_the_rules_of_gitignore() {
        // (pattern, path, is a directory, matches)
        let table: &[(&str, &[u8], bool, bool)] = &[
            ("shadow*", b"shadow", false, true),
            ("shadow*", b"pam.d/shadow-", false, true),
            ("*.pem", b"ssl/private/a.pem", false, true),
            ("*.pem", b".pem", false, true),
            ("*.", b"x/odd.", false, true),
            ("/shadow", b"shadow", false, true),
            ("/shadow", b"pam.d/shadow", false, false),
            ("ssl/private/**", b"ssl/private/a/b", false, true),
            ("ssl/private/**", b"ssl/private", true, false),
            ("ssl/private/**", b"x/ssl/private/a", false, false),
            ("**/private", b"ssl/private", true, true),
            ("**/private", b"private", true, true),
            ("a/**/b", b"a/b", false, true),
            ("a/**/b", b"a/x/y/b", false, true),
            ("ssl/*", b"ssl/a", false, true),
            ("ssl/*", b"ssl/a/b", false, false),
            ("ssl/?", b"ssl/a", false, true),
            ("cache/", b"x/cache", true, true),
            ("cache/", b"x/cache", false, false),
            ("{a,b}.txt", b"x/b.txt", false, true),
            ("a{,.bak}", b"a", false, true),
            ("[a-c]x", b"bx", false, true),
            ("\\!x", b"!x", false, true),
            ("*.wav", b"caf\xe9.wav", false, true),
            ("caf?.wav", b"caf\xe9.wav", false, true),
            ("*", b"new\nline", false, true),
            ("A", b"a", false, false),
        ];
        for &(text, path, directory, matches) in table {
            assert_eq!(selection(&[], &[text]).excludes(path, directory), matches, "{text} {path:?}");
        }
    }

    #[test]
    fn patterns_that_can_match_nothing_are_refused_with_a_reason() {
        for text in ["/", "//", "a//b", "./a", "a/../b", "..", "!a", "[z-a]", "a/"] {
            assert_eq!(pattern(text).is_err(), text != "a/", "{text}");
        }
        assert!(pattern("!keep").unwrap_err().contains("`exclude` always wins"));
    }

    #[test]
    fn only_directories_on_the_way_are_entered() {
        let some = selection(&["fabric_data/**", "/passwords.ini", "a/b*/c", "x/{y,z/w}"], &[]);
        for path in ["fabric_data", "a", "a/b1", "x", "x/y", "x/z"] {
            assert!(some.leads_on(path.as_bytes()), "{path}");
        }
        for path in ["other", "passwords.ini", "a/c", "a/b1/d", "xx"] {
            assert!(!some.leads_on(path.as_bytes()), "{path}");
        }
        assert!(selection(&["*.conf"], &[]).leads_on(b"anywhere/at/all"));
        assert!(selection(&["**/conf"], &[]).leads_on(b"anywhere/at/all"));
    }
}
