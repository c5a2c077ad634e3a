//! What the saved days themselves tell: that calls stopped coming, that a clock is wrong, that a day is nearly empty.

use std::collections::BTreeMap;
use std::sync::Arc;

use jiff::civil::Date;
use jiff::{Timestamp, ToSpan as _};
use serde::Serialize;

use crate::config::Watch;
use crate::opened::{OpenFlow, Opened};
use cdrvault_format::error::{Kind, Result};
use cdrvault_format::manifest::Manifest;
use cdrvault_format::partition::{Partition, Unit};
use cdrvault_plugin::context::Context;
use cdrvault_plugin::sink::Vault;

/// The last days that had ended are looked at. Not more: a holiday is not told of for a week.
const LAST_DAYS: i32 = 2;

/// A day is compared with the same weekday of so many weeks before it.
const WEEKS: i32 = 8;

/// Of which so many have to be saved, or nobody knows what is usual.
const ENOUGH: usize = 4;

/// Where fewer rows than these are usual, few mean nothing.
const FEW: u64 = 20;

/// Empty days behind the newest one are passed over, as far back as this.
const EMPTY_DAYS: usize = 100;

/// Looks at the flows that have days; what each alarm says, on one line.
pub async fn watch(cx: &Context, opened: &Opened, watch: &Watch, now: Timestamp) -> Result<Vec<String>> {
    let mut alarms = Vec::new();
    if watch.is_empty() {
        return Ok(alarms);
    }
    for flow in &opened.flows {
        let days = Days::of(cx, opened, flow).await?;
        if watch.no_future_days {
            alarms.extend(days.in_the_future());
        }
        if let Some(limit) = watch.max_data_age {
            alarms.extend(days.too_old(limit, now).await?);
        }
        if let Some(least) = watch.min_calls {
            alarms.extend(days.too_few(|rows, usual| least.is_more_than(rows, usual)).await?);
        }
    }
    Ok(alarms)
}

/// What the days of a flow tell, as numbers.
#[derive(Debug, Clone, PartialEq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub struct Data {
    /// The flow's name.
    #[serde(rename = "dataset")]
    pub name: String,
    /// When the newest day that has rows ended, or will end.
    pub newest_ended: Option<Timestamp>,
    /// How many of the last days that had ended have fewer rows than `min-calls` asks for, where it does.
    pub few_days: Option<u64>,
}

/// The days of a flow, each with its newest generation and a sink that has it.
pub(super) struct Days<'a> {
    cx: &'a Context,
    flow: &'a str,
    today: Date,
    held: BTreeMap<Date, (u32, &'a Arc<dyn Vault>)>,
}

impl<'a> Days<'a> {
    /// Those that were found already.
    pub(super) fn found(cx: &'a Context, flow: &'a str, held: BTreeMap<Date, (u32, &'a Arc<dyn Vault>)>) -> Self {
        Self { cx, flow, today: cx.writer.today(), held }
    }

    /// `None` of a flow without days.
    pub(super) async fn data(&self, watch: &Watch) -> Result<Option<Data>> {
        if self.held.is_empty() {
            return Ok(None);
        }
        let newest = self.newest_with_rows().await?.and_then(|day| self.end_of(day));
        let few_days = match watch.min_calls {
            None => None,
            Some(least) => Some(self.with_few(|rows, usual| least.is_more_than(rows, usual)).await?.len() as u64),
        };
        Ok(Some(Data { name: self.flow.to_owned(), newest_ended: newest, few_days }))
    }

    /// A sink that cannot be asked is an alarm of its own, and the others tell.
    async fn of(cx: &'a Context, opened: &'a Opened, flow: &'a OpenFlow) -> Result<Self> {
        let mut held: BTreeMap<Date, (u32, &Arc<dyn Vault>)> = BTreeMap::new();
        for (_, _, sink) in opened.sinks_of(flow) {
            let index = match sink.index(cx, &flow.name).await {
                Ok(index) => index,
                Err(error) if error.kind() == Kind::Interrupted => return Err(error),
                Err(_) => continue,
            };
            for (partition, one) in index {
                if let Some(day) = partition.day() {
                    let newest = held.entry(day).or_insert((one.generation, sink));
                    if newest.0 < one.generation {
                        *newest = (one.generation, sink);
                    }
                }
            }
        }
        Ok(Self::found(cx, &flow.name, held))
    }

    /// The receipt of a day. What cannot be read is damage, which `verify` tells of.
    async fn receipt(&self, day: Date) -> Result<Option<Manifest>> {
        let Some((generation, sink)) = self.held.get(&day) else { return Ok(None) };
        match sink.manifest(self.cx, &Unit::new(self.flow, Partition::Day(day)), *generation).await {
            Ok(manifest) => Ok(Some(manifest)),
            Err(error) if error.kind() == Kind::Interrupted => Err(error),
            Err(_) => Ok(None),
        }
    }

    /// Tomorrow is not counted: the application's clock may be that of another time zone.
    fn last_possible(&self) -> Date {
        self.today.tomorrow().unwrap_or(Date::MAX)
    }

    fn in_the_future(&self) -> Option<String> {
        let last = self.last_possible();
        let future: Vec<Date> = self.held.range(last..).map(|(day, _)| *day).filter(|day| *day > last).collect();
        let what = match future.as_slice() {
            [] => return None,
            [day] => format!("{day}, which is"),
            [first, .., last] => format!("{} days from {first} to {last}, which are", future.len()),
        };
        Some(format!("{} has {what} in the future: a clock is wrong where the calls are written", self.flow))
    }

    async fn newest_with_rows(&self) -> Result<Option<Date>> {
        let past = self.held.range(..=self.last_possible()).rev().map(|(day, _)| *day);
        for day in past.take(EMPTY_DAYS) {
            if self.receipt(day).await?.is_some_and(|manifest| manifest.rows == 0) {
                continue;
            }
            return Ok(Some(day));
        }
        Ok(None)
    }

    fn end_of(&self, day: Date) -> Option<Timestamp> {
        let next = day.tomorrow().and_then(|next| next.to_zoned(self.cx.writer.timezone.clone()));
        next.ok().map(|next| next.timestamp())
    }

    async fn too_old(&self, limit: std::time::Duration, now: Timestamp) -> Result<Option<String>> {
        let Some(day) = self.newest_with_rows().await? else { return Ok(None) };
        let age = self.end_of(day).map_or(0, |ended| now.duration_since(ended).as_secs());
        let too_old = u64::try_from(age).is_ok_and(|age| age > limit.as_secs());
        Ok(too_old.then(|| {
            let days = age / 86_400;
            let ago = if days >= 2 { format!("{days} days") } else { format!("{} hours", age / 3600) };
            format!("the newest calls of {} are those of {day}, which ended {ago} ago", self.flow)
        }))
    }

    async fn too_few(&self, is_few: impl Fn(u64, u64) -> bool) -> Result<Vec<String>> {
        let told = |(day, rows, usual): (Date, u64, u64)| {
            let weekday = day.strftime("%A");
            format!("{} has {rows} rows on {weekday} {day}, and {usual} on a usual {weekday}", self.flow)
        };
        Ok(self.with_few(is_few).await?.into_iter().map(told).collect())
    }

    /// The last days that have few rows, with those that they have and those that are usual.
    async fn with_few(&self, is_few: impl Fn(u64, u64) -> bool) -> Result<Vec<(Date, u64, u64)>> {
        let mut few = Vec::new();
        for back in (1..=LAST_DAYS).rev() {
            let Ok(day) = self.today.checked_sub(back.days()) else { continue };
            // What is not saved yet is late, and not empty.
            if self.held.range(day..=self.last_possible()).next().is_none() {
                continue;
            }
            let rows = match self.receipt(day).await? {
                // It was read before it had ended.
                Some(manifest) if manifest.open => continue,
                Some(manifest) => manifest.rows,
                None if self.held.contains_key(&day) => continue,
                None => 0,
            };
            let mut before = Vec::new();
            for week in 1..=WEEKS {
                if let Ok(then) = day.checked_sub(week.weeks())
                    && let Some(manifest) = self.receipt(then).await?
                    && !manifest.open
                {
                    before.push(manifest.rows);
                }
            }
            if let Some(usual) = median(before)
                && usual >= FEW
                && is_few(rows, usual)
            {
                few.push((day, rows, usual));
            }
        }
        Ok(few)
    }
}

/// Of an even number, the lower one of the two in the middle.
fn median(mut all: Vec<u64>) -> Option<u64> {
    if all.len() < ENOUGH {
        return None;
    }
    all.sort_unstable();
    all.get((all.len() - 1) / 2).copied()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_usual_is_known_from_four_weeks_on_and_one_odd_day_does_not_bend_it() {
        assert_eq!(median(vec![10, 10, 10]), None);
        assert_eq!(median(vec![1000, 12, 10, 11]), Some(11));
        assert_eq!(median(vec![0, 900, 1000, 1100, 5000]), Some(1000));
    }
}
