//! `stages`: the catalogue of kinds, and the options of each.

use cdrvault_engine::config::{self, SinkOptions};
use cdrvault_plugin::options::{OptionDoc, nearest, options_of, schema_of};
use cdrvault_plugin::registry::{Plugin, Registry};
use clap::Subcommand;
use comfy_table::presets::NOTHING;
use comfy_table::{ContentArrangement, Table};
use serde::Serialize;

use crate::exit::{Exit, Failure};
use crate::globals::Globals;
use crate::{output, registry};

/// Show the kinds of databases, sources, transforms and sinks, and their options.
#[derive(Debug, clap::Args)]
#[command(after_help = "Examples:\n  cdrvault stages list\n  cdrvault stages describe parquet")]
pub(crate) struct Args {
    #[command(subcommand)]
    what: What,
}

#[derive(Debug, Subcommand)]
enum What {
    /// All kinds, with one line on each
    List,
    /// One kind: what it does, how it is written, and its options
    Describe {
        /// The kind, as in a pipeline file.
        kind: String,
    },
    /// Every table and every kind with all options, as a page of the manual
    Markdown,
}

pub(crate) fn run(args: &Args, globals: &Globals) -> Result<Exit, Failure> {
    let kinds = catalogue(&registry());
    match &args.what {
        What::List => list(&kinds, globals)?,
        What::Describe { kind } => {
            let described: Vec<_> = kinds.iter().filter(|known| known.kind == kind).collect();
            if described.is_empty() {
                return Err(Failure::Usage(unknown(kind, &kinds)));
            }
            describe(&described, globals)?;
        }
        What::Markdown => output::text(&page(&registry())),
    }
    Ok(Exit::Done)
}

fn unknown(kind: &str, kinds: &[Stage]) -> String {
    match nearest(kind, kinds.iter().map(|known| known.kind)) {
        Some(meant) => format!("there is no kind `{kind}`: did you mean `{meant}`?"),
        None => format!("there is no kind `{kind}`: `cdrvault stages list` shows all"),
    }
}

/// One kind of stage.
#[derive(Debug, Serialize)]
#[serde(rename_all = "kebab-case")]
struct Stage {
    role: &'static str,
    kind: &'static str,
    about: &'static str,
    details: &'static str,
    options: Vec<OptionDoc>,
}

impl Stage {
    fn of<T: ?Sized>(role: &'static str, plugin: &Plugin<T>) -> Self {
        let options = options_of(&(plugin.schema)());
        Self { role, kind: plugin.kind, about: plugin.about, details: plugin.details, options }
    }

    /// How it is written, with the options that it must have.
    fn example(&self) -> String {
        let required =
            || self.options.iter().filter(|option| option.required).map(|option| format!("{} = ...", option.name));
        let inline = required().collect::<Vec<_>>().join(", ");
        match self.role {
            "database" => format!("[database.NAME]\nurl = \"{}:...\"", self.kind),
            "sink" => {
                std::iter::once(format!("[sink.NAME.{}]", self.kind)).chain(required()).collect::<Vec<_>>().join("\n")
            }
            "source" => format!("[flow.NAME]\nsource.{} = {{ {inline} }}", self.kind),
            _ if inline.is_empty() => format!("transforms = [..., \"{}\"]", self.kind),
            _ => format!("transforms = [..., {{ {} = {{ {inline} }} }}]", self.kind),
        }
    }
}

/// All kinds, in the order in which data passes them.
fn catalogue(registry: &Registry) -> Vec<Stage> {
    let databases = registry.databases.iter().map(|plugin| Stage::of("database", plugin));
    let sources = registry.sources.iter().map(|plugin| Stage::of("source", plugin));
    let transforms = registry.transforms.iter().map(|plugin| Stage::of("transform", plugin));
    let sinks = registry.sinks.iter().map(|plugin| {
        let mut kind = Stage::of("sink", plugin);
        kind.options.extend(options_of(&schema_of::<SinkOptions>()));
        kind
    });
    databases.chain(sources).chain(transforms).chain(sinks).collect()
}

fn list(kinds: &[Stage], globals: &Globals) -> Result<(), Failure> {
    #[derive(Serialize)]
    struct Listed<'a> {
        kinds: &'a [Stage],
    }
    if globals.json {
        output::json(&Listed { kinds })?;
        return Ok(());
    }
    let row = |kind: &Stage| vec![kind.role.to_owned(), kind.kind.to_owned(), kind.about.to_owned()];
    output::text(&output::table(&["ROLE", "KIND", "WHAT IT IS"], kinds.iter().map(row).collect(), &[]));
    Ok(())
}

fn describe(kinds: &[&Stage], globals: &Globals) -> Result<(), Failure> {
    #[derive(Serialize)]
    struct Described<'a> {
        kinds: &'a [&'a Stage],
    }
    if globals.json {
        output::json(&Described { kinds })?;
        return Ok(());
    }
    let described: Vec<_> = kinds.iter().map(|kind| described(kind)).collect();
    output::text(&described.join("\n"));
    Ok(())
}

/// The width of descriptions, on a terminal or not.
const WIDTH: u16 = 100;

fn described(kind: &Stage) -> String {
    let example: Vec<_> = kind.example().lines().map(|line| format!("    {line}\n")).collect();
    let mut text = format!("{} {}: {}\n\n", kind.role, kind.kind, kind.about);
    if !kind.details.is_empty() {
        text.push_str(&wrapped(kind.details));
        text.push('\n');
    }
    text.push_str(&example.concat());
    if kind.options.is_empty() {
        return text + "\nIt has no options.\n";
    }
    let mut table = Table::new();
    table.load_preset(NOTHING).set_content_arrangement(ContentArrangement::Dynamic).set_width(WIDTH);
    table.set_header(["OPTION", "TYPE", "DEFAULT", "WHAT IT DOES"]);
    for option in &kind.options {
        let default = match &option.default {
            Some(default) => default.as_str(),
            None if option.required => "required",
            None => "",
        };
        table.add_row([&option.name, &option.kind, default, &option.doc]);
    }
    text.push('\n');
    for line in table.lines() {
        // Cells begin with a space.
        text.push_str(line.strip_prefix(' ').unwrap_or(&line).trim_end());
        text.push('\n');
    }
    text
}

/// Paragraphs in lines that fit.
fn wrapped(text: &str) -> String {
    let mut lines = String::new();
    for paragraph in text.split("\n\n") {
        let mut width = 0;
        for word in paragraph.split_whitespace() {
            let length = word.chars().count();
            if width > 0 && width + 1 + length > usize::from(WIDTH) {
                lines.push('\n');
                width = 0;
            }
            if width > 0 {
                lines.push(' ');
                width += 1;
            }
            lines.push_str(word);
            width += length;
        }
        lines.push_str("\n\n");
    }
    lines.truncate(lines.trim_end().len());
    lines + "\n"
}

const PAGE: &str = "\
# Reference: every table and every option

This page is made by `cdrvault stages markdown` from the structures that read the file, so that it cannot be wrong about
names, types and defaults. How the parts go together is in [The pipeline file](configuration.md).

Types: a `path` is absolute, or relative to the directory of the pipeline file. An `age` has a unit (`s`, `m`, `h`, `d`, `w`,
`mo`, `y`, as in `\"7d\"`), a `size` too (`B`, `kB`, `MB`, `GB`, `TB`, `KiB`, `MiB`, `GiB`, `TiB`, as in `\"8MiB\"`). A `secret` says where the
secret is: `{ file = \"...\" }`, `{ env = \"...\" }`, `{ credential = \"...\" }` or `{ command = [...] }`. A `reference` is the name of a database or of
a sink in the same file. A `glob` is a pattern such as `\"ssl/private/**\"`.
";

/// The page `docs/reference.md`.
fn page(registry: &Registry) -> String {
    let mut page = PAGE.to_owned();
    page.push_str("\n## The file itself\n");
    let file = config::schema(registry);
    for (title, about, options) in tables(&file) {
        page.push_str(&format!("\n### {title}\n"));
        if !about.is_empty() {
            page.push_str(&format!("\n{about}\n"));
        }
        page.push_str(&options_as_markdown(&options));
    }
    let mut role = "";
    for kind in catalogue(registry) {
        if kind.role != role {
            role = kind.role;
            let (first, rest) = role.split_at(1);
            page.push_str(&format!("\n## {}{rest}s\n", first.to_uppercase()));
        }
        page.push_str(&format!("\n### {}\n\n{}\n", kind.kind, sentence(kind.about)));
        if !kind.details.is_empty() {
            page.push_str(&format!("\n{}", wrapped(kind.details)));
        }
        page.push_str(&format!("\n```toml\n{}\n```\n", kind.example()));
        page.push_str(&options_as_markdown(&kind.options));
    }
    page
}

/// The tables of the file that are of no kind: what stands before the first one, and those that the schema has by name.
fn tables(file: &serde_json::Value) -> Vec<(String, String, Vec<OptionDoc>)> {
    let about = |value: &serde_json::Value| unwrapped(value["description"].as_str().unwrap_or_default());
    let options = |value: &serde_json::Value| {
        schemars::Schema::try_from(value.clone()).map(|schema| options_of(&schema)).unwrap_or_default()
    };
    let is_table = |name: &str| file["properties"][name]["type"] == "object";
    let mut header = options(file);
    header.retain(|option| !is_table(&option.name));
    let mut tables = vec![("Before the first table".to_owned(), String::new(), header)];
    let names = file["properties"].as_object().into_iter().flat_map(serde_json::Map::keys);
    for name in names.filter(|name| is_table(name)) {
        let table = &file["properties"][name];
        if table.get("properties").is_some() {
            tables.push((format!("`[{name}]`"), about(table), options(table)));
        }
    }
    let mut flow = options(&file["properties"]["flow"]["additionalProperties"]);
    // These are of a kind, which has a place of its own below.
    flow.retain(|option| option.name != "source" && option.name != "transforms");
    tables.push((
        "`[flow.NAME]`".to_owned(),
        "Beside `source` and `transforms`, whose kinds are below.".to_owned(),
        flow,
    ));
    tables
}

/// A description that was wrapped in the source, as one line.
fn unwrapped(text: &str) -> String {
    text.split_whitespace().collect::<Vec<_>>().join(" ")
}

/// With a capital letter and a full stop.
fn sentence(text: &str) -> String {
    let mut letters = text.chars();
    let first = letters.next().map(|first| first.to_uppercase().to_string()).unwrap_or_default();
    format!("{first}{}.", letters.as_str())
}

fn options_as_markdown(options: &[OptionDoc]) -> String {
    if options.is_empty() {
        return "\nIt has no options.\n".to_owned();
    }
    let mut table = "\n| option | type | default | what it does |\n|---|---|---|---|\n".to_owned();
    for option in options {
        let code = |text: &str| format!("`{}`", text.replace('|', "\\|"));
        let default = match &option.default {
            Some(default) => code(default),
            None if option.required => "required".to_owned(),
            None => String::new(),
        };
        let doc = option.doc.replace('|', "\\|").replace('\n', " ");
        table.push_str(&format!("| `{}` | {} | {default} | {doc} |\n", option.name, code(&option.kind)));
    }
    table
}

#[cfg(test)]
#[allow(clippy::disallowed_methods, reason = "tests may write files as they like")]
mod tests {
    use super::*;

    /// `INSTA_UPDATE=always` writes the file.
    #[test]
    fn the_reference_in_the_manual_is_that_of_the_options() {
        let path = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("docs/reference.md");
        let page = page(&registry());
        if std::env::var("INSTA_UPDATE").is_ok_and(|update| update == "always") {
            std::fs::write(&path, &page).unwrap();
        }
        let written = std::fs::read_to_string(&path).unwrap_or_default();
        assert!(written == page, "run the test with INSTA_UPDATE=always to write {} again", path.display());
    }

    #[test]
    fn every_kind_and_every_option_is_documented() {
        for kind in catalogue(&registry()) {
            assert!(!kind.about.is_empty(), "{kind:?}");
            for option in &kind.options {
                assert!(!option.doc.is_empty(), "{} {} `{}` has no documentation", kind.role, kind.kind, option.name);
                assert_ne!(option.kind, "any", "{} {} `{}` has no type", kind.role, kind.kind, option.name);
            }
            let text = described(&kind);
            let wide = text.lines().skip(1).find(|line| line.chars().count() > usize::from(WIDTH));
            assert_eq!(wide, None);
        }
    }

    #[test]
    fn a_kind_is_described() {
        let kinds = catalogue(&registry());
        let local = kinds.iter().find(|kind| kind.kind == "local").unwrap();
        assert!(local.options.iter().any(|option| option.name == "optional"));
        assert!(described(local).contains("[sink.NAME.local]\n    path = ..."), "{}", described(local));
        assert_eq!(unknown("parket", &kinds), "there is no kind `parket`: did you mean `parquet`?");
    }
}
