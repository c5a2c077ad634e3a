//! Pipeline files, right and wrong.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "this is how a test fails")]
#![allow(clippy::disallowed_methods, clippy::assigning_clones, reason = "tests may write files as they like")]

#[path = "config/fake.rs"]
mod fake;

use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

use cdrvault_engine::config::{self, OnSchemaChange, Pipeline};
use cdrvault_plugin::options::Problems;
use proptest::collection::vec;
use proptest::prelude::*;

/// What a person sees of a file that is wrong.
fn shown(text: &str) -> String {
    let path = Path::new("/etc/cdrvault/pipelines.d/asterisell.toml");
    let problems = config::load(path, text, &fake::registry()).expect_err("the file is sound");
    let shown = problems.render(false).replace(&path.display().to_string(), "asterisell.toml");
    for text in [&shown, &problems.to_string(), &format!("{problems:?}"), &problems.render(true)] {
        assert!(!text.contains("hunter2") && !text.contains("hünter2"), "a secret is shown: {text}");
    }
    for problem in &problems {
        assert!(
            !problem.message.is_empty() && problem.help.as_ref().is_some_and(|help| !help.is_empty()),
            "{problem:?}"
        );
    }
    shown
}

/// Compares with a file in `config/snapshots`; `INSTA_UPDATE=always` writes it.
macro_rules! snapshot {
    ($name:expr, $text:expr) => {
        insta::with_settings!(
            { snapshot_path => "config/snapshots", prepend_module_to_snapshot => false, omit_expression => true },
            { insta::assert_snapshot!($name, $text) }
        )
    };
}

/// One test for each file in `config/broken`, and one that finds files without a test.
macro_rules! broken {
    ($($name:ident),* $(,)?) => {
        $(
            #[test]
            fn $name() {
                let text = include_str!(concat!("config/broken/", stringify!($name), ".toml"));
                snapshot!(stringify!($name), shown(text));
            }
        )*

        #[test]
        fn every_broken_file_has_a_test() {
            let directory = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/config/broken");
            let mut files: Vec<_> = std::fs::read_dir(directory)
                .unwrap()
                .map(|file| file.unwrap().path().file_stem().unwrap().to_str().unwrap().to_owned())
                .collect();
            files.sort();
            assert_eq!(files, [$(stringify!($name)),*]);
        }
    };
}

broken! {
    after_a_byte_order_mark,
    after_a_tab,
    after_crlf,
    after_unicode,
    alerts,
    alerts_that_reach_nobody,
    array_of_tables,
    backslash,
    bad_date,
    bad_globs,
    bad_names,
    bad_timezone,
    bad_values_in_a_list,
    chain_in_wrong_order,
    chain_of_files_with_parquet,
    colon_for_equals,
    comma_missing,
    database_of_unknown_kind,
    database_unknown,
    database_unknown_beside_a_bad_value,
    database_url_misspelt,
    database_without_any,
    database_without_scheme,
    database_without_url,
    duplicated_flow,
    duplicated_key,
    duplicated_table,
    empty,
    empty_table_of_flows,
    equals_missing,
    header_alone,
    impossible_date,
    kind_missing,
    kind_missing_and_empty,
    kind_twice,
    kind_unknown,
    long_name,
    mirror_of_nothing,
    mirror_without_the_vault,
    missing_units,
    names_that_differ_in_case,
    negative,
    nested_value_missing,
    nested_value_of_wrong_type,
    no_flow,
    no_header,
    only_a_comment,
    out_of_range,
    problem_of_a_stage,
    rows_reach_the_sink,
    rows_without_transforms,
    scalar_for_a_section,
    scalar_for_a_table,
    secret_forms,
    secret_in_a_reference,
    secret_in_a_wrong_line,
    secret_unquoted,
    secret_unterminated,
    secret_with_leading_zero,
    several_everywhere,
    several_in_one_section,
    shared_option_misspelt,
    shorthand_of_wrong_type,
    shorthand_unknown,
    shorthand_wrong,
    sink_twice,
    sink_unknown,
    sinks_all_optional,
    sinks_are_no_table,
    sinks_empty,
    sinks_in_one_place,
    sinks_missing,
    source_missing,
    source_twice,
    source_without_options,
    timezone_as_offset,
    timezone_by_city,
    transform_of_wrong_type,
    transform_twice,
    transforms_no_array,
    two_detections,
    unclosed_array,
    unclosed_header,
    unclosed_inline_table,
    unknown_key_in_database,
    unknown_key_in_flow,
    unknown_key_in_option,
    unknown_key_in_pipeline,
    unknown_key_in_sink,
    unknown_key_in_source,
    unknown_key_in_transform,
    unknown_key_without_likeness,
    unknown_table,
    unquoted_number,
    unquoted_text,
    unterminated_long_string,
    unterminated_string,
    value_missing,
    wrong_types,
    yaml,
}

const SOUND: &str = r#"
name = "asterisell"
timezone = "europe/rome"
workers = 4
min-free = "1GiB"

[database.billing]
url = "mysql://cdrvault@127.0.0.1/asterisell"
password = { file = "billing.password" }

[sink.vault.local]
path = "vault"
mode = "0640"

[sink.offsite.rdiff]
mirror = "vault"
to = "backup@host::asterisell"

[sink.bucket.s3]
url = "s3://bucket/asterisell"
secret-key = { env = "KEY" }
optional = true

[flow.ar_cdr]
source.ar-cdr = { database = "billing", since = 2015-01-01 }
transforms = [{ incremental = { detect = ["events"], window = "2w" } }, "parquet", { compress = "zstd(9)" }]
sinks = ["vault", "offsite", "bucket"]
on-schema-change = "refuse"

[flow.etc]
source.files = { path = "/etc", exclude = ["ssl/private/**"] }
sinks = ["vault"]
"#;

fn sound(text: &str) -> Pipeline {
    let loaded = config::load(Path::new("/srv/pipelines/asterisell.toml"), text, &fake::registry());
    loaded.unwrap_or_else(|problems| panic!("{}", problems.render(false)))
}

#[test]
fn a_sound_file_is_loaded() {
    let pipeline = sound(SOUND);
    assert_eq!(pipeline.name, "asterisell");
    assert_eq!(pipeline.wall_clock().iana_name(), Some("Europe/Rome"));
    assert_eq!(pipeline.state, Path::new("/var/lib/cdrvault/asterisell"));
    assert_eq!((pipeline.workers, pipeline.min_free.as_u64()), (4, 1 << 30));
    let sinks: Vec<_> = pipeline.sinks.iter().map(|sink| (sink.name.as_str(), sink.kind, sink.optional)).collect();
    assert_eq!(sinks, [("vault", "local", false), ("offsite", "rdiff", false), ("bucket", "s3", true)]);
    let [ar_cdr, etc] = pipeline.flows.as_slice() else { panic!("{:?}", pipeline.flows) };
    assert_eq!((ar_cdr.source_kind, &ar_cdr.sinks), ("ar-cdr", &vec![0, 1, 2]));
    assert_eq!(ar_cdr.transforms.iter().map(|t| t.kind()).collect::<Vec<_>>(), ["incremental", "parquet", "compress"]);
    assert_eq!((ar_cdr.on_schema_change, etc.on_schema_change), (OnSchemaChange::Refuse, OnSchemaChange::Evolve));
    assert!(pipeline.warnings.is_empty());
    snapshot!("sound_file", format!("{pipeline:#?}"));
}

#[test]
fn paths_are_relative_to_the_file() {
    let pipeline = sound(&SOUND.replace("workers = 4", "state = \"state/x\""));
    assert_eq!(pipeline.sinks[0].build.describe(), "/srv/pipelines/vault Some(0640)");
    assert_eq!(pipeline.state, Path::new("/srv/pipelines/state/x"));
    let error = pipeline.flows[1].source.build("etc", None).map(|_| ()).unwrap_err();
    assert_eq!(error.message(), "/etc [\"ssl/private/**\"]");
}

#[test]
fn a_date_may_stand_without_quotes() {
    for since in ["2015-01-01", "\"2015-01-01\""] {
        let pipeline = sound(&SOUND.replace("2015-01-01", since));
        let error = pipeline.flows[0].source.build("ar_cdr", None).map(|_| ()).unwrap_err();
        assert_eq!(error.message(), "Some(Day(2015-01-01))");
    }
}

#[test]
fn what_nobody_uses_is_a_warning() {
    let more = "\n[database.spare]\nurl = \"sqlite:x\"\n\n[sink.nas.local]\npath = \"/nas\"\n";
    let pipeline = sound(&format!("{SOUND}{more}"));
    snapshot!("sound_file_with_warnings", pipeline.warnings.render(false));
}

#[test]
fn a_vault_in_the_state_directory_is_a_warning() {
    let pipeline = sound(&SOUND.replace("workers = 4", "state = \"/srv/pipelines\""));
    let shown = pipeline.warnings.to_string();
    assert!(shown.contains("the sink `vault` lies inside the state directory /srv/pipelines"), "{shown}");
}

#[test]
fn the_state_directory_and_a_vault_are_not_in_each_others_way() {
    let refused = |state: &str, path: &str| {
        let text = SOUND.replace("workers = 4", &format!("state = \"{state}\"")).replace("path = \"vault\"", path);
        let problems = config::load(Path::new("/srv/x.toml"), &text, &fake::registry()).expect_err("it is sound");
        problems.to_string()
    };
    assert!(refused("vault", "path = \"vault/\"").contains("is the same place as the state directory"));
    assert!(refused("/srv/vault/state", "path = \"vault\"").contains("lies around the state directory"));
    assert!(refused("/srv/state", "path = \"state/spool/vault\"").contains("lies inside the state directory"));
    // Where it is by itself.
    let text = SOUND.replace("path = \"vault\"", "path = \"/var/lib/cdrvault/asterisell/\"");
    let problems = config::load(Path::new("/srv/x.toml"), &text, &fake::registry()).expect_err("it is sound");
    assert!(problems.to_string().contains("is the same place as the state directory"), "{problems}");
}

/// A file in a directory of its own, with a mode.
fn written(content: &[u8], mode: u32) -> (tempfile::TempDir, PathBuf) {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("asterisell.toml");
    std::fs::write(&path, content).unwrap();
    std::fs::set_permissions(&path, std::fs::Permissions::from_mode(mode)).unwrap();
    (directory, path)
}

fn refused(content: &[u8], mode: u32) -> String {
    let (_directory, path) = written(content, mode);
    let error = config::open(&path, &fake::registry()).expect_err("the file is sound");
    let problems = Problems::of(&error).expect("an error about the content");
    assert!(!format!("{error:?}").contains("hunter2"));
    problems.render(false).replace(&path.display().to_string(), "asterisell.toml")
}

const LITERALS: &str = r#"
name = "asterisell"

[database.billing]
url = "mysql://cdrvault:hunter2@127.0.0.1/asterisell"
password = "hunter2"

[sink.vault.s3]
url = "s3://bucket/asterisell"
secret-key = "hunter2"

[flow.ar_cdr]
source.ar-cdr = { database = "billing" }
transforms = ["incremental", "parquet"]
sinks = ["vault"]
"#;

#[test]
fn a_literal_secret_is_for_our_eyes_only() {
    for mode in [0o600, 0o400, 0o700] {
        let (_directory, path) = written(LITERALS.as_bytes(), mode);
        let pipeline = config::open(&path, &fake::registry()).unwrap();
        assert_eq!(pipeline.sinks[0].build.describe(), "s3://bucket/asterisell Some(Secret(literal))");
    }
    for mode in [0o640, 0o604] {
        assert_eq!(refused(LITERALS.as_bytes(), mode), refused(LITERALS.as_bytes(), 0o644));
    }
    snapshot!("open_literal_secret", refused(LITERALS.as_bytes(), 0o644));
}

#[test]
fn the_words_of_a_message_do_not_tell_a_secret_that_is_one_of_them() {
    let with = |secret: &str| refused(LITERALS.replace("hunter2", secret).as_bytes(), 0o644);
    let problem = with("hunter2");
    // The same, but for the stars of the file's own line.
    let said = |shown: &str| shown.lines().filter(|line| !line.contains("| ")).map(str::to_owned).collect::<Vec<_>>();
    for secret in ["secret", "password", "write", "file", "chmod 600", "others can"] {
        assert_eq!(said(&with(secret)), said(&problem), "{secret}");
        assert!(!with(secret).contains("***`"), "{secret}");
    }
}

#[test]
fn what_other_programs_would_expand_is_refused() {
    let secret = |text: &str| refused(LITERALS.replace(":hunter2", "").replace("hunter2", text).as_bytes(), 0o600);
    for text in ["${DB_PASSWORD}", "$DB_PASSWORD", "%DB_PASSWORD%", "{{ db_password }}", "env:DB_PASSWORD"] {
        let shown = secret(text);
        assert!(shown.contains("variables are not expanded here") && shown.contains("{ env = \"NAME\" }"), "{shown}");
        assert!(!shown.contains("DB_PASSWORD") && !shown.contains("db_password"), "{shown}");
    }
    assert!(secret("/run/secrets/db").contains("write { file = \"...\" } around the path"));
    for (from, to) in [
        ("mysql://cdrvault@127.0.0.1", "mysql://cdrvault@${DB_HOST}"),
        ("path = \"vault\"", "path = \"$HOME/vault\""),
        ("path = \"vault\"", "path = \"~backup/vault\""),
        ("path = \"/etc\"", "path = \"${ROOT}/etc\""),
        ("s3://bucket/asterisell", "s3://${BUCKET}/asterisell"),
        ("{ env = \"KEY\" }", "{ env = \"$KEY\" }"),
        ("{ env = \"KEY\" }", "{ file = \"${CREDENTIALS_DIRECTORY}/key\" }"),
    ] {
        assert!(SOUND.contains(from), "{from}");
        let shown = refused(SOUND.replace(from, to).as_bytes(), 0o600);
        assert!(shown.contains("not expanded here"), "{to}: {shown}");
    }
    // A shell's own, and names that only look odd.
    for (from, to) in [
        ("{ env = \"KEY\" }", "{ command = [\"sh\", \"-c\", \"echo ${KEY} $HOME\"] }"),
        ("ssl/private/**", "$RECYCLE.BIN"),
        ("path = \"/etc\"", "path = \"/mnt/$RECYCLE.BIN\""),
        ("{ env = \"KEY\" }", "\"pa$$wd${x}y\""),
    ] {
        sound(&SOUND.replace(from, to));
    }
}

#[test]
fn a_literal_secret_is_one_problem_of_several() {
    let text = LITERALS.replace("path =", "pth =").replace("secret-key", "secret_key").replace(":hunter2", "");
    snapshot!("open_literal_secret_and_others", refused(text.as_bytes(), 0o644));
}

#[test]
fn a_sound_file_may_be_read_by_all() {
    let (directory, path) = written(SOUND.as_bytes(), 0o644);
    let pipeline = config::open(&path, &fake::registry()).unwrap();
    let vault = directory.path().join("vault");
    assert_eq!(pipeline.sinks[0].build.describe(), format!("{} Some(0640)", vault.display()));
}

#[test]
fn a_file_that_is_not_utf_8() {
    snapshot!("open_not_utf_8", refused(b"name = \"x\"\npath = \"\xc3\xa9t\xe9\"\npassword = \"hunter2\"\n", 0o644));
}

#[test]
fn files_that_cannot_be_read() {
    let directory = tempfile::tempdir().unwrap();
    let message = |path: &Path| {
        let error = config::open(path, &fake::registry()).unwrap_err();
        format!("{error:?}").replace(&directory.path().display().to_string(), "DIR")
    };
    let large = directory.path().join("large.toml");
    std::fs::write(&large, vec![b'#'; (1 << 20) + 1]).unwrap();
    let all = [message(&directory.path().join("none.toml")), message(directory.path()), message(&large)];
    snapshot!("open_unreadable", all.join("\n"));
}

#[test]
fn options_are_documented_by_their_structs() {
    let registry = fake::registry();
    let sources = registry.sources.iter().flat_map(|plugin| cdrvault_plugin::options::options_of(&(plugin.schema)()));
    let transforms =
        registry.transforms.iter().flat_map(|plugin| cdrvault_plugin::options::options_of(&(plugin.schema)()));
    let databases =
        registry.databases.iter().flat_map(|plugin| cdrvault_plugin::options::options_of(&(plugin.schema)()));
    snapshot!("options", format!("{:#?}", databases.chain(sources).chain(transforms).collect::<Vec<_>>()));
}

#[test]
fn the_schema_of_the_file() {
    let schema = config::schema(&fake::registry());
    assert!(!schema.to_string().contains("\"$ref\""), "a schema that is not inline");
    snapshot!("schema", serde_json::to_string_pretty(&schema).unwrap());
}

/// What a slip of the hand puts into a file.
fn slip() -> impl Strategy<Value = &'static str> {
    const SLIPS: &[&str] = &[
        "", "\"", "'", "\"\"\"", "[", "]", "{", "}", "=", ".", ",", "#", "\n", "\r", "\t", "\\", "0", "é", "会", "😀",
        "\0", "x = ",
    ];
    proptest::sample::select(SLIPS)
}

/// The text with some of its characters replaced.
fn with_slips(text: &str, slips: &[(prop::sample::Index, &str)]) -> String {
    let mut characters: Vec<_> = text.chars().map(String::from).collect();
    for (place, slip) in slips {
        let at = place.index(characters.len());
        characters[at] = (*slip).to_owned();
    }
    characters.concat()
}

fn rendered(text: &str) -> String {
    match config::load(Path::new("asterisell.toml"), text, &fake::registry()) {
        Ok(pipeline) => pipeline.warnings.render(false),
        Err(problems) => {
            assert!(!problems.is_empty());
            problems.render(false) + &problems.render(true) + &problems.to_string()
        }
    }
}

proptest! {
    #[test]
    fn no_text_is_too_much(text in "\\PC*", slips in vec((any::<prop::sample::Index>(), slip()), 1..6)) {
        rendered(&text);
        rendered(&with_slips(SOUND, &slips));
    }

    #[test]
    fn a_slip_elsewhere_shows_no_secret(slips in vec((any::<prop::sample::Index>(), slip()), 1..6)) {
        let (before, secrets) = LITERALS.split_once("url =").unwrap();
        let (secrets, after) = secrets.split_once("[flow").unwrap();
        let text = format!("{}url ={secrets}[flow{}", with_slips(before, &slips), with_slips(after, &slips));
        let shown = rendered(&text);
        prop_assert!(!shown.contains("hunter2"), "{shown}");
    }
}
