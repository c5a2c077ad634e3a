//! The arrows between files go one way: no file needs another that needs it.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};

use regex::Regex;

/// The folders of the crates' code. What a crate may see is in its Cargo.toml, and cargo allows no circle there.
pub(crate) const CRATES: [&str; 7] = [
    "src",
    "pipeline/format/src",
    "pipeline/plugin/src",
    "pipeline/engine/src",
    "stages/src",
    "stages/mysql-wire/src",
    "sinks/src",
];

/// The code of a crate, by module: `config::load` is in `config/load.rs`, `config` in `config/mod.rs`.
struct Crate {
    files: BTreeMap<Vec<String>, String>,
}

impl Crate {
    fn read(root: &Path) -> Self {
        let mut files = BTreeMap::new();
        for path in crate::services::files(root).into_iter().filter(|path| path.extension().is_some_and(|e| e == "rs"))
        {
            let inside = path.strip_prefix(root).unwrap().with_extension("");
            let mut module: Vec<String> = inside.iter().map(|part| part.to_str().unwrap().to_owned()).collect();
            if module.last().is_some_and(|name| matches!(name.as_str(), "mod" | "lib")) {
                module.pop();
            }
            // The tests of a module know what they test.
            if module.iter().any(|name| matches!(name.as_str(), "tests" | "main")) {
                continue;
            }
            let text = std::fs::read_to_string(&path).unwrap();
            let code = text.split("#[cfg(test)]\nmod tests").next().unwrap();
            let lines = code.lines().filter(|line| !line.trim_start().starts_with("//"));
            files.insert(module, lines.collect::<Vec<_>>().join("\n"));
        }
        Self { files }
    }

    /// The module whose file defines what a path names, if it is of this crate.
    fn defines(&self, path: &[String]) -> Option<Vec<String>> {
        let mut module: Vec<String> = Vec::new();
        let mut rest = path;
        while let Some((name, more)) = rest.split_first() {
            let below = [module.as_slice(), std::slice::from_ref(name)].concat();
            if self.files.contains_key(&below) {
                module = below;
                rest = more;
                continue;
            }
            // A name that the module hands on is defined elsewhere.
            let handed = paths_of(&self.files[&module], &module, self, true)
                .into_iter()
                .find(|path| path.last() == Some(name) && *path != below);
            return match handed {
                Some(path) => self.defines(&path),
                None => Some(module),
            };
        }
        self.files.contains_key(&module).then_some(module)
    }

    /// For each file, those that it needs.
    fn arrows(&self) -> BTreeMap<&Vec<String>, BTreeSet<Vec<String>>> {
        let needs = |(module, code): (&Vec<String>, &String)| {
            let paths = paths_of(code, module, self, false);
            paths.iter().filter_map(|path| self.defines(path)).filter(|needed| needed != module).collect()
        };
        self.files.iter().map(|file| (file.0, needs(file))).collect()
    }
}

/// The paths within the crate that a file names, from the root of the crate: those that it hands on (`pub use`), or all
/// others.
fn paths_of(code: &str, module: &[String], within: &Crate, handed_on: bool) -> Vec<Vec<String>> {
    let statement = Regex::new(r"(?m)^[ \t]*(pub(?:\([a-z]+\))? )?use ([^;]+);").unwrap();
    let mut paths = Vec::new();
    for found in statement.captures_iter(code) {
        if found.get(1).is_some() == handed_on {
            let mut expanded = Vec::new();
            expand("", found[2].trim(), &mut expanded);
            paths.extend(expanded);
        }
    }
    if !handed_on {
        let path = Regex::new(r"(?:^|[^\w:.])([a-z_]\w*(?:::\w+)+)").unwrap();
        let rest = statement.replace_all(code, "");
        paths.extend(path.captures_iter(&rest).map(|found| found[1].to_owned()));
    }
    paths.iter().filter_map(|path| absolute(path, module, within)).collect()
}

/// `a::{b, c::{self, d}}` is `a::b`, `a::c` and `a::c::d`.
fn expand(before: &str, tree: &str, paths: &mut Vec<String>) {
    let Some((head, group)) = tree.split_once('{') else {
        let name = tree.split(" as ").next().unwrap().trim();
        let path = if name == "self" { before.trim_end_matches("::").to_owned() } else { format!("{before}{name}") };
        paths.push(path.trim_end_matches("::*").to_owned());
        return;
    };
    let (mut depth, mut start) = (0, 0);
    let group = &group[..group.rfind('}').unwrap()];
    for (at, sign) in group.char_indices().chain([(group.len(), ',')]) {
        match sign {
            '{' => depth += 1,
            '}' => depth -= 1,
            ',' if depth == 0 => {
                if !group[start..at].trim().is_empty() {
                    expand(&format!("{before}{}", head.trim()), group[start..at].trim(), paths);
                }
                start = at + 1;
            }
            _ => {}
        }
    }
}

fn absolute(path: &str, module: &[String], within: &Crate) -> Option<Vec<String>> {
    let mut names: Vec<String> = path.split("::").map(|name| name.trim().to_owned()).collect();
    let first = names.remove(0);
    let mut from = module.to_vec();
    match first.as_str() {
        "crate" => from.clear(),
        "self" => {}
        "super" => {
            from.pop();
            while names.first().is_some_and(|name| name == "super") {
                names.remove(0);
                from.pop();
            }
        }
        // A module below, by its name alone.
        _ if within.files.contains_key(&[module, std::slice::from_ref(&first)].concat()) => from.push(first),
        _ => return None,
    }
    from.extend(names);
    Some(from)
}

/// The files that are reached again from what they need, each with those of its circle.
fn circles(arrows: &BTreeMap<&Vec<String>, BTreeSet<Vec<String>>>) -> BTreeSet<Vec<String>> {
    let reached = |from: &Vec<String>| {
        let (mut reached, mut left) = (BTreeSet::new(), vec![from]);
        while let Some(at) = left.pop() {
            left.extend(arrows.get(at).into_iter().flatten().filter(|next| reached.insert((*next).clone())));
        }
        reached
    };
    let all: BTreeMap<_, _> = arrows.keys().map(|module| (*module, reached(module))).collect();
    let together = |one: &Vec<String>| {
        let circle = all[one].iter().filter(|other| all.get(other).is_some_and(|reached| reached.contains(one)));
        circle.map(|module| module.join("::")).collect::<Vec<_>>()
    };
    all.keys().map(|module| together(module)).filter(|circle| !circle.is_empty()).collect()
}

#[test]
fn no_files_need_each_other() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let mut found = Vec::new();
    for name in CRATES {
        let code = Crate::read(&root.join(name));
        let arrows = code.arrows();
        let count: usize = arrows.values().map(BTreeSet::len).sum();
        assert!(count >= code.files.len() / 2, "{name}: {count} arrows between {} files are too few", code.files.len());
        found.extend(circles(&arrows).into_iter().map(|circle| format!("{name}: {}", circle.join(", "))));
    }
    assert!(found.is_empty(), "files that need each other:\n{}", found.join("\n"));
}

#[test]
fn files_that_need_each_other_are_found() {
    let home = tempfile::tempdir().unwrap();
    let write = |name: &str, text: &str| {
        let path: PathBuf = home.path().join(name);
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        std::fs::write(path, text).unwrap();
    };
    write("lib.rs", "mod a;\nmod b;\nmod folder;\n");
    write("a.rs", "use crate::folder::Handed;\n");
    write("b.rs", "pub(crate) fn f() { super::a::g() }\n");
    write("folder/mod.rs", "mod inside;\npub(crate) use inside::{Handed, Other};\n");
    write("folder/inside.rs", "pub(crate) struct Handed;\n#[cfg(test)]\nmod tests { use crate::a; }\n");
    assert!(circles(&Crate::read(home.path()).arrows()).is_empty());
    write("folder/inside.rs", "use crate::{b::{self, f}};\npub(crate) struct Handed;\n");
    // a -> folder::inside -> b -> a
    let found = circles(&Crate::read(home.path()).arrows());
    assert_eq!(found.into_iter().collect::<Vec<_>>(), [["a", "b", "folder::inside"]]);
}
