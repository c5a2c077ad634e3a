//! Realistic calls of an Asterisell instance, for the demo, the tests and the benchmarks.
//!
//! The same seed, day and volume give the same calls, byte for byte, on every machine. A day is generated as a stream in the
//! order of its calls, so that one of ten million calls needs no more memory than one of a hundred.
//!
//! | file | what it knows |
//! |---|---|
//! | `traffic` | how many calls a day has, and when |
//! | `population` | who calls: resellers, customers, extensions |
//! | `destinations` | whom they call, and what it costs |
//! | `native` | how a VoIP server writes a call down |
//! | `calls` | the calls of a day |
//! | `rerating` | the same calls, rated again |
//! | `row` | the rows as lists of values, for code that writes them |
//! | [`sqlite`], [`mysql`], [`csv`] | the writers |

mod calls;
mod cdr;
pub mod csv;
mod destinations;
mod hash;
mod money;
pub mod mysql;
mod native;
mod population;
mod rerating;
mod row;
mod settings;
pub mod sqlite;
mod traffic;
mod weights;

pub use calls::{Calls, Rated};
pub use cdr::{Cdr, SourceCdr};
use jiff::civil::Date;
pub use money::MONEY_SCALE;
use population::Population;
pub use rerating::Rerating;
pub use row::{Row, Value};
pub use settings::Settings;

/// Makes days of calls.
#[derive(Debug)]
pub struct Generator {
    settings: Settings,
    population: Population,
}

/// The rows of one day, in the order of their calls.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Day {
    /// The rows of `ar_cdr`.
    pub cdrs: Vec<Cdr>,
    /// The rows of `ar_source_cdr`.
    pub source_cdrs: Vec<SourceCdr>,
}

impl Generator {
    /// Invents the customers.
    pub fn new(settings: Settings) -> Self {
        Self { settings, population: Population::new(settings.seed, settings.calls_per_day) }
    }

    /// How many calls the VoIP servers sent on a day. `ar_cdr` has a few rows more: services, and the second leg of redirected
    /// calls.
    pub fn volume(&self, date: Date) -> u64 {
        traffic::volume(&self.settings, date)
    }

    /// The calls of a day, as a stream.
    pub fn calls(&self, date: Date) -> Calls<'_> {
        self.exactly(date, self.volume(date))
    }

    /// The calls of a day that has just so many, whatever its usual volume.
    pub fn exactly(&self, date: Date, calls: u64) -> Calls<'_> {
        Calls::new(self.settings.seed, &self.population, date, calls)
    }

    /// The calls of a day, in memory.
    pub fn day(&self, date: Date) -> Day {
        self.calls(date).collect()
    }

    /// The same calls after the rates changed for a third of them.
    pub fn rerate(&self, day: &Day, round: u32) -> Day {
        let rerating = self.rerating(round, 33);
        let mut rerated = day.clone();
        rerated.cdrs.iter_mut().for_each(|cdr| rerating.apply(cdr));
        rerated
    }

    /// A re-rating, for streams: it gives each row a new `id`, and so many per cent of the rows new rates.
    pub fn rerating(&self, round: u32, percent: u8) -> Rerating {
        Rerating::new(self.settings.seed, round, percent)
    }
}

impl FromIterator<Rated> for Day {
    fn from_iter<I: IntoIterator<Item = Rated>>(calls: I) -> Self {
        let mut day = Self::default();
        for rated in calls {
            day.source_cdrs.extend(rated.source);
            day.cdrs.push(rated.cdr);
        }
        day
    }
}

#[cfg(test)]
mod tests;
