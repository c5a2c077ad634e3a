//! Which names of a tree are saved.

use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};

use cdrvault_format::error::{Error, Kind, Result};
use cdrvault_plugin::options::{Explained, Glob};
use globset::{Candidate, GlobBuilder, GlobSet, GlobSetBuilder};
use schemars::JsonSchema;
use serde::Deserialize;

/// A pattern of `include` or `exclude`, with the rules of `.gitignore`: see [`super::Options`].
#[derive(Debug, Clone, Deserialize, JsonSchema)]
#[serde(try_from = "Glob")]
#[schemars(with = "Glob")]
pub(crate) struct Pattern {
    /// Relative to the root, without `/` at its ends; from the root on where it is `anchored`.
    text: String,
    /// As it was written.
    written: String,
    anchored: bool,
    directories_only: bool,
}

impl TryFrom<Glob> for Pattern {
    type Error = Explained;

    fn try_from(glob: Glob) -> Result<Self, Explained> {
        let written = glob.as_str();
        let wrong = |cause: &str, help: &str| Err(Explained::new(format!("`{written}` {cause}"), help));
        if written.starts_with('!') {
            return wrong(
                "cannot be an exception here",
                "`exclude` always wins; write `\\!` for a name that begins with `!`",
            );
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
        let pattern = Self { text: text.to_owned(), written: written.to_owned(), anchored, directories_only };
        match pattern.compile() {
            Ok(_) => Ok(pattern),
            Err(error) => wrong("is not a pattern", &error.kind().to_string()),
        }
    }
}

impl Pattern {
    fn compile(&self) -> Result<globset::Glob, globset::Error> {
        if self.anchored { compile(&self.text) } else { compile(&format!("**/{}", self.text)) }
    }

    /// Whether it was meant to be counted from the root of the file system on; then, what to write instead.
    pub(super) fn begins_with(&self, path: &Path) -> Option<String> {
        let top = path.to_str()?.trim_end_matches('/');
        let below = self.written.strip_prefix(top).filter(|_| !top.is_empty())?;
        let inside = below.trim_end_matches('/').is_empty() || below.starts_with('/');
        inside.then(|| below.to_owned())
    }

    pub(super) fn written(&self) -> &str {
        &self.written
    }

    /// It names one path, and stands for nothing else.
    fn is_path(&self) -> bool {
        self.anchored && !self.text.contains(['*', '?', '[', '{'])
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
pub(crate) struct Selection {
    include: Matcher,
    exclude: Matcher,
    /// Directories on the way to what `include` matches; `None` for all.
    way: Option<GlobSet>,
    everything: bool,
    patterns: Patterns,
}

/// What was written, in the order of the matchers.
#[derive(Debug)]
struct Patterns {
    include: Vec<Pattern>,
    exclude: Vec<Pattern>,
}

/// A pattern that has matched nothing.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Idle {
    pub(super) option: &'static str,
    pub(super) pattern: String,
    /// It was hardly meant to match nothing.
    pub(super) odd: bool,
}

impl Selection {
    /// From the options; no `include` is everything.
    pub(crate) fn new(include: &[Pattern], exclude: &[Pattern]) -> Result<Self> {
        let ways: Option<Vec<Vec<String>>> = include.iter().map(Pattern::way).collect();
        let way = ways.map(|ways| set(ways.iter().flatten().map(|text| compile(text)))).transpose()?;
        Ok(Self {
            include: Matcher::new(include)?,
            exclude: Matcher::new(exclude)?,
            way,
            everything: include.is_empty(),
            patterns: Patterns { include: include.to_vec(), exclude: exclude.to_vec() },
        })
    }

    /// The patterns that have matched nothing so far. What is not to be saved and is not there is as well; what is to be
    /// saved should be there, and a path that is written out, or that begins with the name of the tree, is one that
    /// somebody thought of.
    pub(super) fn idle(&self, tree: &Path) -> Vec<Idle> {
        let name = tree.file_name().and_then(|name| name.to_str()).unwrap_or_default();
        let idle = |option, matcher: &Matcher, patterns: &[Pattern], odd: &dyn Fn(&Pattern) -> bool| {
            let without = patterns.iter().zip(&matcher.seen).filter(|(_, seen)| !seen.load(Ordering::Relaxed));
            // Nobody looks into what is excluded as a whole.
            let without = without.filter(|(pattern, _)| !self.is_hidden(pattern));
            without
                .map(|(pattern, _)| Idle { option, pattern: pattern.written.clone(), odd: odd(pattern) })
                .collect::<Vec<_>>()
        };
        let begins_with_name = |pattern: &Pattern| {
            !name.is_empty() && pattern.text.strip_prefix(name).is_some_and(|below| below.starts_with('/'))
        };
        let mut all = idle("include", &self.include, &self.patterns.include, &|_| true);
        all.extend(idle("exclude", &self.exclude, &self.patterns.exclude, &|pattern| {
            pattern.is_path() || begins_with_name(pattern)
        }));
        all
    }

    fn is_hidden(&self, pattern: &Pattern) -> bool {
        let ends = pattern.text.match_indices('/').map(|(end, _)| end);
        pattern.anchored && ends.into_iter().any(|end| self.exclude.would_match(&pattern.text.as_bytes()[..end]))
    }

    /// Whether everything is included that is not excluded.
    pub(crate) fn includes_everything(&self) -> bool {
        self.everything
    }

    /// Whether `include` matches the path itself. What lies below an included directory is included too.
    pub(crate) fn includes(&self, path: &[u8], directory: bool) -> bool {
        self.include.matches(path, directory)
    }

    /// Whether `exclude` matches the path itself. Nobody asks for what lies below. Everything is asked for here, and so
    /// it is seen here what `include` matches, too.
    pub(crate) fn excludes(&self, path: &[u8], directory: bool) -> bool {
        self.include.matches(path, directory);
        self.exclude.matches(path, directory)
    }

    /// Whether something below this directory could be included, though the directory itself is not.
    pub(crate) fn leads_on(&self, path: &[u8]) -> bool {
        self.way.as_ref().is_none_or(|way| way.is_match_candidate(&Candidate::from_bytes(path)))
    }
}

#[derive(Debug)]
struct Matcher {
    any: GlobSet,
    directories: GlobSet,
    /// Whether each pattern has matched something, in their order.
    seen: Vec<AtomicBool>,
    /// The indexes in `seen` of those in `any` and `directories`.
    order: [Vec<usize>; 2],
}

impl Matcher {
    fn new(patterns: &[Pattern]) -> Result<Self> {
        let part = |wanted: bool| {
            set(patterns.iter().filter(|pattern| pattern.directories_only == wanted).map(Pattern::compile))
        };
        let order = [false, true].map(|wanted| {
            let all = patterns.iter().enumerate();
            all.filter(|(_, pattern)| pattern.directories_only == wanted).map(|(index, _)| index).collect()
        });
        let seen = patterns.iter().map(|_| AtomicBool::new(false)).collect();
        Ok(Self { any: part(false)?, directories: part(true)?, seen, order })
    }

    fn matches(&self, path: &[u8], directory: bool) -> bool {
        let candidate = Candidate::from_bytes(path);
        let any = self.any.matches_candidate(&candidate);
        let directories = if directory { self.directories.matches_candidate(&candidate) } else { Vec::new() };
        for (order, hits) in self.order.iter().zip([&any, &directories]) {
            for seen in hits.iter().filter_map(|hit| self.seen.get(*order.get(*hit)?)) {
                seen.store(true, Ordering::Relaxed);
            }
        }
        !any.is_empty() || !directories.is_empty()
    }

    /// Whether a directory would match.
    fn would_match(&self, path: &[u8]) -> bool {
        let candidate = Candidate::from_bytes(path);
        self.any.is_match_candidate(&candidate) || self.directories.is_match_candidate(&candidate)
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
    fn a_pattern_that_begins_with_the_top_of_the_tree_is_known() {
        let table = [
            ("/etc/shadow", "/etc", Some("/shadow")),
            ("/etc/ssl/**", "/etc/", Some("/ssl/**")),
            ("/etc", "/etc", Some("")),
            ("/etc/", "/etc", Some("/")),
            ("/etcetera", "/etc", None),
            ("etc/shadow", "/etc", None),
            ("/shadow", "/etc", None),
            ("/etc/shadow", "/", None),
        ];
        for (text, path, instead) in table {
            assert_eq!(pattern(text).unwrap().begins_with(Path::new(path)).as_deref(), instead, "{text} in {path}");
        }
    }

    #[test]
    fn patterns_that_matched_nothing_are_named() {
        let idle = |include: &[&str], exclude: &[&str], paths: &[(&str, bool)]| {
            let selection = selection(include, exclude);
            for (path, directory) in paths {
                selection.excludes(path.as_bytes(), false);
                selection.excludes(path.as_bytes(), *directory);
            }
            let mark = |idle: Idle| format!("{}{} {}", if idle.odd { "!" } else { "" }, idle.option, idle.pattern);
            selection.idle(Path::new("/etc")).into_iter().map(mark).collect::<Vec<_>>()
        };
        let paths = [("ssl", true), ("passwd", false), ("x.conf", false)];
        assert_eq!(idle(&["*.conf", "ssl/"], &["passwd"], &paths), [""; 0]);
        assert_eq!(
            idle(&["*.ini"], &["*.bak", "/shadow", "passwd/"], &paths),
            ["!include *.ini", "exclude *.bak", "!exclude /shadow", "exclude passwd/"]
        );
        assert_eq!(idle(&[], &["etc/shadow*"], &paths), ["!exclude etc/shadow*"]);
        // Nobody looks there.
        assert_eq!(idle(&[], &["ssl", "ssl/private/key"], &paths), [""; 0]);
        // What lies below an included directory counts as well.
        assert_eq!(idle(&["ssl", "*.conf"], &[], &[("ssl", true), ("ssl/x.conf", false)]), [""; 0]);
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
