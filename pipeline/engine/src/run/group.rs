//! One partition of one database, for all flows that read it: claim, snapshot, read, seal, publish, settle.

use std::collections::BTreeMap;
use std::sync::Arc;

use jiff::Timestamp;

use super::deliver::{self, Before, Delivered, Delivery};
use super::seal::Sealing;
use super::spool::Spool;
use crate::opened::{OpenFlow, Opened};
use crate::options::Replay;
use crate::report::{Failure, UnitReport, UnitResult};
use crate::retry::retry;
use cdrvault_format::error::{At as _, Error, Kind, Result};
use cdrvault_format::failpoint;
use cdrvault_format::manifest::{Manifest, Origin};
use cdrvault_format::partition::{Partition, Unit};
use cdrvault_format::tripwire::Tripwire;
use cdrvault_plugin::context::Context;
use cdrvault_plugin::notice::{Level, Notices};
use cdrvault_plugin::sink::Sealed;
use cdrvault_plugin::stage::{Read, Session, Snapshot, Work};

/// Shared by all groups of a run.
pub(super) struct Shop {
    pub(super) cx: Context,
    pub(super) opened: Opened,
    pub(super) spool: Spool,
    pub(super) replay: Option<Replay>,
}

/// The units of one partition whose flows share a session.
pub(super) struct Group {
    pub(super) partition: Partition,
    pub(super) members: Vec<Member>,
}

/// One unit of a group.
pub(super) struct Member {
    /// Its index in [`Opened::flows`].
    pub(super) flow: usize,
    pub(super) reasons: Vec<String>,
    /// Its sums in the database, where they were asked for.
    pub(super) swept: Option<Tripwire>,
}

/// What a group came to.
pub(super) struct GroupResult {
    pub(super) units: Vec<UnitReport>,
    pub(super) warnings: Vec<String>,
    /// Delivered to every required sink, and settled.
    pub(super) settled: Vec<Unit>,
    /// Delivered, once these mirrors were flushed; then they are to be settled.
    pub(super) awaiting: Vec<(Unit, Vec<String>)>,
}

impl Shop {
    /// Works on a group. An error of one unit does not stop the others, where it can be told apart.
    pub(super) async fn work(&self, group: &Group) -> GroupResult {
        let units: Vec<Unit> = group.members.iter().map(|member| self.unit(group, member)).collect();
        for unit in &units {
            self.cx.progress.began(unit);
        }
        // A day that was interrupted by something passing starts again from its claim.
        let worked = retry(&self.cx, || self.attempt(group, &units)).await;
        let mut result = worked.unwrap_or_else(|error| GroupResult {
            units: group
                .members
                .iter()
                .zip(&units)
                .map(|(member, unit)| failed(unit, member, &error, Vec::new()))
                .collect(),
            warnings: Vec::new(),
            settled: Vec::new(),
            awaiting: Vec::new(),
        });
        let settled = std::mem::take(&mut result.settled);
        self.settle_or_warn(settled, &mut result.settled, &mut result.warnings).await;
        for report in &result.units {
            self.cx.progress.ended(&report.unit, matches!(report.result, UnitResult::Failed { .. }));
        }
        result
    }

    fn unit(&self, group: &Group, member: &Member) -> Unit {
        Unit::new(self.opened.flows[member.flow].name.clone(), group.partition)
    }

    async fn attempt(&self, group: &Group, units: &[Unit]) -> Result<GroupResult> {
        self.cx.check()?;
        let session =
            self.opened.session_of(&self.opened.flows[group.members[0].flow]).map_err(|error| error.copied())?;
        // What every sink has is noted before the claim, or a publisher that lost its lock could not be told.
        let mut before = Vec::new();
        for (member, unit) in group.members.iter().zip(units) {
            before.push(deliver::look(&self.cx, &self.opened, &self.opened.flows[member.flow], unit).await);
        }
        failpoint::hit("before-claim")?;
        // What no sink can take stays announced.
        let taken = units.iter().zip(&before).filter(|(_, (live, _))| !live.is_empty());
        let taken: Vec<Unit> = taken.map(|(unit, _)| unit.clone()).collect();
        session.claim(&self.cx, &taken, &|unit| self.spool.discard(unit)).await.map_err(wait_for_next_run)?;
        failpoint::hit("after-claim")?;

        let mut result =
            GroupResult { units: Vec::new(), warnings: Vec::new(), settled: Vec::new(), awaiting: Vec::new() };
        let mut ready = Vec::new();
        let mut snapshot: Option<Arc<dyn Snapshot>> = None;
        for ((member, unit), (live, unreachable)) in group.members.iter().zip(units).zip(before) {
            let flow = &self.opened.flows[member.flow];
            let notices = Notices::default();
            if live.is_empty() {
                let error = unreachable.into_iter().next();
                let error = error.unwrap_or_else(|| Failure::of(&unit.dataset, &Error::failed("it has no sinks")));
                result.units.push(report(unit, member, UnitResult::Failed { error }, &notices));
                continue;
            }
            let sealing = async {
                if let Some(sealed) = self.sealed_before(flow, unit, member, &live) {
                    return Ok(sealed);
                }
                let from = match &snapshot {
                    Some(open) => Arc::clone(open),
                    None => Arc::clone(snapshot.insert(session.snapshot(&self.cx).await?)),
                };
                failpoint::hit("after-snapshot")?;
                self.read(flow, unit, member, &from, &live, &notices).await
            };
            match sealing.await {
                Ok(sealed) => ready.push((member, unit, live, unreachable, sealed, notices)),
                // All flows of the day share the snapshot: one that was cut off starts again with the others.
                Err(error) if error.kind().passes() => return Err(error),
                Err(error) => {
                    // The next flow reads from a snapshot of its own: this one may have lost its connection halfway.
                    snapshot = None;
                    result.units.push(failed(unit, member, &error, notices.list()));
                }
            }
        }
        drop(snapshot);
        failpoint::hit("after-seal")?;
        for (member, unit, live, unreachable, sealed, notices) in ready {
            let flow = &self.opened.flows[member.flow];
            match self.deliver(session, flow, &live, unreachable, &sealed).await {
                Ok(delivered) => {
                    if delivered.settled && delivered.awaits.is_empty() {
                        result.settled.push(unit.clone());
                    } else if delivered.settled {
                        result.awaiting.push((unit.clone(), delivered.awaits));
                    }
                    result.warnings.extend(delivered.warnings);
                    result.units.push(report(unit, member, delivered.result, &notices));
                }
                Err(error) => result.units.push(failed(unit, member, &error, notices.list())),
            }
        }
        Ok(result)
    }

    /// What an earlier run sealed, if nothing was announced since (the claim would have removed it) and nobody
    /// published in between. Only events can say that: without them the day is read again. So it is where they began in
    /// this very run, and where a sweep found a change that was not announced.
    fn sealed_before(&self, flow: &OpenFlow, unit: &Unit, member: &Member, live: &[Before<'_>]) -> Option<Sealed> {
        if !flow.events || flow.registered_now || self.replay.is_some() {
            return None;
        }
        let sealed = self.spool.find(unit)?;
        if let Some(now) = &member.swept {
            let was = sealed.manifest.tripwire.as_ref()?;
            if Tripwire::difference(was, now, |_| None).is_some() {
                return None;
            }
        }
        let highest = live.iter().map(|sink| sink.live.generation()).max().unwrap_or(0);
        let next = sealed.manifest.generation;
        // It may be published in one sink and not in the others.
        let published = live
            .iter()
            .filter_map(|sink| sink.live.manifest.as_ref())
            .any(|manifest| manifest.generation == next && manifest.same_bytes(&sealed.manifest));
        (next == highest + 1 || (next == highest && published)).then_some(sealed)
    }

    async fn read(
        &self,
        flow: &OpenFlow,
        unit: &Unit,
        member: &Member,
        from: &Arc<dyn Snapshot>,
        live: &[Before<'_>],
        notices: &Notices,
    ) -> Result<Sealed> {
        let spec = self.opened.spec(flow);
        let source = flow.source.as_ref().map_err(|error| error.copied())?;
        let what = Read {
            partition: unit.partition,
            previous: everywhere(live),
            compared_with: Vec::new(),
            notices: notices.clone(),
        };
        let payload = source.read(&self.cx, from, &what).await.at(unit)?;
        let writer = &self.cx.writer;
        let sealing = Sealing {
            cx: &self.cx,
            spool: &self.spool,
            transforms: &spec.transforms,
            codecs: &self.opened.pipeline.codecs,
            work: Work::new(unit.clone(), deliver::next_generation(unit, live)?, flow.form),
            origin: Origin {
                pipeline: writer.pipeline.clone(),
                writer: writer.id.clone(),
                source: source.describe(),
                snapshot: from.opened(),
                reasons: member.reasons.clone(),
                version: env!("CARGO_PKG_VERSION").to_owned(),
            },
            open: unit.partition.day() == Some(writer.today()) && self.clock_is_trusted(live),
        };
        let mut sealed = sealing.seal(payload).await.at(unit)?;
        sealed.manifest.incomplete = notices.count(Level::Problem) > 0;
        Ok(sealed)
    }

    /// Whether our clock may decide that a day has not ended, and so that what is saved of it now need not be kept: not
    /// where another clock says otherwise, or where something was saved in what is the future by ours.
    fn clock_is_trusted(&self, live: &[Before<'_>]) -> bool {
        let tolerance = std::time::Duration::from_secs(crate::opened::CLOCK_TOLERANCE.unsigned_abs());
        let now = Timestamp::now() + tolerance;
        let receipts = live.iter().filter_map(|sink| sink.live.manifest.as_ref());
        crate::prune::check_clocks(&self.opened).is_ok()
            && receipts.flat_map(|receipt| receipt.received.into_iter().chain([receipt.sealed])).all(|at| at <= now)
    }

    async fn deliver(
        &self,
        session: &Arc<dyn Session>,
        flow: &OpenFlow,
        before: &[Before<'_>],
        unreachable: Vec<Failure>,
        sealed: &Sealed,
    ) -> Result<Delivered> {
        let delivery = Delivery {
            cx: &self.cx,
            session,
            spool: &self.spool,
            on_schema_change: self.opened.spec(flow).on_schema_change,
            replay: self.replay,
            unreachable,
            names: self.opened.sinks.iter().map(|open| open.name.clone()).collect(),
            open: self.opened.sinks.iter().filter(|open| open.sink.is_ok()).map(|open| open.name.clone()).collect(),
            mirrors: self.opened.mirrors().map(|(open, _)| open.name.clone()).collect(),
        };
        let mut delivered = delivery.run(sealed, before).await?;
        // A day that came back is not gone any more.
        let has: Vec<&Before<'_>> = before.iter().filter(|sink| delivered.has(&sink.open.name)).collect();
        for sink in has {
            let noting = async {
                let notes = sink.sink.notes(&self.cx, &sealed.manifest.unit).await?;
                if notes.gone.is_some() {
                    let there = cdrvault_format::manifest::Notes { gone: None, ..notes };
                    sink.sink.put_notes(&self.cx, &sealed.manifest.unit, &there).await?;
                }
                Ok(())
            };
            sink.tolerate(noting.await, &mut delivered.warnings)?;
        }
        Ok(delivered)
    }

    /// Only after every required sink confirmed: the debt goes, and then what is left in the spool. Units of one
    /// database are settled together.
    pub(super) async fn settle_or_warn(&self, units: Vec<Unit>, settled: &mut Vec<Unit>, warnings: &mut Vec<String>) {
        let mut by_session: BTreeMap<usize, Vec<Unit>> = BTreeMap::new();
        for unit in units {
            if let Some(flow) = self.opened.flows.iter().find(|flow| flow.name == unit.dataset) {
                by_session.entry(flow.session).or_default().push(unit);
            }
        }
        for (session, units) in by_session {
            match self.settle(session, &units).await {
                Ok(()) => settled.extend(units),
                Err(error) => {
                    let stays = |unit| format!("{unit} is delivered and stays owed: {}", error.one_line());
                    warnings.extend(units.iter().map(stays));
                }
            }
        }
    }

    async fn settle(&self, session: usize, units: &[Unit]) -> Result<()> {
        let session = match &self.opened.sessions[session].session {
            Ok((session, _)) => session,
            Err(error) => return Err(error.copied()),
        };
        retry(&self.cx, || session.settle(&self.cx, units)).await?;
        failpoint::hit("after-settle")?;
        for unit in units {
            self.spool.discard(unit)?;
        }
        Ok(())
    }
}

/// Where the application is working on the day: trying again would only make both wait, and nothing is lost by waiting.
fn wait_for_next_run(error: Error) -> Error {
    if error.kind() != Kind::Busy {
        return error;
    }
    Error::new(Kind::Conflict, error.one_line()).hint("the application is processing this day; the next run takes it")
}

/// The generation that every reachable sink holds, if it is one and the same.
fn everywhere(live: &[Before<'_>]) -> Option<Arc<Manifest>> {
    let mut generations: BTreeMap<u32, &Arc<Manifest>> = BTreeMap::new();
    for sink in live {
        let manifest = sink.live.intact()?;
        generations.insert(manifest.generation, manifest);
    }
    match generations.into_values().collect::<Vec<_>>()[..] {
        [one] => Some(Arc::clone(one)),
        _ => None,
    }
}

fn report(unit: &Unit, member: &Member, result: UnitResult, notices: &Notices) -> UnitReport {
    UnitReport { unit: unit.clone(), reasons: member.reasons.clone(), result, notices: notices.list() }
}

fn failed(unit: &Unit, member: &Member, error: &Error, notices: Vec<cdrvault_plugin::notice::Notice>) -> UnitReport {
    let error = Failure::of(&unit.dataset, error);
    UnitReport { unit: unit.clone(), reasons: member.reasons.clone(), result: UnitResult::Failed { error }, notices }
}
