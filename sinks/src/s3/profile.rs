//! A profile of the AWS credentials file.

use std::path::PathBuf;

use cdrvault_format::error::{Error, Kind, Result};
use ini::Ini;
use secrecy::SecretString;

/// What a profile tells.
pub(super) struct Profile {
    pub(super) access_key_id: String,
    pub(super) secret_access_key: SecretString,
    pub(super) session_token: Option<SecretString>,
    pub(super) region: Option<String>,
}

/// Reads a profile from the files that the AWS tools use, or that the environment names instead.
pub(super) fn read(name: &str) -> Result<Profile> {
    let credentials = load("AWS_SHARED_CREDENTIALS_FILE", "credentials")?;
    let config = load("AWS_CONFIG_FILE", "config")?;
    let titled = if name == "default" { name.to_owned() } else { format!("profile {name}") };
    let get = |key: &str| -> Option<String> {
        let of = |file: &Option<Ini>, section: &str| file.as_ref()?.get_from(Some(section), key).map(str::to_owned);
        of(&credentials, name).or_else(|| of(&config, &titled))
    };
    match (get("aws_access_key_id"), get("aws_secret_access_key")) {
        (Some(access_key_id), Some(secret)) => Ok(Profile {
            access_key_id,
            secret_access_key: secret.into(),
            session_token: get("aws_session_token").map(Into::into),
            region: get("region"),
        }),
        _ => Err(Error::new(Kind::Config, format!("there is no AWS profile `{name}` with an access key"))
            .hint("see ~/.aws/credentials of the user who runs cdrvault, or name the keys in the pipeline file")),
    }
}

fn load(variable: &str, name: &str) -> Result<Option<Ini>> {
    let path = match std::env::var_os(variable) {
        Some(path) => PathBuf::from(path),
        None => match std::env::var_os("HOME") {
            Some(home) => PathBuf::from(home).join(".aws").join(name),
            None => return Ok(None),
        },
    };
    match Ini::load_from_file_noescape(&path) {
        Ok(file) => Ok(Some(file)),
        Err(ini::Error::Io(error)) if error.kind() == std::io::ErrorKind::NotFound => Ok(None),
        Err(ini::Error::Io(error)) => Err(Error::io("read", &path, error)),
        // The text of a parser's error may hold a line of the file.
        Err(ini::Error::Parse(_)) => Err(Error::new(Kind::Config, format!("{} is not an INI file", path.display()))),
    }
}
