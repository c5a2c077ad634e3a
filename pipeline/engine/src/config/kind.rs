//! The key that says of which kind a stage is: `[sink.vault.local]`, `source.files = { ... }`, `{ parquet = { ... } }`.

use std::ops::Range;

use toml::de::{DeTable, DeValue};

use cdrvault_plugin::options::Problem;
use cdrvault_plugin::options::decode::{Field, fields};
use cdrvault_plugin::options::draft::Draft;
use cdrvault_plugin::options::nearest::{did_you_mean, listed};

/// Where a kind is expected.
pub(super) struct Place<'a> {
    /// `sink`, `source` or `transform`.
    pub(super) role: &'static str,
    /// What messages call the table: `[sink.vault]`.
    pub(super) title: String,
    /// How a kind is written there, with `KIND` in its place.
    pub(super) form: String,
    /// What to do about two kinds.
    pub(super) apart: &'static str,
    /// The place of the table's name.
    pub(super) span: Range<usize>,
    /// The kinds there are.
    pub(super) kinds: &'a [&'static str],
}

impl Place<'_> {
    /// The one key that is a kind. Whatever else stands there is reported.
    pub(super) fn choose<'a>(&self, draft: &Draft<'_>, table: &'a DeTable<'a>) -> Option<Field<'a>> {
        let (known, unknown): (Vec<_>, Vec<_>) =
            fields(table).into_iter().partition(|field| self.kinds.contains(&&*field.key));
        for field in &unknown {
            draft.report(self.unknown(field));
        }
        let mut known = known.into_iter();
        let first = known.next();
        let Some(chosen) = &first else {
            if unknown.is_empty() {
                let problem = Problem::new(self.span.clone(), format!("{} names no kind of {}", self.title, self.role));
                draft.report(problem.help(format!("write `{}`; the kinds are {}", self.form, listed(self.kinds))));
            }
            return None;
        };
        for other in known {
            let message = format!("{} has two kinds, `{}` and `{}`", self.title, chosen.key, other.key);
            draft.report(
                Problem::new(other.key_span, message)
                    .label("the second")
                    .also(chosen.key_span.clone(), "the first")
                    .help(self.apart),
            );
        }
        first
    }

    fn unknown(&self, field: &Field<'_>) -> Problem {
        let key = &*field.key;
        // `[sink.vault]` with `path = "..."`: an option, and not a kind.
        if !matches!(field.value.get_ref(), DeValue::Table(_)) {
            let problem = Problem::new(
                field.key_span.clone(),
                format!("`{key}` in {} belongs to no kind of {}", self.title, self.role),
            );
            return problem.help(format!(
                "options stand under a kind: `{}`; the kinds are {}",
                self.form,
                listed(self.kinds)
            ));
        }
        self.no_such(key, field.key_span.clone())
    }

    /// The problem of a kind that does not exist.
    pub(super) fn no_such(&self, kind: &str, span: Range<usize>) -> Problem {
        let problem = Problem::new(span, format!("there is no {} of the kind `{kind}`", self.role));
        problem.help(did_you_mean(kind, self.kinds, "kinds"))
    }
}
