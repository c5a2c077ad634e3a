//! The contract of targets: places that saved content is restored to.

use std::collections::BTreeMap;

use async_trait::async_trait;
use secrecy::SecretString;

use crate::context::Context;
use crate::payload::Payload;
use cdrvault_format::error::{Error, Result};
use cdrvault_format::manifest::{Holding, Manifest};

/// A place that saved content is restored to.
///
/// The order of calls: `check` with everything that will come, before a byte was fetched; `restore` for each unit;
/// `finish`. A unit is restored whole or not at all, and restoring it twice is restoring it once. Only of a tree the
/// entries that can be restored are, and the others are told by `lacking`.
#[async_trait]
pub trait Target: Send + Sync {
    /// Where it is, for a person to read, without secrets.
    fn describe(&self) -> String;

    /// Whether it can take such content at all.
    fn takes(&self, holding: Holding) -> bool;

    /// Whether these can be restored there. Changes nothing that anybody sees. What a person should know before is
    /// returned; what stands in the way is an error that lists all of it.
    async fn check(&self, cx: &Context, wanted: &[Manifest]) -> Result<Vec<String>>;

    /// Makes the unit hold exactly this content, and proves it.
    async fn restore(&self, cx: &Context, manifest: &Manifest, payload: Payload) -> Result<Restored>;

    /// No more units come: these were restored, and if not `complete` others could not be. What is left to do for the user
    /// is returned.
    async fn finish(&self, cx: &Context, restored: &[Manifest], complete: bool) -> Result<Vec<String>> {
        let _ = (cx, restored, complete);
        Ok(Vec::new())
    }

    /// What of the units that were restored is not as it was saved: the dataset, and the entry and why. Asked once, after
    /// [`Target::finish`].
    fn lacking(&self) -> Vec<(String, Error)> {
        Vec::new()
    }

    /// How many units it takes at the same time. A dump is always alone.
    fn at_once(&self) -> usize {
        1
    }

    /// Whether what was restored stays when not all of it could be: the same restore again goes on from there.
    fn keeps_parts(&self) -> bool {
        true
    }
}

/// What [`Target::restore`] came to.
#[derive(Debug, Clone, Copy, PartialEq, Eq, serde::Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Restored {
    /// It holds the content now.
    Written,
    /// It held this very content before.
    Same,
}

/// What a target is told besides its text.
#[derive(Debug, Clone, Default)]
#[expect(clippy::struct_excessive_bools, reason = "independent permissions, not a state")]
pub struct TargetOptions {
    /// The password of the account.
    pub password: Option<SecretString>,
    /// Columns that the backup does not know get their defaults.
    pub missing_columns: bool,
    /// Go on although the tables have triggers or foreign keys.
    pub allow_triggers: bool,
    /// The application is not told of the days that were written.
    pub no_announce: bool,
    /// Tables of a dump get the server's default engine where theirs is TokuDB.
    pub replace_engine: bool,
    /// The accounts that a dump holds are made, too.
    pub accounts: bool,
    /// Tables that are not there are made, as the receipts describe them.
    pub create_tables: bool,
    /// Whose rights the views, routines, triggers and events of a dump work with, instead of those of their creator.
    pub definer: Option<String>,
    /// The columns that files are to have, in this order, by table.
    pub columns: BTreeMap<String, Vec<String>>,
}
