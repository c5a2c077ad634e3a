#![allow(clippy::disallowed_methods, clippy::assigning_clones, reason = "tests may write files as they like")]
mod changing;
mod tree;

use std::collections::BTreeMap;
use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt as _;
use std::os::unix::process::CommandExt as _;
use std::path::{Path, PathBuf};
use std::process::Command;

use bytes::Bytes;
use cdrvault_format::entry::{Entry, EntryKind, RawPath, StoredBody};
use cdrvault_format::error::Kind;
use cdrvault_format::fingerprint;
use cdrvault_format::manifest::{Content, FORMAT, Manifest, Origin};
use cdrvault_format::partition::{Partition, Unit};
use cdrvault_plugin::context::Writer;
use cdrvault_plugin::notice::{Level, Notices};
use cdrvault_plugin::payload::{Body, Object, ObjectStream};
use cdrvault_plugin::progress::Quiet;
use futures::{StreamExt as _, TryStreamExt as _};
use jiff::Timestamp;
use tokio_util::sync::CancellationToken;

use super::*;

/// A source on a temporary tree, and what it said of it.
struct Trial {
    directory: tempfile::TempDir,
    tree: Tree,
    cx: Context,
    notices: Notices,
}

/// What a consumer that keeps the contract holds in the end.
type Saved = BTreeMap<String, (Entry, Saving)>;

#[derive(Debug, Clone, PartialEq, Eq)]
enum Saving {
    Nothing,
    Bytes(Vec<u8>),
    Unchanged,
}

impl Trial {
    /// `options` are TOML, without `path`.
    fn new(options: &str) -> Self {
        let directory = tempfile::tempdir().unwrap();
        Self::on(directory.path().to_owned(), directory, options)
    }

    fn on(path: PathBuf, directory: tempfile::TempDir, options: &str) -> Self {
        let options = options_of(&path, options);
        let tree = Tree {
            selection: Arc::new(Selection::new(&options.include, &options.exclude).unwrap()),
            one_file_system: options.one_file_system,
            leave_out: Vec::new(),
            path,
        };
        Self { directory, tree, cx: context(), notices: Notices::default() }
    }

    fn path(&self, name: impl AsRef<OsStr>) -> PathBuf {
        self.directory.path().join(Path::new(name.as_ref()))
    }

    fn write(&self, name: impl AsRef<OsStr>, bytes: impl AsRef<[u8]>) {
        let path = self.path(name);
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        std::fs::write(path, bytes).unwrap();
    }

    async fn objects(&self, previous: Option<Manifest>) -> ObjectStream {
        let (source, session) = self.tree.build("etc", None).unwrap();
        source.check(&self.cx).await.unwrap();
        let snapshot = session.snapshot(&self.cx).await.unwrap();
        let partition = source.discover(&self.cx, &Ask::default()).await.unwrap().remove(0).partition;
        let what = Read {
            partition,
            previous: previous.map(Arc::new),
            compared_with: Vec::new(),
            notices: self.notices.clone(),
        };
        match source.read(&self.cx, &snapshot, &what).await.unwrap() {
            Payload::Objects(objects) => objects,
            Payload::Rows(_) => panic!("rows"),
        }
    }

    async fn save(&self) -> Saved {
        save(self.objects(None).await).await.unwrap()
    }

    async fn names(&self) -> Vec<String> {
        self.save().await.into_keys().collect()
    }

    fn counts(&self) -> [u64; 3] {
        [Level::Note, Level::Warning, Level::Problem].map(|level| self.notices.count(level))
    }

    fn said(&self) -> String {
        self.notices.list().into_iter().map(|notice| notice.message + "\n").collect()
    }
}

fn options_of(path: &Path, options: &str) -> Options {
    let path = serde_json::to_value(path.to_str().unwrap()).unwrap();
    let mut value: serde_json::Value = serde_json::from_str(&format!("{{{options}}}")).unwrap();
    value["path"] = path;
    serde_json::from_value(value).unwrap()
}

fn context() -> Context {
    let writer = Writer {
        pipeline: "test".into(),
        id: "00000000".into(),
        timezone: jiff::tz::TimeZone::UTC,
        state: PathBuf::new(),
    };
    Context { cancel: CancellationToken::new(), progress: Arc::new(Quiet), writer: Arc::new(writer), scratch: None }
}

/// Consumes a tree as the engine does.
async fn save(objects: ObjectStream) -> Result<Saved> {
    save_and(objects, || ()).await
}

/// As [`save`], with something to do after each chunk.
async fn save_and(mut objects: ObjectStream, mut act: impl FnMut()) -> Result<Saved> {
    let mut saved = Saved::new();
    let mut order: Vec<RawPath> = Vec::new();
    while let Some(Object { entry, body }) = objects.try_next().await? {
        let key = entry.path.display();
        let again = order.last() == Some(&entry.path);
        assert!(again || order.last().is_none_or(|last| *last < entry.path), "{key} comes too late");
        let content = match body {
            Body::Stream(bytes) => {
                let bytes: Vec<Bytes> = bytes.inspect(|_| act()).try_collect().await?;
                Saving::Bytes(bytes.concat())
            }
            Body::None => Saving::Nothing,
            Body::Unchanged => Saving::Unchanged,
            Body::Withdrawn => {
                assert!(again);
                saved.remove(&key);
                continue;
            }
            Body::File(_) => panic!("a file"),
        };
        assert_eq!(content == Saving::Nothing, entry.kind != EntryKind::File);
        order.push(entry.path.clone());
        saved.insert(key, (entry, content));
    }
    Ok(saved)
}

/// The generation that the engine would make of it, its snapshot opened at `opened`.
fn manifest(saved: &Saved, opened: Timestamp) -> Manifest {
    let mut entries: Vec<Entry> = saved.values().map(|(entry, _)| entry.clone()).collect();
    for entry in entries.iter_mut().filter(|entry| entry.kind == EntryKind::File) {
        entry.sha256 = Some(format!("hash of {}", entry.path.display()));
        entry.stored = Some(StoredBody { sha256: "stored".into(), bytes: 1, encodings: vec!["zstd".into()] });
    }
    entries.sort_by(|a, b| a.path.cmp(&b.path));
    Manifest {
        format: FORMAT,
        unit: Unit::new("etc", Partition::Snapshot),
        generation: 1,
        rows: entries.len() as u64,
        fingerprint: fingerprint::of_entries(&entries),
        content: Content::Tree { entries },
        tripwire: None,
        columns: Vec::new(),
        table: None,
        origin: Origin {
            pipeline: "test".into(),
            writer: "00000000".into(),
            source: "files:/".into(),
            snapshot: opened,
            reasons: Vec::new(),
            version: "0".into(),
        },
        open: false,
        incomplete: false,
        sealed: opened,
        received: None,
        replaced: None,
    }
}

/// The exit status that says that the circumstances cannot be had.
const CANNOT: i32 = 99;

/// Runs a test of this binary again under other circumstances, which it knows by [`given`]. `None`, with the reason on stderr, where these
/// cannot be had.
fn again(test: &str, directory: &Path, circumstances: impl FnOnce(Command) -> Command) -> Option<()> {
    if !rustix::process::geteuid().is_root() {
        eprintln!("skipped: {test} needs root");
        return None;
    }
    // Others may not enter where the binary lies.
    let binary = directory.with_file_name(format!("{}-test", directory.file_name()?.to_str()?));
    std::fs::copy(std::env::current_exe().unwrap(), &binary).unwrap();
    let mut command = circumstances(Command::new(&binary));
    command.args(["--exact", test]).env("CDRVAULT_TEST_DIRECTORY", directory).current_dir("/");
    let output = command.output();
    std::fs::remove_file(&binary).unwrap();
    let output = output.unwrap();
    if output.status.code() == Some(CANNOT) {
        eprintln!("skipped: {test} may not do here what it needs");
        return None;
    }
    let text = String::from_utf8_lossy(&output.stdout).into_owned() + &String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{text}");
    assert!(text.contains("1 passed"), "{text}");
    Some(())
}

/// The tree of a test that runs [`again`].
fn given() -> Option<PathBuf> {
    std::env::var_os("CDRVAULT_TEST_DIRECTORY").map(PathBuf::from)
}
