//! `schema`: the JSON schema of pipeline files.

use cdrvault_engine::config;
use cdrvault_format::error::Error;

use crate::exit::{Exit, Failure};
use crate::globals::Globals;
use crate::{output, registry};

/// Print the JSON schema (draft 2020-12) of pipeline files, for editors.
#[derive(Debug, clap::Args)]
#[command(
    after_help = "Example:\n  cdrvault schema > ~/.config/cdrvault/pipeline.schema.json\n  # and in the first line of a pipeline, for Taplo (Even Better TOML):\n  #:schema ./pipeline.schema.json"
)]
pub(crate) struct Args {}

pub(crate) fn run(_: &Args, _: &Globals) -> Result<Exit, Failure> {
    output::text(&text()?);
    Ok(Exit::Done)
}

fn text() -> Result<String, Error> {
    let schema = serde_json::to_string_pretty(&config::schema(&registry()));
    schema.map(|schema| schema + "\n").map_err(|error| Error::failed("cannot write JSON").with_source(error))
}

#[cfg(test)]
#[allow(clippy::disallowed_methods, reason = "tests may write files as they like")]
mod tests {
    use std::path::Path;

    /// `INSTA_UPDATE=always` writes the file.
    #[test]
    fn the_schema_in_configs_is_that_of_the_options() {
        let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("configs/pipeline.schema.json");
        let schema = super::text().unwrap();
        if std::env::var("INSTA_UPDATE").is_ok_and(|update| update == "always") {
            std::fs::write(&path, &schema).unwrap();
        }
        let written = std::fs::read_to_string(&path).unwrap_or_default();
        assert!(written == schema, "run the test with INSTA_UPDATE=always to write {} again", path.display());
        assert!(!schema.contains("$ref"), "a schema that is not inline: use schema_of");
    }
}
