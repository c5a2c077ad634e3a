//! The objects of a generation as local files, whose checksums hold.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::Write as _;
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use futures::{StreamExt as _, TryStreamExt as _, stream};
use sha2::{Digest as _, Sha256};

use cdrvault_format::durable;
use cdrvault_format::entry::{Entry, StoredBody};
use cdrvault_format::error::{At as _, Error, Kind, Result};
use cdrvault_format::hash::hash_file;
use cdrvault_format::layout;
use cdrvault_format::manifest::{Content, Manifest, StoredObject};
use cdrvault_plugin::context::Context;
use cdrvault_plugin::payload::{Body, ByteStream, Object, ObjectStream};
use cdrvault_plugin::scratch::Scratch;
use cdrvault_plugin::sink::Vault;

/// A generation whose objects lie in local files: those of a local vault, or copies in a temporary directory.
pub struct Fetched {
    /// What they are.
    pub manifest: Manifest,
    /// By SHA-256.
    bodies: BTreeMap<String, PathBuf>,
    /// Which files those of a vault are: a run may replace what lies under their names.
    seen: BTreeMap<String, Inode>,
    scratch: Option<Scratch>,
}

impl Fetched {
    /// Reads every byte of a generation once and compares the checksums. What does not lie here is kept in a
    /// temporary directory until this is dropped.
    pub async fn fetch(cx: &Context, sink: &Arc<dyn Vault>, manifest: Manifest) -> Result<Self> {
        let unit = manifest.unit.clone();
        let mut tries = 0;
        loop {
            tries += 1;
            let manifest = manifest.clone();
            let mut fetched = Self { manifest, bodies: BTreeMap::new(), seen: BTreeMap::new(), scratch: None };
            match fetched.bring(cx, sink).await {
                // A run may have moved it while it was read: then it has the name of a version now.
                Err(error) if error.kind() == Kind::Damaged && sink.root().is_some() && tries < TRIES => {}
                Err(error) => return Err(error).at(unit),
                Ok(()) => return Ok(fetched),
            }
        }
    }

    async fn bring(&mut self, cx: &Context, sink: &Arc<dyn Vault>) -> Result<()> {
        let mut objects = sink.read(cx, &self.manifest).await?;
        while let Some(Object { entry, body }) = cx.unless_cancelled(objects.try_next()).await? {
            let wanted = match (&self.manifest.content, &entry.stored) {
                (Content::Object(object), _) => object.sha256.clone(),
                (Content::Tree { .. }, Some(stored)) => stored.sha256.clone(),
                (Content::Tree { .. }, None) => continue,
            };
            if self.bodies.contains_key(&wanted) {
                continue;
            }
            let (path, sha256) = match body {
                Body::File(path) => {
                    let reading = path.clone();
                    let hashed = tokio::task::spawn_blocking(move || hash_held(&reading));
                    let (sha256, inode) = hashed.await.map_err(stopped)??;
                    self.seen.insert(wanted.clone(), inode);
                    (path, sha256)
                }
                Body::Stream(bytes) => {
                    let path = self.next_file(cx)?;
                    let sha256 = write(cx, bytes, &path).await?;
                    (path, sha256)
                }
                Body::None | Body::Unchanged | Body::Withdrawn => continue,
            };
            if sha256 != wanted {
                return Err(Error::new(Kind::Damaged, format!("the checksum of `{}` is wrong", entry.path.display())));
            }
            self.bodies.insert(wanted, path);
        }
        match self.missing() {
            None => Ok(()),
            Some(sha256) => Err(Error::new(Kind::Damaged, format!("the object {sha256} is missing"))),
        }
    }

    fn missing(&self) -> Option<&str> {
        let absent = |sha256: &&str| !self.bodies.contains_key(*sha256);
        match &self.manifest.content {
            Content::Object(object) => Some(object.sha256.as_str()).filter(absent),
            Content::Tree { entries } => {
                entries.iter().filter_map(|entry| entry.stored.as_ref()).map(|s| s.sha256.as_str()).find(absent)
            }
        }
    }

    fn next_file(&mut self, cx: &Context) -> Result<PathBuf> {
        let number = self.bodies.len();
        let scratch = match &mut self.scratch {
            Some(scratch) => scratch,
            none => none.insert(Scratch::new(cx)?),
        };
        Ok(scratch.path().join(format!("body-{number:08}")))
    }

    /// Opens it to be read. A `NotFound` says that a run has replaced or removed it since it was fetched.
    pub fn open(&self) -> Result<Reading<'_>> {
        let held = match &self.manifest.content {
            Content::Object(object) => self.held(object)?,
            // Bodies have the names of their hashes, and nothing takes their place.
            Content::Tree { .. } => None,
        };
        Ok(Reading { fetched: self, held })
    }

    /// The very file that was hashed, held open, and a path to it: under its own name, or under that of a version. `None`
    /// where it is a copy of our own.
    fn held(&self, object: &StoredObject) -> Result<Option<(File, PathBuf)>> {
        let (Some(path), Some(inode)) = (self.bodies.get(&object.sha256), self.seen.get(&object.sha256)) else {
            return Ok(None);
        };
        let same = |path: &Path| {
            let file = durable::open(path).ok()?.filter(|file| Inode::of(file).is_ok_and(|it| it == *inode))?;
            Some((file, path.to_owned()))
        };
        let version = || {
            let root = path.to_str()?.strip_suffix(&object.path)?;
            let version = layout::version(&self.manifest.unit, self.manifest.generation, &object.sha256).ok()?;
            let version = Path::new(root).join(version);
            // A copy, where there are no links.
            same(&version).or_else(|| {
                let copied = hash_file(&version, u64::MAX).is_ok_and(|hashes| hashes.whole == object.sha256);
                if copied { Some((durable::open(&version).ok()??, version)) } else { None }
            })
        };
        let Some((file, path)) = same(path).or_else(version) else {
            let (unit, generation) = (&self.manifest.unit, self.manifest.generation);
            let message = format!("{unit} generation {generation} was replaced or removed since it was read");
            return Err(Error::new(Kind::NotFound, message).hint(AGAIN));
        };
        let path = path_of(&file, &path);
        Ok(Some((file, path)))
    }

    /// The files, by SHA-256.
    pub fn bodies(&self) -> &BTreeMap<String, PathBuf> {
        &self.bodies
    }
}

/// A generation that is being read: as long as this lives, its files are those that were hashed.
pub struct Reading<'a> {
    fetched: &'a Fetched,
    /// That of a vault, under whose name a run may put another one.
    held: Option<(File, PathBuf)>,
}

impl Reading<'_> {
    /// The objects as they are stored.
    pub fn objects(&self) -> Result<ObjectStream> {
        let body = |sha256: &str| -> Result<Body> {
            let path = self.held.as_ref().map(|(_, path)| path).or_else(|| self.fetched.bodies.get(sha256));
            Ok(Body::File(path.ok_or_else(|| Error::failed("a body was not fetched"))?.clone()))
        };
        let mut objects = Vec::new();
        match &self.fetched.manifest.content {
            Content::Object(object) => {
                let mut entry = Entry::object(object.path.rsplit('/').next().unwrap_or(&object.path));
                let stored = StoredBody {
                    sha256: object.sha256.clone(),
                    bytes: object.bytes,
                    encodings: object.encodings.clone(),
                };
                entry.stored = Some(stored);
                objects.push(Ok(Object { entry, body: body(&object.sha256)? }));
            }
            Content::Tree { entries } => {
                for entry in entries {
                    let body = match &entry.stored {
                        Some(stored) => body(&stored.sha256)?,
                        None => Body::None,
                    };
                    objects.push(Ok(Object { entry: entry.clone(), body }));
                }
            }
        }
        Ok(stream::iter(objects).boxed())
    }
}

/// What helps when a run was faster.
pub(super) const AGAIN: &str = "restore again: what is kept now is chosen anew";

/// Which file it is, and that nobody wrote into it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Inode {
    device: u64,
    number: u64,
    length: u64,
    modified: (i64, i64),
}

impl Inode {
    fn of(file: &File) -> std::io::Result<Self> {
        use std::os::unix::fs::MetadataExt as _;
        let found = file.metadata()?;
        let modified = (found.mtime(), found.mtime_nsec());
        Ok(Self { device: found.dev(), number: found.ino(), length: found.len(), modified })
    }
}

/// Hashes a file, and tells which one it was.
fn hash_held(path: &Path) -> Result<(String, Inode)> {
    let file = durable::open(path)?;
    let file = file.ok_or_else(|| Error::new(Kind::Damaged, format!("{} went away", path.display())))?;
    let hashes = hash_file(&path_of(&file, path), u64::MAX)?;
    let inode = Inode::of(&file).map_err(|error| Error::io("look at", path, error))?;
    Ok((hashes.whole, inode))
}

/// The path under which this process can open the very same file again: see proc(5). Where that is not mounted, as in a
/// bare chroot, it is the file's own, under which a run may put another one meanwhile.
fn path_of(file: &File, path: &Path) -> PathBuf {
    use std::os::fd::AsRawFd as _;
    let held = PathBuf::from(format!("/proc/self/fd/{}", file.as_raw_fd()));
    if held.exists() { held } else { path.to_owned() }
}

/// So often a local object is looked for, if a run may have moved it.
const TRIES: u32 = 2;

/// Drains a stream into a new file; gives the SHA-256 of what came.
async fn write(cx: &Context, mut bytes: ByteStream, path: &Path) -> Result<String> {
    let failed = |error| Error::io("write", path, error).hint("name a place with enough room by --scratch DIRECTORY");
    let mut file = File::options().write(true).create_new(true).mode(0o600).open(path).map_err(failed)?;
    let mut hash = Sha256::new();
    while let Some(chunk) = cx.unless_cancelled(bytes.try_next()).await? {
        tokio::task::block_in_place(|| {
            hash.update(&chunk);
            file.write_all(&chunk)
        })
        .map_err(failed)?;
    }
    Ok(hex::encode(hash.finalize()))
}

fn stopped(died: tokio::task::JoinError) -> Error {
    Error::failed("reading stopped unexpectedly").with_source(died)
}
