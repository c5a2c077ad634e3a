//! Finding a pipeline file: by its path, or by its name in `pipelines.d`.

use std::ffi::OsString;
use std::path::{Path, PathBuf};

use cdrvault_format::error::{Error, Kind, Result};
use cdrvault_plugin::options::nearest;

/// The file that an argument names. With a `/` in it, or with the ending `.toml`, it is a path, which need not exist;
/// otherwise it is a name in `/etc/cdrvault/pipelines.d` or `$XDG_CONFIG_HOME/cdrvault/pipelines.d`.
pub(crate) fn locate(name: &str) -> Result<PathBuf> {
    locate_in(name, &directories(|name| std::env::var_os(name)))
}

/// Where names are looked up.
fn directories(environment: impl Fn(&str) -> Option<OsString>) -> Vec<PathBuf> {
    let absolute = |name: &str| environment(name).map(PathBuf::from).filter(|path| path.is_absolute());
    let own = absolute("XDG_CONFIG_HOME").or_else(|| absolute("HOME").map(|home| home.join(".config")));
    let roots = [Some(PathBuf::from("/etc")), own];
    roots.into_iter().flatten().map(|root| root.join("cdrvault/pipelines.d")).collect()
}

fn locate_in(name: &str, directories: &[PathBuf]) -> Result<PathBuf> {
    if name.contains('/') || Path::new(name).extension().is_some_and(|ending| ending == "toml") {
        return Ok(PathBuf::from(name));
    }
    let places: Vec<_> = directories.iter().map(|directory| directory.join(format!("{name}.toml"))).collect();
    let mut found = Vec::new();
    for place in &places {
        if place.try_exists().map_err(|error| Error::io("look for the pipeline", place, error))? {
            found.push(place);
        }
    }
    match found.as_slice() {
        [only] => Ok((*only).clone()),
        [] => Err(missing(name, &places, &names(directories))),
        several => {
            Err(Error::new(Kind::Config, format!("there are two pipelines `{name}`: {}", listed(several, " and ")))
                .hint("name one of them by its path"))
        }
    }
}

fn missing(name: &str, places: &[PathBuf], known: &[String]) -> Error {
    let error =
        Error::new(Kind::NotFound, format!("there is no pipeline `{name}`: looked for {}", listed(places, ", ")));
    match (nearest(name, known.iter().map(String::as_str)), known) {
        (Some(meant), _) => error.hint(format!("did you mean `{meant}`?")),
        (None, []) => error.hint("`cdrvault init FILE` writes one; a path has a `/` or ends in `.toml`"),
        (None, known) => error.hint(format!("there are: {}", known.join(", "))),
    }
}

/// The names that would be found. Directories that cannot be read have none for us.
fn names(directories: &[PathBuf]) -> Vec<String> {
    let files = directories.iter().filter_map(|directory| directory.read_dir().ok()).flatten().flatten();
    let mut names: Vec<_> =
        files.filter_map(|file| Some(file.file_name().to_str()?.strip_suffix(".toml")?.to_owned())).collect();
    names.sort();
    names.dedup();
    names
}

fn listed(paths: &[impl AsRef<Path>], between: &str) -> String {
    paths.iter().map(|path| path.as_ref().display().to_string()).collect::<Vec<_>>().join(between)
}

#[cfg(test)]
#[allow(clippy::disallowed_methods, reason = "tests may write files as they like")]
mod tests {
    use super::*;

    #[test]
    fn a_path_is_taken_as_it_is() {
        for path in ["./x", "/etc/x", "x.toml", "dir/x"] {
            assert_eq!(locate_in(path, &[]).unwrap(), Path::new(path));
        }
    }

    #[test]
    fn names_are_looked_up_in_the_directories_of_the_system_and_of_the_user() {
        let environment = |set: &'static [(&str, &str)]| {
            directories(move |name| set.iter().find(|(key, _)| *key == name).map(|(_, value)| value.into()))
        };
        let etc = "/etc/cdrvault/pipelines.d";
        assert_eq!(environment(&[]), [Path::new(etc)]);
        let home = environment(&[("HOME", "/root"), ("XDG_CONFIG_HOME", "relative")]);
        assert_eq!(home, [Path::new(etc), Path::new("/root/.config/cdrvault/pipelines.d")]);
        let own = environment(&[("HOME", "/root"), ("XDG_CONFIG_HOME", "/x")]);
        assert_eq!(own, [Path::new(etc), Path::new("/x/cdrvault/pipelines.d")]);
    }

    #[test]
    fn a_name_is_found_once_or_not_at_all() {
        let root = tempfile::tempdir().unwrap();
        let directories = [root.path().join("system"), root.path().join("user"), root.path().join("none")];
        for directory in &directories[..2] {
            std::fs::create_dir(directory).unwrap();
            std::fs::File::create(directory.join("both.toml")).unwrap();
        }
        std::fs::File::create(directories[1].join("asterisell.toml")).unwrap();
        assert_eq!(locate_in("asterisell", &directories).unwrap(), directories[1].join("asterisell.toml"));
        let shown = |name: &str| {
            format!("{:?}", locate_in(name, &directories).unwrap_err()).replace(root.path().to_str().unwrap(), "")
        };
        insta::assert_snapshot!(shown("asterisel"), @"NotFound: there is no pipeline `asterisel`: looked for /system/asterisel.toml, /user/asterisel.toml, /none/asterisel.toml (did you mean `asterisell`?)");
        insta::assert_snapshot!(shown("both"), @"Config: there are two pipelines `both`: /system/both.toml and /user/both.toml (name one of them by its path)");
        insta::assert_snapshot!(shown("x"), @"NotFound: there is no pipeline `x`: looked for /system/x.toml, /user/x.toml, /none/x.toml (there are: asterisell, both)");
    }
}
