//! Looking a secret up, at run time.

use std::io::{self, Read};
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::time::Duration;

use secrecy::{ExposeSecret, SecretString};

use super::command::Command;
use super::secret::{Place, Secret};
use crate::program::Program;
use cdrvault_format::error::{Error, Kind, Result};

/// No secret is longer; a file or a program that gives more is the wrong one.
const LONGEST: u64 = 64 << 10;

/// A program that waits for somebody to type must not hold a nightly run up for ever.
const PATIENCE: Duration = Duration::from_mins(1);

impl Secret {
    /// Looks it up: reads the file, asks the environment, or runs the command. One newline at the end is left out.
    /// It blocks. No error repeats what was found.
    pub fn resolve(&self) -> Result<SecretString> {
        self.resolve_with(|name| std::env::var_os(name), PATIENCE)
    }

    fn resolve_with(
        &self,
        environment: impl Fn(&str) -> Option<std::ffi::OsString>,
        patience: Duration,
    ) -> Result<SecretString> {
        let bytes = match &self.0 {
            Place::Literal(secret) => return Ok(secret.clone()),
            Place::File(path) => from_file(path, true)?,
            Place::Env(name) => {
                let value = environment(name).ok_or_else(|| {
                    let problem = Error::new(Kind::Config, format!("the environment variable {name} is not set"));
                    problem.hint(
                        "set it where cdrvault is started; cron and systemd do not know the variables of your shell",
                    )
                })?;
                value.into_encoded_bytes()
            }
            Place::Credential(name) => {
                // Nobody else may enter the directory of systemd, which gives rights to its files by ACLs.
                from_file(&credential(environment("CREDENTIALS_DIRECTORY"), name)?, false)?
            }
            Place::Command(command) => from_command(command, patience)?,
        };
        let text = String::from_utf8(bytes).map_err(|_| self.unusable("is not UTF-8"))?;
        let text = text.strip_suffix('\n').map_or(text.as_str(), |line| line.strip_suffix('\r').unwrap_or(line));
        let secret = SecretString::from(text);
        match secret.expose_secret() {
            "" => Err(self.unusable("is empty")),
            text if text.contains('\0') => Err(self.unusable("holds a NUL")),
            _ => Ok(secret),
        }
    }

    fn unusable(&self, why: &str) -> Error {
        Error::new(Kind::Config, format!("the secret in the {self} {why}"))
    }
}

fn credential(directory: Option<std::ffi::OsString>, name: &str) -> Result<PathBuf> {
    match directory {
        Some(directory) => Ok(Path::new(&directory).join(name)),
        None => Err(Error::new(
            Kind::Config,
            format!("there is no systemd credential {name}: CREDENTIALS_DIRECTORY is not set"),
        )
        .hint(format!("start cdrvault from a unit with LoadCredential={name}:/path, or use {{ file = ... }}"))),
    }
}

fn from_file(path: &Path, private: bool) -> Result<Vec<u8>> {
    let failed = |error| Error::io("read the secret in", path, error);
    let file = std::fs::File::open(path).map_err(failed)?;
    let metadata = file.metadata().map_err(failed)?;
    // The group may be how we read what belongs to somebody else, or how root lets a service read it.
    let us = rustix::process::geteuid();
    let given = metadata.uid() != us.as_raw() || (us.is_root() && metadata.gid() != 0);
    let others = if given { 0o004 } else { 0o044 };
    if private && metadata.is_file() && metadata.permissions().mode() & others != 0 {
        let message = format!("others can read the secret in {}", path.display());
        return Err(Error::new(Kind::Config, message).hint(format!("`chmod 600 {}`", path.display())));
    }
    limited(file).map_err(failed)
}

/// The standard output of a program. Its standard error is ours, and so reaches the user.
fn from_command(command: &Command, patience: Duration) -> Result<Vec<u8>> {
    let name = &command.program;
    let longest = usize::try_from(LONGEST).unwrap_or(usize::MAX);
    // An agent that it started has a session of its own, and stays. What else it left would hold our standard error open.
    let program = Program::new(name).args(&command.arguments).at_most(longest).limit(patience);
    let outcome = program.run_blocking().map_err(|error| match error.kind() {
        Kind::Transient => {
            let seconds = patience.as_secs();
            Error::failed(format!("{name} gave no secret within {seconds} s and was stopped"))
                .hint("it must not prompt: try it with `</dev/null`")
        }
        Kind::Config => error.hint("write the whole path of the program: cron has a short PATH"),
        _ => error,
    })?;
    if outcome.status.success() {
        return Ok(outcome.output);
    }
    Err(Error::failed(format!("{name} gave no secret: {}", outcome.status)).hint("run it by hand to see why"))
}

fn limited(from: impl Read) -> io::Result<Vec<u8>> {
    let mut bytes = Vec::new();
    from.take(LONGEST + 1).read_to_end(&mut bytes)?;
    if bytes.len() as u64 > LONGEST {
        return Err(io::Error::new(io::ErrorKind::InvalidData, "it is too long for a secret"));
    }
    Ok(bytes)
}

#[cfg(test)]
#[allow(clippy::disallowed_methods, reason = "tests may write files as they like")]
mod tests {
    use super::*;

    fn resolved(secret: &Secret, environment: &[(&str, &str)]) -> Result<String> {
        let find = |name: &str| environment.iter().find(|(key, _)| *key == name).map(|(_, value)| (*value).into());
        secret.resolve_with(find, Duration::from_millis(300)).map(|secret| secret.expose_secret().to_owned())
    }

    fn command(words: &[&str]) -> Secret {
        Secret(Place::Command(Command::of(words.iter().map(|word| (*word).to_owned()).collect()).unwrap()))
    }

    #[test]
    fn secrets_are_found_where_they_are() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("billing");
        std::fs::write(&path, "hunter2 \n").unwrap();
        std::fs::set_permissions(&path, PermissionsExt::from_mode(0o600)).unwrap();
        assert_eq!(resolved(&Secret::in_file(&path), &[]).unwrap(), "hunter2 ");
        std::fs::write(&path, "hunter2\r\n").unwrap();
        let credential = Secret(Place::Credential("billing".to_owned()));
        let environment = [("CREDENTIALS_DIRECTORY", directory.path().to_str().unwrap()), ("PW", "hunter2\n\n")];
        assert_eq!(resolved(&credential, &environment).unwrap(), "hunter2");
        assert_eq!(resolved(&Secret(Place::Env("PW".to_owned())), &environment).unwrap(), "hunter2\n");
        assert_eq!(resolved(&command(&["echo", "hunter2"]), &[]).unwrap(), "hunter2");
        // A child that holds the output open keeps nobody waiting.
        let leaving = ["sh", "-c", "sleep 3 2> /dev/null & echo hunter2"];
        assert_eq!(resolved(&command(&leaving), &[]).unwrap(), "hunter2");
        assert_eq!(resolved(&Secret::literal("hunter2"), &[]).unwrap(), "hunter2");
    }

    #[test]
    fn a_secret_that_others_can_read_is_refused() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("billing");
        std::fs::write(&path, "hunter2").unwrap();
        let with = |mode: u32| {
            std::fs::set_permissions(&path, PermissionsExt::from_mode(mode)).unwrap();
            resolved(&Secret::in_file(&path), &[])
        };
        for mode in [0o644, 0o640, 0o604, 0o444] {
            let error = with(mode).unwrap_err();
            assert_eq!(error.kind(), Kind::Config);
            assert!(error.message().starts_with("others can read the secret in /"), "{mode:o} {}", error.message());
        }
        for mode in [0o600, 0o400, 0o611] {
            assert_eq!(with(mode).unwrap(), "hunter2", "{mode:o}");
        }
        with(0o440).unwrap_err();
        let credential = Secret(Place::Credential("billing".to_owned()));
        let environment = [("CREDENTIALS_DIRECTORY", directory.path().to_str().unwrap())];
        assert_eq!(resolved(&credential, &environment).unwrap(), "hunter2");
        // Of somebody else's, the group may be ours.
        if rustix::process::geteuid().is_root() {
            std::os::unix::fs::chown(&path, Some(65534), None).unwrap();
            assert_eq!(with(0o640).unwrap(), "hunter2");
            with(0o644).unwrap_err();
            std::os::unix::fs::chown(&path, Some(0), Some(65534)).unwrap();
            assert_eq!(with(0o640).unwrap(), "hunter2");
        }
    }

    #[test]
    fn a_secret_that_is_not_there_says_where_and_nothing_else() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("wrong");
        let written = |bytes: &[u8]| {
            std::fs::write(&path, bytes).unwrap();
            std::fs::set_permissions(&path, PermissionsExt::from_mode(0o400)).unwrap();
            resolved(&Secret::in_file(&path), &[])
        };
        let all = [
            resolved(&Secret::in_file("/no/such/hunter"), &[]),
            resolved(&Secret(Place::Env("PW".to_owned())), &[]),
            resolved(&Secret(Place::Credential("billing".to_owned())), &[]),
            resolved(&command(&["sh", "-c", "echo hunter2; exit 3"]), &[]),
            resolved(&command(&["/no/such/program"]), &[]),
            resolved(&command(&["sleep", "60"]), &[]),
            written(b""),
            written(b"\n"),
            written(b"hunter2\xff"),
            written(b"hunter2\0"),
            written(&vec![b'x'; 70_000]),
        ];
        for result in all {
            let error = format!("{:?}", result.unwrap_err());
            assert!(!error.contains("hunter2"), "{error}");
        }
    }

    #[test]
    fn no_secret_is_shown() {
        let literal = Secret::literal("hunter2");
        assert_eq!(format!("{literal} {literal:?}"), "literal Secret(literal)");
        assert_eq!(command(&["pass", "--token=hunter2"]).to_string(), "output of pass");
    }
}
