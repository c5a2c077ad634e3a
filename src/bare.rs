//! A vault without a pipeline file: `--vault DIRECTORY|URL`.

use std::path::Path;
use std::sync::Arc;

use cdrvault_engine::config::{self, Pipeline};
use cdrvault_format::error::{Error, Kind, Result};

use crate::registry;

/// What can be written after `--vault`.
pub(crate) const FORMS: &str = "a directory, s3://BUCKET/PREFIX, USER@HOST:PATH or rsync://HOST/MODULE/PATH (rsync), USER@HOST::PATH (rdiff-backup)";

/// The pipeline that somebody would have written who only reads this vault. Its last sink is the vault.
pub(crate) fn pipeline(vault: &str) -> Result<Arc<Pipeline>> {
    let mirror = |kind: &str, to: &str| {
        (
            format!("{NOTHING}[sink.vault.{kind}]\nmirror = \"nothing\"\nto = {}\n", quoted(to)),
            "[\"nothing\", \"vault\"]",
        )
    };
    let (sink, sinks) = if vault.starts_with("s3://") {
        (format!("[sink.vault.s3]\nurl = {}\n{}", quoted(vault), s3_options()), "[\"vault\"]")
    } else if vault.contains("::") && !vault.starts_with('/') {
        mirror("rdiff", vault)
    } else if vault.starts_with("rsync://") || (vault.contains(':') && !vault.starts_with(['/', '.'])) {
        mirror("rsync", vault)
    } else {
        let path = std::path::absolute(vault).map_err(|error| Error::io("find", Path::new(vault), error))?;
        let text = path.display().to_string();
        if path.join("rdiff-backup-data").is_dir() {
            mirror("rdiff", &text)
        } else {
            (format!("[sink.vault.local]\npath = {}\n", quoted(&text)), "[\"vault\"]")
        }
    };
    let text = format!(
        "name = \"vault\"\nstate = \"/nonexistent\"\n{sink}\n[flow.any]\nsource.files = {{ path = \"/nonexistent\" }}\nsinks = {sinks}\n"
    );
    let loaded = config::load(Path::new("/--vault"), &text, &registry());
    loaded.map(Arc::new).map_err(|problems| {
        let why = problems.iter().next().map_or_else(String::new, |problem| format!(": {}", problem.message));
        Error::new(Kind::Config, format!("`{}` is not a vault{why}", vault.escape_debug()))
            .hint(format!("write {FORMS}"))
    })
}

/// Mirrors name what they mirror; to read them, it need not be there.
const NOTHING: &str = "[sink.nothing.local]\npath = \"/nonexistent/vault\"\n";

/// What the tools of AWS take from the environment, too.
fn s3_options() -> String {
    let of = |key: &str, names: [&str; 2]| {
        let value = names.iter().find_map(|name| std::env::var(name).ok())?;
        Some(format!("{key} = {}\n", quoted(&value)))
    };
    let options = [
        of("endpoint", ["AWS_ENDPOINT_URL_S3", "AWS_ENDPOINT_URL"]),
        of("region", ["AWS_REGION", "AWS_DEFAULT_REGION"]),
        of("tls-ca", ["AWS_CA_BUNDLE", "AWS_CA_BUNDLE"]),
    ];
    // For the tools of AWS, too, this is a word about the metadata of the instance.
    let asked = std::env::var("AWS_EC2_METADATA_DISABLED").is_ok_and(|value| value.eq_ignore_ascii_case("false"));
    let instance = asked.then(|| "instance-credentials = true\n".to_owned());
    options.into_iter().flatten().chain(instance).collect()
}

/// The escapes of JSON are those of TOML.
fn quoted(text: &str) -> String {
    serde_json::Value::from(text).to_string()
}
