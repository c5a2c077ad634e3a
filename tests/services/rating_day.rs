//! What a day's calls should be, after all that the rating engine did to it.

use cdrvault::generator::{Cdr, Day, Generator, Settings};
use jiff::civil::Date;

/// The state of a day: enough to generate its rows at any time.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct RatingDay {
    pub(crate) date: Date,
    /// The rating that the rates come from, and how many per cent of the calls it changed; 0 is the first one.
    pub(crate) rates: (u32, u8),
    /// The rating that the ids come from.
    pub(crate) ids: u32,
    /// How many batches of calls came late.
    pub(crate) late: u32,
}

impl RatingDay {
    pub(crate) fn new(date: Date) -> Self {
        Self { date, rates: (0, 0), ids: 0, late: 0 }
    }

    /// The rated calls.
    pub(crate) fn cdrs(self, generator: &Generator, settings: Settings) -> Vec<Cdr> {
        let mut cdrs = generator.day(self.date).cdrs;
        for batch in 1..=self.late {
            cdrs.extend(self.late_calls(settings, batch).cdrs);
        }
        let rates = generator.rerating(self.rates.0, self.rates.1);
        let ids = generator.rerating(self.ids, 0);
        for cdr in &mut cdrs {
            if self.rates.0 > 0 {
                rates.apply(cdr);
            }
            if self.ids > 0 {
                ids.apply(cdr);
            }
        }
        cdrs
    }

    /// A batch of calls that came late: one in a hundred more.
    pub(crate) fn late_calls(self, settings: Settings, batch: u32) -> Day {
        // Another seed for each batch, so that they have other calls and other ids.
        let other = Generator::new(Settings { seed: settings.seed + u64::from(batch) * 7_919, ..settings });
        let calls = (other.volume(self.date) / 100).max(3);
        let mut day: Day = other.exactly(self.date, calls).collect();
        day.cdrs.retain(|cdr| cdr.is_service_cdr == 0);
        day
    }
}
