//! The tables of named things: `[database.NAME]`, `[sink.NAME.KIND]`, `[flow.NAME]`.

use std::collections::BTreeMap;
use std::ops::Range;

use serde_spanned::Spanned;
use toml::de::{DeTable, DeValue};

use super::name;
use cdrvault_plugin::options::Problem;
use cdrvault_plugin::options::decode::{Field, fields, kind_of};
use cdrvault_plugin::options::draft::Draft;

/// One named table.
pub(super) struct Entry<'a> {
    pub(super) name: &'a str,
    /// The place of the name.
    pub(super) span: Range<usize>,
    /// `None` if it is something else, which has been reported.
    pub(super) table: Option<&'a DeTable<'a>>,
}

/// The tables under `word`, in the order of the file.
pub(super) fn entries<'a>(draft: &Draft<'_>, word: &str, field: Option<&Field<'a>>) -> Vec<Entry<'a>> {
    let Some(field) = field else { return Vec::new() };
    let Some(table) = as_table(draft, &format!("[{word}]"), field.value, &format!("[{word}.NAME]")) else {
        return Vec::new();
    };
    let mut entries: Vec<_> = table
        .iter()
        .map(|(name, value)| {
            if let Err(wrong) = name::check(name.get_ref()) {
                draft.report(Problem::new(name.span(), wrong.cause).help(wrong.help));
            }
            let title = format!("[{word}.{}]", name.get_ref());
            let table = as_table(draft, &title, value, &title);
            Entry { name: name.get_ref(), span: name.span(), table }
        })
        .collect();
    entries.sort_by_key(|entry| entry.span.start);
    distinct(draft, word, &entries);
    entries
}

fn as_table<'a>(
    draft: &Draft<'_>,
    title: &str,
    value: &'a Spanned<DeValue<'a>>,
    form: &str,
) -> Option<&'a DeTable<'a>> {
    if let DeValue::Table(table) = value.get_ref() {
        return Some(table);
    }
    let found = match value.get_ref() {
        DeValue::Array(array) if array.iter().all(|element| element.get_ref().is_table()) => "an array of tables",
        other => kind_of(other),
    };
    let problem = Problem::new(value.span(), format!("{title} must be a table, not {found}"));
    draft.report(problem.label(found).help(format!("write a header, `{form}`, with single brackets")));
    None
}

/// Some file systems, and the table of jobs, take `A` and `a` for the same.
fn distinct(draft: &Draft<'_>, word: &str, entries: &[Entry<'_>]) {
    let mut seen = BTreeMap::new();
    for entry in entries {
        if let Some(first) = seen.insert(entry.name.to_ascii_lowercase(), entry) {
            let message = format!("the names of the {word}s `{}` and `{}` differ only in case", first.name, entry.name);
            draft.report(
                Problem::new(entry.span.clone(), message)
                    .also(first.span.clone(), "the other one")
                    .help("choose another name: some file systems and databases take both for the same"),
            );
        }
    }
}

pub(super) fn names<'a>(entries: &[Entry<'a>]) -> Vec<&'a str> {
    entries.iter().map(|entry| entry.name).collect()
}

/// All texts of a table, at any depth.
pub(super) fn texts<'a>(table: &'a DeTable<'a>, found: &mut Vec<(&'a str, Range<usize>)>) {
    for field in fields(table) {
        texts_of(field.value, found);
    }
}

fn texts_of<'a>(value: &'a Spanned<DeValue<'a>>, found: &mut Vec<(&'a str, Range<usize>)>) {
    match value.get_ref() {
        DeValue::String(text) => found.push((text, value.span())),
        DeValue::Array(array) => array.iter().for_each(|element| texts_of(element, found)),
        DeValue::Table(table) => texts(table, found),
        _ => {}
    }
}
