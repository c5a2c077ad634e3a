//! `local`: a vault in a directory, on a disk or on a mounted share.

mod options;
mod place;
mod tidy;

use std::collections::BTreeMap;
use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};

use async_trait::async_trait;
use cdrvault_format::durable::{self, How};
use cdrvault_format::error::{Error, Kind, Result};
use cdrvault_format::layout;
use cdrvault_plugin::context::Writer;
use cdrvault_plugin::lock;
use cdrvault_plugin::payload::Body;
use cdrvault_plugin::sink::Capabilities;

use crate::vault::{Seen, Store, StoredVault};
use place::{Place, hash, is_file, names_in};

pub(crate) use options::plugin;

/// What of a vault lies in this directory, to be read.
pub(crate) fn vault_in(directory: &Path) -> StoredVault<Local> {
    StoredVault::new(Local::new(directory.to_owned(), How::private()))
}

/// A directory that holds a vault.
pub(crate) struct Local {
    place: Arc<Place>,
    /// Held from `begin` to `end`.
    lock: Mutex<Option<lock::Guard>>,
    spool: Mutex<Option<PathBuf>>,
    clock_offset: Mutex<Option<i64>>,
}

impl Local {
    fn new(root: PathBuf, how: How) -> Self {
        Self {
            place: Arc::new(Place::new(root, how)),
            lock: Mutex::default(),
            spool: Mutex::default(),
            clock_offset: Mutex::default(),
        }
    }

    /// Runs work that blocks where it may.
    async fn blocking<T: Send + 'static>(&self, work: impl FnOnce(&Place) -> Result<T> + Send + 'static) -> Result<T> {
        let place = Arc::clone(&self.place);
        let done = tokio::task::spawn_blocking(move || work(&place)).await;
        done.map_err(|died| Error::failed("work on the vault stopped unexpectedly").with_source(died))?
    }
}

#[async_trait]
impl Store for Local {
    fn describe(&self) -> String {
        self.place.root.display().to_string()
    }

    fn capabilities(&self) -> Capabilities {
        Capabilities { conditional_put: true, hard_link: self.place.links(), ..Capabilities::default() }
    }

    async fn check_place(&self) -> Result<()> {
        let root = &self.place.root;
        let above = root.parent().unwrap_or(Path::new("/"));
        if root.exists() || above.as_os_str().is_empty() || above.is_dir() {
            return Ok(());
        }
        Err(Error::new(
            Kind::Refused,
            format!("cannot make the vault {}: there is no directory {}", root.display(), above.display()),
        )
        .hint("is the disk mounted? If so, make the directory first"))
    }

    async fn check_writable(&self) -> Result<()> {
        let mut root = self.place.root.as_path();
        // The vault's own directory is still to be made.
        if !root.exists() {
            root = root.parent().filter(|above| !above.as_os_str().is_empty()).unwrap_or(Path::new("."));
        }
        rustix::fs::access(root, rustix::fs::Access::WRITE_OK)
            .map_err(|error| Error::io("write into the vault", root, error.into()))
    }

    async fn begin(&self, writer: &Writer) -> Result<()> {
        let spool = layout::spool(&writer.id)?;
        let (guard, spool, offset) = self
            .blocking(move |place| {
                let guard = lock::acquire(&place.make(layout::LOCK)?)?;
                place.probe_links()?;
                let offset = tidy::after_unclean_end(place)?;
                let spool = place.make(&format!("{spool}/x"))?;
                Ok((guard, spool.parent().map(Path::to_owned), offset))
            })
            .await?;
        *self.lock.lock().unwrap_or_else(PoisonError::into_inner) = Some(guard);
        *self.spool.lock().unwrap_or_else(PoisonError::into_inner) = spool;
        *self.clock_offset.lock().unwrap_or_else(PoisonError::into_inner) = offset;
        Ok(())
    }

    async fn end(&self) {
        let guard = self.lock.lock().unwrap_or_else(PoisonError::into_inner).take();
        if guard.is_some() {
            // A mark that stays only costs the next run a look around.
            let _ = self.blocking(tidy::clean_end).await;
        }
    }

    async fn names(&self, directory: &str) -> Result<Vec<String>> {
        let directory = directory.to_owned();
        self.blocking(move |place| names_in(&place.at(&directory)?)).await
    }

    async fn tree(&self, directory: &str) -> Result<BTreeMap<String, u64>> {
        let directory = directory.to_owned();
        self.blocking(move |place| place.tree(&directory)).await
    }

    async fn length(&self, name: &str) -> Result<Option<u64>> {
        let name = name.to_owned();
        self.blocking(move |place| place.length(&name)).await
    }

    async fn look(&self, name: &str) -> Result<Option<Seen>> {
        let name = name.to_owned();
        self.blocking(move |place| place.look(&name)).await
    }

    async fn may_be(&self, _name: &str, _sha256: &str) -> Result<bool> {
        Ok(true)
    }

    async fn small(&self, name: &str) -> Result<Option<Vec<u8>>> {
        let name = name.to_owned();
        self.blocking(move |place| place::read_small(&place.at(&name)?)).await
    }

    async fn create(&self, name: &str, content: Vec<u8>) -> Result<()> {
        let name = name.to_owned();
        self.blocking(move |place| {
            let path = place.make(&name)?;
            durable::create(&path, &place.how, |file| file.write_all(&content))
        })
        .await
    }

    async fn replace(&self, name: &str, content: Vec<u8>) -> Result<()> {
        let name = name.to_owned();
        self.blocking(move |place| {
            let path = place.make(&name)?;
            durable::replace(&path, &place.how_later_than(&path), |file| file.write_all(&content))
        })
        .await
    }

    // We hold the vault's lock: nobody else replaces anything meanwhile.
    async fn put(&self, file: &Path, name: &str, sha256: &str, _over: Option<&Seen>) -> Result<()> {
        let (file, name, sha256) = (file.to_owned(), name.to_owned(), sha256.to_owned());
        self.blocking(move |place| {
            let path = place.make(&name)?;
            // What is renamed into place is this very file: it is checked before anybody can see it.
            durable::adopt_checked(&file, &path, &place.how_later_than(&path), place.links(), |written| {
                if hash(written)? == sha256 {
                    return Ok(());
                }
                Err(Error::new(Kind::Damaged, format!("what was to become {} is damaged", path.display()))
                    .hint("check the disk and the memory of this machine"))
            })
        })
        .await
    }

    // We hold the vault's lock: `from` is what it was.
    async fn keep(&self, from: &str, to: &str, seen: &Seen) -> Result<()> {
        let (from, to, sha256) = (from.to_owned(), to.to_owned(), seen.sha256.clone());
        self.blocking(move |place| {
            let (from, to) = (place.at(&from)?, place.make(&to)?);
            if is_file(&to) {
                if hash(&to)? == sha256 {
                    return Ok(());
                }
                durable::remove(&to)?;
            }
            durable::keep(&from, &to, place.links())?;
            // Where there are no links it is a copy, and a lock on a share may not be one.
            if hash(&to)? == sha256 {
                return Ok(());
            }
            durable::remove(&to)?;
            Err(Error::new(Kind::Conflict, format!("{} was changed while it was kept", from.display()))
                .hint("another run writes into this vault; see which, and let only one do it"))
        })
        .await
    }

    async fn body(&self, name: &str, sha256: &str) -> Result<Body> {
        let (name, sha256) = (name.to_owned(), sha256.to_owned());
        self.blocking(move |place| {
            let path = place.at(&name)?;
            if is_file(&path) && hash(&path)? == sha256 {
                return Ok(Body::File(path));
            }
            Err(Error::new(Kind::Damaged, format!("{} is missing or damaged", path.display())))
        })
        .await
    }

    async fn remove(&self, name: &str) -> Result<()> {
        let name = name.to_owned();
        self.blocking(move |place| {
            let path = place.at(&name)?;
            durable::remove(&path)?;
            match path.parent() {
                Some(above) if above.is_dir() => durable::sync_dir(above),
                _ => Ok(()),
            }
        })
        .await
    }

    fn root(&self) -> Option<&Path> {
        Some(&self.place.root)
    }

    fn spool(&self) -> Option<PathBuf> {
        self.spool.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    fn clock_offset(&self) -> Option<i64> {
        *self.clock_offset.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn free_space(&self) -> Result<Option<u64>> {
        let root = &self.place.root;
        let stat =
            rustix::fs::statvfs(root).map_err(|error| Error::io("look at the free space of", root, error.into()))?;
        Ok(Some(stat.f_bavail.saturating_mul(stat.f_frsize)))
    }
}
