//! `local`: a vault in a directory, on a disk or on a mounted share.

mod identity;
mod options;
mod publish;
mod reading;
mod tidy;

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use async_trait::async_trait;
use cdrvault_pipeline::context::Context;
use cdrvault_pipeline::durable::{self, How};
use cdrvault_pipeline::error::{Error, Kind, Result};
use cdrvault_pipeline::manifest::{Manifest, Notes};
use cdrvault_pipeline::partition::{Partition, Unit};
use cdrvault_pipeline::payload::ObjectStream;
use cdrvault_pipeline::sink::{Capabilities, Expected, Held, Identity, Live, Sealed, Sink};
use cdrvault_pipeline::{layout, lock};

pub(crate) use options::plugin;

/// A vault in a directory.
pub(crate) struct Local {
    place: Arc<Place>,
    /// Held from `open` to `close`.
    lock: Mutex<Option<lock::Guard>>,
    spool: Mutex<Option<PathBuf>>,
}

/// The directory, and how files in it are made.
#[derive(Debug)]
pub(crate) struct Place {
    root: PathBuf,
    how: How,
    /// Whether hard links work; probed when the vault is opened.
    link: std::sync::atomic::AtomicBool,
}

impl Place {
    /// Where a name of [`layout`] is, if no symbolic link lies on the way to it: somebody could have put one there to
    /// make us write, or read, somewhere else. The last part may be a link, which is replaced or refused, not followed.
    fn at(&self, name: &str) -> Result<PathBuf> {
        let path = self.root.join(name);
        let mut part = self.root.clone();
        let above = Path::new(name).parent().into_iter().flat_map(Path::components);
        for component in above {
            part.push(component);
            match std::fs::symlink_metadata(&part) {
                Ok(found) if found.file_type().is_symlink() => {
                    return Err(Error::new(
                        Kind::Refused,
                        format!("{} is a symbolic link inside the vault", part.display()),
                    )
                    .hint("a vault has none; see who made it, and remove it"));
                }
                Ok(_) => {}
                Err(error) if error.kind() == std::io::ErrorKind::NotFound => break,
                Err(error) => return Err(Error::io("look at", &part, error)),
            }
        }
        Ok(path)
    }

    /// The same, with the directories above it.
    fn make(&self, name: &str) -> Result<PathBuf> {
        let path = self.at(name)?;
        if let Some(above) = path.parent() {
            durable::create_dirs(above, &self.how)?;
        }
        Ok(path)
    }

    fn links(&self) -> bool {
        self.link.load(std::sync::atomic::Ordering::Relaxed)
    }
}

impl Local {
    fn new(root: PathBuf, how: How) -> Self {
        // Sealed files are adopted by hard link; the spool is in the same file system.
        let link = std::sync::atomic::AtomicBool::new(true);
        Self { place: Arc::new(Place { root, how, link }), lock: Mutex::default(), spool: Mutex::default() }
    }

    /// Runs work that blocks where it may.
    async fn blocking<T: Send + 'static>(&self, work: impl FnOnce(&Place) -> Result<T> + Send + 'static) -> Result<T> {
        let place = Arc::clone(&self.place);
        let done = tokio::task::spawn_blocking(move || work(&place)).await;
        done.map_err(|died| Error::failed("work on the vault stopped unexpectedly").with_source(died))?
    }
}

#[async_trait]
impl Sink for Local {
    fn describe(&self) -> String {
        self.place.root.display().to_string()
    }

    fn capabilities(&self) -> Capabilities {
        Capabilities { conditional_put: true, hard_link: self.place.links(), native_history: false, checksum: false }
    }

    async fn open(&self, cx: &Context, expect: &Expected, dry_run: bool) -> Result<Identity> {
        let (writer, expect) = (Arc::clone(&cx.writer), expect.clone());
        let (identity, guard, spool) = self
            .blocking(move |place| {
                let checked = identity::check(place, &writer, &expect)?;
                if dry_run {
                    return Ok((checked.identity, None, None));
                }
                identity::make(place, &checked)?;
                let guard = lock::acquire(&place.at(layout::LOCK)?, Duration::ZERO)?;
                let links = durable::can_link(&place.at(layout::PRIVATE)?.join(""))?;
                place.link.store(links, std::sync::atomic::Ordering::Relaxed);
                tidy::after_unclean_end(place)?;
                let spool = place.make(&format!("{}/x", layout::spool(&writer.id)?))?;
                Ok((checked.identity, Some(guard), spool.parent().map(Path::to_owned)))
            })
            .await?;
        *self.lock.lock().unwrap_or_else(PoisonError::into_inner) = guard;
        *self.spool.lock().unwrap_or_else(PoisonError::into_inner) = spool;
        Ok(identity)
    }

    async fn index(&self, _cx: &Context, dataset: &str) -> Result<BTreeMap<Partition, Held>> {
        let dataset = dataset.to_owned();
        self.blocking(move |place| reading::index(place, &dataset)).await
    }

    async fn live(&self, _cx: &Context, unit: &Unit) -> Result<Live> {
        let unit = unit.clone();
        self.blocking(move |place| reading::live(place, &unit)).await
    }

    async fn manifest(&self, _cx: &Context, unit: &Unit, generation: u32) -> Result<Manifest> {
        let unit = unit.clone();
        self.blocking(move |place| reading::manifest(place, &unit, generation)).await
    }

    async fn publish(&self, _cx: &Context, sealed: &Sealed, over: &Live) -> Result<Manifest> {
        let (sealed, over) = (sealed.clone(), over.clone());
        self.blocking(move |place| publish::publish(place, &sealed, &over)).await
    }

    async fn read(&self, _cx: &Context, manifest: &Manifest) -> Result<ObjectStream> {
        let manifest = manifest.clone();
        self.blocking(move |place| reading::objects(place, &manifest)).await
    }

    async fn notes(&self, _cx: &Context, unit: &Unit) -> Result<Notes> {
        let unit = unit.clone();
        self.blocking(move |place| reading::notes(place, &unit)).await
    }

    async fn put_notes(&self, _cx: &Context, unit: &Unit, notes: &Notes) -> Result<()> {
        let (unit, notes) = (unit.clone(), notes.clone());
        self.blocking(move |place| publish::put_notes(place, &unit, &notes)).await
    }

    fn spool(&self) -> Option<PathBuf> {
        self.spool.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    fn free_space(&self) -> Result<Option<u64>> {
        let root = &self.place.root;
        let stat =
            rustix::fs::statvfs(root).map_err(|error| Error::io("look at the free space of", root, error.into()))?;
        Ok(Some(stat.f_bavail.saturating_mul(stat.f_frsize)))
    }

    async fn close(&self) {
        let guard = self.lock.lock().unwrap_or_else(PoisonError::into_inner).take();
        if guard.is_some() {
            // A mark that stays only costs the next run a look around.
            let _ = self.blocking(tidy::clean_end).await;
        }
    }
}
