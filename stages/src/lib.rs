//! The sources and transforms of cdrvault, one file or folder each.
//!
//! [`register`] is the only way in: it tells the registry of the kinds that there are. Benchmarks have one of their own.
//!
//! | module | holds |
//! |---|---|
//! | `ar_cdr`, `table`, `calendar`, `cells` | sources of rows: calls by day |
//! | `dump`, `files` | sources of a database without its calls, and of directory trees |
//! | `incremental`, `parquet`, `compress`, `compression` | transforms, and how what they made is decoded |
//! | `database` | MySQL and MariaDB, SQLite: sessions, snapshots, queues, dumps, restores |
//! | `targets` | where a restore goes |
//! | `blocking` | work that blocks, with bounded memory |
//! | `detached` | the session of sources that no database tells of changes |

mod ar_cdr;
mod blocking;
mod calendar;
mod cells;
mod compress;
mod compression;
mod database;
mod detached;
mod dump;
mod files;
mod incremental;
mod parquet;
mod table;
mod targets;

use cdrvault_plugin::registry::Registry;

#[doc(hidden)]
pub use database::mysql::bench;

/// Adds every database, source and transform of this crate.
pub fn register(registry: &mut Registry) {
    registry.databases.extend(database::plugins());
    registry.sources.extend(ar_cdr::plugins());
    registry.sources.extend([files::plugin(), dump::plugin()]);
    registry.targets.extend(targets::plugins());
    registry.codecs.add(parquet::Rows);
    registry.codecs.add(compress::Zstd);
    registry.transforms.extend([incremental::plugin(), parquet::plugin(), compress::plugin()]);
}
