//! What the sinks hold of each flow, day by day and month by month. One receipt is read of each partition, a few at a
//! time, and only what the page shows of it is kept.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use cdrvault_engine::opened::{OpenFlow, Opened};
use cdrvault_engine::verified::Damage;
use cdrvault_format::error::{Error, Kind, Result};
use cdrvault_format::manifest::Manifest;
use cdrvault_format::partition::{Partition, Unit};
use cdrvault_plugin::context::Context;
use cdrvault_plugin::sink::{Held, Vault};
use futures::stream::{self, StreamExt as _, TryStreamExt as _};
use jiff::civil::Date;
use jiff::{Timestamp, ToSpan as _};
use serde::Serialize;

/// So many receipts are asked for at a time: a bucket takes as long for one as for eight.
const AT_ONCE: usize = 8;

/// One flow.
#[derive(Debug, Serialize)]
#[serde(rename_all = "kebab-case")]
pub(super) struct Flow {
    pub(super) dataset: String,
    /// The kind of its source.
    pub(super) source: &'static str,
    pub(super) sinks: Vec<String>,
    /// Partitions that any sink holds.
    pub(super) partitions: u64,
    /// Days among them that are older than what is shown.
    pub(super) earlier: u64,
    /// What is shown, in order.
    pub(super) units: Vec<Saved>,
    /// Days between the first and the last one of which nothing is saved, among those shown.
    pub(super) missing: Vec<Date>,
    /// Of the days shown.
    pub(super) months: Vec<Month>,
}

/// What is saved of one partition: its newest generation.
#[derive(Debug, Serialize)]
#[serde(rename_all = "kebab-case")]
pub(super) struct Saved {
    pub(super) partition: Partition,
    pub(super) states: BTreeSet<State>,
    pub(super) generation: u32,
    /// Older generations that a sink keeps; where sinks differ, the most.
    pub(super) versions: u64,
    pub(super) rows: u64,
    /// Stored bytes.
    pub(super) bytes: u64,
    /// The same without any encoding, where that can be computed; see [`plain`].
    pub(super) plain: Option<u64>,
    pub(super) received: Option<Timestamp>,
    /// When it was last read again in full.
    pub(super) verified: Option<Timestamp>,
    /// Why older generations are pinned.
    pub(super) pinned: Vec<String>,
    /// Since when the database has no rows of it.
    pub(super) gone: Option<Timestamp>,
    /// The sinks that have it.
    pub(super) sinks: Vec<String>,
    /// The sinks that can be read, and have an older generation or none.
    pub(super) behind: Vec<String>,
    /// What verifications found of it that is not mended: where, and what.
    pub(super) damage: Vec<String>,
    /// Why nothing can be said of it.
    pub(super) error: Option<String>,
}

/// What is to be said of a partition besides that it is saved. The most important first.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "kebab-case")]
pub(super) enum State {
    /// A verification found damage that is not mended.
    Damaged,
    /// Its receipt cannot be read.
    Unreadable,
    /// A sink lacks it.
    Undelivered,
    /// It lost half of its rows or more, and an older generation is pinned.
    Shrunk,
    /// Something that should be in it could not be read.
    Incomplete,
    /// The database lost it without a word.
    Gone,
    /// It was read before the day had ended.
    Open,
    /// Older generations are kept. The number of the generation alone would not do: a day that is saved while it lasts
    /// has a second one by the next morning, and nothing happened to it.
    Changed,
}

/// The days of one month.
#[derive(Debug, Serialize)]
#[serde(rename_all = "kebab-case")]
pub(super) struct Month {
    /// As `2026-01`.
    #[serde(rename = "month")]
    pub(super) name: String,
    pub(super) days: u64,
    pub(super) rows: u64,
    pub(super) bytes: u64,
    pub(super) plain: Option<u64>,
}

impl Flow {
    /// The days that are shown.
    pub(super) fn days(&self) -> impl Iterator<Item = (Date, &Saved)> {
        self.units.iter().filter_map(|saved| Some((saved.partition.day()?, saved)))
    }

    /// The partitions that are not days: a snapshot, or the rows without a date.
    pub(super) fn others(&self) -> impl Iterator<Item = &Saved> {
        self.units.iter().filter(|saved| saved.partition.day().is_none())
    }

    /// Those of which this is to be said.
    pub(super) fn with(&self, state: State) -> impl Iterator<Item = &Saved> {
        self.units.iter().filter(move |saved| saved.states.contains(&state))
    }
}

/// What the names in the sinks tell of one partition.
#[derive(Default)]
struct Found<'a> {
    newest: u32,
    versions: u64,
    /// The sinks that can be read, and what each has of it.
    held: Vec<(&'a str, &'a Arc<dyn Vault>, Option<Held>)>,
}

/// A flow and what the names tell of its partitions.
struct Named<'a> {
    flow: &'a OpenFlow,
    found: BTreeMap<Partition, Found<'a>>,
}

/// Looks at every flow; `months` of days, up to the newest day of any flow. A sink that cannot be read is left out:
/// the survey says so.
pub(super) async fn gather(cx: &Context, opened: &Opened, damage: &[Damage], months: u16) -> Result<Vec<Flow>> {
    let mut all = Vec::new();
    for flow in &opened.flows {
        all.push(names(cx, opened, flow).await?);
    }
    let newest = all.iter().flat_map(|named| named.found.keys().filter_map(|partition| partition.day())).max();
    let first = newest.and_then(|day| day.first_of_month().checked_sub((i32::from(months) - 1).months()).ok());
    let mut flows = Vec::new();
    for named in all {
        let mut flow = one(cx, opened, named, first.unwrap_or(Date::MIN)).await?;
        mark(&mut flow, damage);
        flows.push(flow);
    }
    Ok(flows)
}

/// What verifications found of its partitions.
fn mark(flow: &mut Flow, damage: &[Damage]) {
    for saved in &mut flow.units {
        let unit = Some(Unit::new(&flow.dataset, saved.partition));
        for found in damage.iter().filter(|found| found.unit == unit) {
            let generation = found.generation.map(|generation| format!(" generation {generation}")).unwrap_or_default();
            let place = if found.sink.is_empty() { String::new() } else { format!(" in {}", found.sink) };
            saved.damage.push(format!("{}{generation}{place}: {}", found.problem, found.detail));
            saved.states.insert(State::Damaged);
        }
    }
}

async fn names<'a>(cx: &Context, opened: &'a Opened, flow: &'a OpenFlow) -> Result<Named<'a>> {
    let mut readable = Vec::new();
    for (_, open, sink) in opened.sinks_of(flow) {
        let looking = async {
            let held = sink.index(cx, &flow.name).await?;
            // What keeps history by itself does not tell of versions.
            let native = sink.capabilities().native_history;
            let history = if native { BTreeMap::new() } else { sink.history(cx, &flow.name).await? };
            Ok::<_, Error>((held, history))
        };
        match looking.await {
            Ok((held, history)) => readable.push((open.name.as_str(), sink, held, history)),
            Err(error) if error.kind() == Kind::Interrupted => return Err(error),
            Err(_) => {}
        }
    }
    let mut found: BTreeMap<Partition, Found<'a>> = BTreeMap::new();
    let partitions: BTreeSet<Partition> = readable.iter().flat_map(|(_, _, held, _)| held.keys().copied()).collect();
    for partition in partitions {
        let one = found.entry(partition).or_default();
        for (name, sink, held, history) in &readable {
            let held = held.get(&partition).copied();
            let versions = history.get(&partition).map_or(0, |generations| generations.len().saturating_sub(1) as u64);
            one.newest = one.newest.max(held.map_or(0, |held| held.generation));
            one.versions = one.versions.max(versions);
            one.held.push((name, sink, held));
        }
    }
    Ok(Named { flow, found })
}

async fn one(cx: &Context, opened: &Opened, named: Named<'_>, first: Date) -> Result<Flow> {
    let Named { flow, found } = named;
    let spec = opened.spec(flow);
    let partitions = found.len() as u64;
    let oldest = found.keys().find_map(|partition| partition.day());
    let shown = |partition: &Partition| partition.day().is_none_or(|day| day >= first);
    let earlier = found.keys().filter(|partition| !shown(partition)).count() as u64;
    let reading = found.into_iter().filter(|(partition, _)| shown(partition));
    let reading = reading.map(|(partition, found)| saved(cx, Unit::new(&flow.name, partition), found));
    let units: Vec<Saved> = stream::iter(reading).buffered(AT_ONCE).try_collect().await?;
    let mut flow = Flow {
        dataset: flow.name.clone(),
        source: spec.source_kind,
        sinks: spec.sinks.iter().filter_map(|index| Some(opened.sinks.get(*index)?.name.clone())).collect(),
        partitions,
        earlier,
        units,
        missing: Vec::new(),
        months: Vec::new(),
    };
    flow.missing = missing(&flow, oldest.map_or(first, |oldest| oldest.max(first)));
    flow.months = months(&flow);
    Ok(flow)
}

async fn saved(cx: &Context, unit: Unit, found: Found<'_>) -> Result<Saved> {
    let has = |held: &Option<Held>| held.is_some_and(|held| held.generation >= found.newest && held.object_there);
    let names = |with: bool| {
        let those = found.held.iter().filter(|(_, _, held)| has(held) == with);
        those.map(|(name, _, _)| (*name).to_owned()).collect::<Vec<_>>()
    };
    let mut saved = Saved {
        partition: unit.partition,
        states: BTreeSet::new(),
        generation: found.newest,
        versions: found.versions,
        rows: 0,
        bytes: 0,
        plain: None,
        received: None,
        verified: None,
        pinned: Vec::new(),
        gone: None,
        damage: Vec::new(),
        sinks: names(true),
        behind: names(false),
        error: None,
    };
    let mut told = false;
    // Any sink can tell, if its receipt is sound.
    for (_, sink, held) in &found.held {
        if held.is_none_or(|held| held.generation < found.newest) {
            continue;
        }
        let reading =
            async { Ok::<_, Error>((sink.manifest(cx, &unit, found.newest).await?, sink.notes(cx, &unit).await?)) };
        match reading.await {
            Ok((manifest, notes)) => {
                saved.rows = manifest.rows;
                saved.bytes = manifest.bytes();
                saved.plain = plain(&manifest);
                saved.received = manifest.received;
                saved.verified = notes.verified.map(|verified| verified.at);
                saved.pinned = notes.pins.into_iter().map(|pin| pin.reason).collect();
                saved.gone = notes.gone;
                saved.states.extend(manifest.open.then_some(State::Open));
                saved.states.extend(manifest.incomplete.then_some(State::Incomplete));
                told = true;
                break;
            }
            Err(error) if error.kind() == Kind::Interrupted => return Err(error),
            Err(error) => saved.error = saved.error.or_else(|| Some(error.one_line())),
        }
    }
    if told {
        saved.error = None;
    }
    let states = [
        (!told, State::Unreadable),
        (!saved.behind.is_empty(), State::Undelivered),
        (!saved.pinned.is_empty(), State::Shrunk),
        (saved.gone.is_some(), State::Gone),
        (saved.versions > 0, State::Changed),
    ];
    saved.states.extend(states.into_iter().filter_map(|(is, state)| is.then_some(state)));
    Ok(saved)
}

fn missing(flow: &Flow, first: Date) -> Vec<Date> {
    let there: BTreeSet<Date> = flow.days().map(|(day, _)| day).collect();
    let Some(last) = there.last() else { return Vec::new() };
    first.series(1.day()).take_while(|day| day < last).filter(|day| !there.contains(day)).collect()
}

fn months(flow: &Flow) -> Vec<Month> {
    let mut months: Vec<Month> = Vec::new();
    for (day, saved) in flow.days().filter(|(_, saved)| saved.error.is_none()) {
        let month = day.strftime("%Y-%m").to_string();
        if months.last().is_none_or(|last| last.name != month) {
            months.push(Month { name: month, days: 0, rows: 0, bytes: 0, plain: Some(0) });
        }
        if let Some(last) = months.last_mut() {
            last.days += 1;
            last.rows += saved.rows;
            last.bytes += saved.bytes;
            last.plain = last.plain.zip(saved.plain).map(|(sum, plain)| sum + plain);
        }
    }
    months
}

/// The bytes of the values alone: the lengths of all texts, which the receipt sums up, and the width of each other
/// column for each row. `None` for what is not rows, and where a receipt has no sum of a text column.
fn plain(manifest: &Manifest) -> Option<u64> {
    let tripwire = manifest.tripwire.as_ref()?;
    let mut bytes: u64 = 0;
    for column in &manifest.columns {
        let of_column = match width(&column.arrow_type) {
            Some(width) => manifest.rows.checked_mul(width)?,
            None => u64::try_from((*tripwire.sums.get(&column.name)?)?).ok()?,
        };
        bytes = bytes.checked_add(of_column)?;
    }
    Some(bytes)
}

/// The bytes of one value of an Arrow type, by its text form; `None` where each value has a length of its own.
fn width(arrow_type: &str) -> Option<u64> {
    let (name, rest) = arrow_type.split_once('(').unwrap_or((arrow_type, ""));
    match name {
        "Boolean" | "Int8" | "UInt8" => Some(1),
        "Int16" | "UInt16" | "Float16" => Some(2),
        "Int32" | "UInt32" | "Float32" | "Date32" | "Time32" => Some(4),
        "Int64" | "UInt64" | "Float64" | "Date64" | "Time64" | "Timestamp" | "Duration" => Some(8),
        "Decimal128" => Some(16),
        "Decimal256" => Some(32),
        "FixedSizeBinary" => rest.trim_end_matches(')').parse().ok(),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn types_have_the_widths_of_arrow() {
        let widths = ["Int8", "Timestamp(µs)", "Decimal128(20, 4)", "FixedSizeBinary(16)", "Utf8", "Binary"].map(width);
        assert_eq!(widths, [Some(1), Some(8), Some(16), Some(16), None, None]);
    }
}
