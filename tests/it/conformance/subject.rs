//! A sink under test, and the place where it delivers to.

use std::any::Any;
use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use cdrvault_engine::config;
use cdrvault_engine::retry::Retrying;
use cdrvault_format::error::Result;
use cdrvault_format::manifest::Manifest;
use cdrvault_format::partition::{Partition, Unit};
use cdrvault_plugin::context::{Context, Writer};
use cdrvault_plugin::payload::Body;
use cdrvault_plugin::progress::Quiet;
use cdrvault_plugin::registry::Around;
use cdrvault_plugin::sink::{Expected, Live, Sealed, Vault};
use futures::TryStreamExt as _;
use object_store::aws::AmazonS3;
use object_store::{ObjectStore as _, ObjectStoreExt as _};

use crate::services::files;

/// A sink under test.
#[expect(clippy::struct_excessive_bools, reason = "independent facts of a place, not a state")]
pub(crate) struct Subject {
    pub(crate) home: tempfile::TempDir,
    /// The other end, looked at without the sink.
    pub(crate) far: Far,
    /// Makes what comes from the sink fail halfway, and lets it go again.
    pub(crate) fault: Option<Box<dyn Fn(bool)>>,
    pub(crate) mirror: bool,
    /// Each publishing is a session of seconds.
    pub(crate) slow: bool,
    /// What was written there tells what time it is there.
    pub(crate) tells_time: bool,
    /// It is held to 40 MiB a second.
    pub(crate) limited: bool,
    /// The longest object.
    pub(crate) largest: usize,
    _servers: Vec<Box<dyn Any>>,
}

/// Where the vault really is.
pub(crate) enum Far {
    Directory(PathBuf),
    Bucket(Box<AmazonS3>, String),
}

impl Far {
    pub(crate) async fn get(&self, name: &str) -> Option<Vec<u8>> {
        match self {
            Self::Directory(root) => std::fs::read(root.join(name)).ok(),
            Self::Bucket(store, prefix) => {
                let got = store.get(&key(&format!("{prefix}/{name}"))).await.ok()?;
                Some(got.bytes().await.ok()?.to_vec())
            }
        }
    }

    pub(crate) async fn names(&self) -> BTreeSet<String> {
        match self {
            Self::Directory(root) => {
                let names =
                    files(root).into_iter().map(|path| path.strip_prefix(root).unwrap().to_str().unwrap().to_owned());
                names.filter(|name| !name.starts_with("rdiff-backup-data/")).collect()
            }
            Self::Bucket(store, prefix) => {
                let listed: Vec<_> = store.list(Some(&key(prefix))).try_collect().await.unwrap();
                let start = prefix.len() + 1;
                listed.iter().map(|meta| meta.location.as_ref()[start..].to_owned()).collect()
            }
        }
    }
}

pub(crate) fn key(name: &str) -> object_store::path::Path {
    object_store::path::Path::parse(name).unwrap()
}

/// A dataset of every legal kind of character.
pub(crate) const ODD: &str = "0A_z.9-x";

impl Subject {
    /// `sinks` defines `[sink.subject.KIND]`, and for a mirror `[sink.vault.local]` with `path = "vault"`.
    pub(crate) fn new(sinks: &str, far: Far, servers: Vec<Box<dyn Any>>) -> Self {
        let home = tempfile::Builder::new().prefix("cdrvault-conformance").tempdir().unwrap();
        let mirror = sinks.contains("mirror = ");
        let listed = if mirror { "[\"vault\", \"subject\"]" } else { "[\"subject\"]" };
        let flow = |name: &str| format!("[flow.\"{name}\"]\nsource.files = {{ path = \"in\" }}\nsinks = {listed}\n");
        let text = format!("name = \"conformance\"\nstate = \"state\"\n{sinks}\n{}{}", flow("data"), flow(ODD));
        std::fs::write(home.path().join("pipeline.toml"), text).unwrap();
        Self {
            home,
            far,
            fault: None,
            mirror,
            slow: false,
            tells_time: false,
            limited: false,
            largest: 200 << 20,
            _servers: servers,
        }
    }

    pub(crate) fn context(&self) -> Context {
        let writer = Writer {
            pipeline: "conformance".to_owned(),
            id: "0badcafe".to_owned(),
            timezone: jiff::tz::TimeZone::UTC,
            state: self.home.path().join("state"),
        };
        Context {
            cancel: tokio_util::sync::CancellationToken::new(),
            progress: Arc::new(Quiet),
            writer: Arc::new(writer),
            scratch: None,
        }
    }

    pub(crate) async fn open(&self) -> Result<Place> {
        self.open_in(self.home.path()).await
    }

    /// The same from another directory: another vault that is mirrored, and the same far end.
    pub(crate) async fn open_in(&self, home: &Path) -> Result<Place> {
        let cx = self.context();
        let pipeline = config::open(&home.join("pipeline.toml"), &cdrvault::registry())?;
        let mut mirrored = None;
        let mut identity = None;
        if self.mirror {
            let vault = pipeline.sink("vault").unwrap().build.build(&Around::default())?;
            identity = Some(vault.open(&cx, &Expected::default(), false).await?);
            mirrored = Some(vault);
        }
        let around =
            Around { datasets: vec!["data".to_owned(), ODD.to_owned()], mirrored: mirrored.as_ref().map(Arc::clone) };
        let sink = pipeline.sink("subject").unwrap().build.build(&around)?;
        let sink: Arc<dyn Vault> = Arc::new(Retrying(sink));
        let expect = Expected { mirrored: identity, ..Expected::default() };
        match sink.open(&cx, &expect, false).await {
            Ok(_) => Ok(Place { cx, sink, mirrored }),
            Err(error) => {
                if let Some(vault) = mirrored {
                    vault.close().await;
                }
                Err(error)
            }
        }
    }
}

/// An open sink, and the vault that it mirrors if it is a mirror.
pub(crate) struct Place {
    pub(crate) cx: Context,
    pub(crate) sink: Arc<dyn Vault>,
    pub(crate) mirrored: Option<Arc<dyn Vault>>,
}

impl Place {
    /// Publishes without a flush.
    pub(crate) async fn note(&self, sealed: &Sealed, over: &Live) -> Result<Manifest> {
        if let Some(vault) = &self.mirrored {
            let live = vault.live(&self.cx, &sealed.manifest.unit).await?;
            vault.publish(&self.cx, sealed, &live).await?;
        }
        self.sink.publish(&self.cx, sealed, over).await
    }

    pub(crate) async fn publish(&self, sealed: &Sealed, over: &Live) -> Result<Manifest> {
        let receipt = self.note(sealed, over).await?;
        self.flush().await?;
        Ok(receipt)
    }

    /// What was published reaches a mirror by this.
    pub(crate) async fn flush(&self) -> Result<()> {
        match self.sink.mirror() {
            Some(mirror) => mirror.flush(&self.cx).await,
            None => Ok(()),
        }
    }

    pub(crate) async fn publish_next(&self, sealed: &Sealed) -> Result<Manifest> {
        let live = self.live(&sealed.manifest.unit).await;
        self.publish(sealed, &live).await
    }

    pub(crate) async fn live(&self, unit: &Unit) -> Live {
        self.sink.live(&self.cx, unit).await.unwrap()
    }

    pub(crate) async fn content(&self, manifest: &Manifest) -> Result<Vec<u8>> {
        let objects: Vec<_> = self.sink.read(&self.cx, manifest).await?.try_collect().await?;
        assert_eq!(objects.len(), 1);
        match objects.into_iter().next().unwrap().body {
            Body::File(path) => Ok(std::fs::read(path).unwrap()),
            Body::Stream(bytes) => Ok(bytes.try_collect::<Vec<_>>().await?.concat()),
            _ => panic!("an object without a body"),
        }
    }

    pub(crate) async fn close(self) {
        self.sink.close().await;
        if let Some(vault) = self.mirrored {
            vault.close().await;
        }
    }
}

pub(crate) fn day(dataset: &str, day: &str) -> Unit {
    Unit::new(dataset, Partition::Day(day.parse().unwrap()))
}
