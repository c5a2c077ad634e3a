//! A pipeline whose databases and sinks are connected, as far as they can be.

use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;
use std::sync::Arc;

use jiff::Timestamp;

use crate::config::places::{APART, collision};
use crate::config::{Keep, Pipeline};
use crate::retry::{Retrying, retry};
use crate::state::State;
use cdrvault_format::error::{At as _, Error, Kind, Result};
use cdrvault_format::partition::DayRange;
use cdrvault_plugin::context::Context;
use cdrvault_plugin::location::{Location, Overlap};
use cdrvault_plugin::payload::Form;
use cdrvault_plugin::registry::Around;
use cdrvault_plugin::sink::{Expected, Identity, Mirror, Vault};
use cdrvault_plugin::stage::{self, Ask, Detection, Session, Source};

/// A server whose clock is further off than this, in seconds, is worth a warning.
pub const CLOCK_TOLERANCE: i64 = 300;

/// See the module. What could not be opened is an error beside its name; the rest goes on without it.
pub struct Opened {
    /// The file.
    pub pipeline: Arc<Pipeline>,
    /// In the order of the file.
    pub sinks: Vec<OpenSink>,
    /// One for each database that is used, and one for each source without one.
    pub sessions: Vec<OpenSession>,
    /// The flows that were asked for, in the order of the file.
    pub flows: Vec<OpenFlow>,
    /// What the flows' detection has to do without.
    pub warnings: Vec<String>,
}

/// A sink, or why it cannot be used.
pub struct OpenSink {
    /// Its name in the file.
    pub name: String,
    /// Its failure is a warning.
    pub optional: bool,
    /// Which superseded versions stay there.
    pub keep: Option<Keep>,
    /// The index of the sink whose vault it mirrors.
    pub mirrors: Option<usize>,
    /// Whether a flow that was asked for, and can be read, uses it.
    pub used: bool,
    /// It is in the way of another one, and is not opened.
    refused: bool,
    /// The sink, behind the decorator that tries again.
    pub sink: Result<Arc<dyn Vault>, SharedError>,
    /// Who its vault says it is.
    pub identity: Option<Identity>,
}

/// A session, or why it cannot be used.
pub struct OpenSession {
    /// The name of its database; directories and dumps have sessions of their own, which nobody would know.
    pub database: Option<String>,
    /// What it is connected to, without secrets.
    pub identity: String,
    /// The session, and what it found.
    pub session: Result<(Arc<dyn Session>, stage::Opened), SharedError>,
}

/// A flow that is in work.
pub struct OpenFlow {
    /// Its index in [`Pipeline::flows`].
    pub spec: usize,
    /// Its name.
    pub name: String,
    /// Its index in [`Opened::sessions`].
    pub session: usize,
    /// Its source, or why it cannot be used.
    pub source: Result<Arc<dyn Source>, SharedError>,
    /// How it finds changes, if it does.
    pub detection: Option<Detection>,
    /// Whether it is told of changes: its own rows stand in the application's tables.
    pub events: bool,
    /// It was registered in this very run: everything it has is owed.
    pub registered_now: bool,
    /// How its partitions lie in a vault.
    pub form: Form,
    /// What its source does not see of what it was asked for; see [`Source::check`].
    pub unseen: Vec<String>,
}

/// An error that several reports share.
pub type SharedError = Arc<Error>;

impl Opened {
    /// Connects everything. Only an error that concerns the whole run (another run is in progress) is an error.
    pub async fn open(
        cx: &Context,
        pipeline: Arc<Pipeline>,
        only: &[String],
        state: Option<&State>,
        dry_run: bool,
        probe_write: bool,
        adopt: bool,
    ) -> Result<Self> {
        let mut opened =
            Self { pipeline, sinks: Vec::new(), sessions: Vec::new(), flows: Vec::new(), warnings: Vec::new() };
        opened.build_flows(only)?;
        opened.refuse_shared_databases();
        opened.open_sessions(cx, dry_run).await?;
        opened.check_sources(cx).await;
        // A vault that nothing can be written to now is left alone.
        opened.open_sinks(cx, state, dry_run, adopt, probe_write, |flow| flow.source.is_ok()).await?;
        Ok(opened)
    }

    /// Opens the sinks alone, to look at what they hold: no database is asked, nothing is locked or written.
    pub async fn vaults(cx: &Context, pipeline: Arc<Pipeline>, only: &[String], state: Option<&State>) -> Result<Self> {
        let mut opened =
            Self { pipeline, sinks: Vec::new(), sessions: Vec::new(), flows: Vec::new(), warnings: Vec::new() };
        opened.build_flows(only)?;
        opened.open_sinks(cx, state, true, false, false, |_| true).await?;
        Ok(opened)
    }

    /// Opens the sinks to note something in them, whatever becomes of the databases.
    pub async fn open_to_note(cx: &Context, pipeline: Arc<Pipeline>, state: &State) -> Result<Self> {
        let mut opened =
            Self { pipeline, sinks: Vec::new(), sessions: Vec::new(), flows: Vec::new(), warnings: Vec::new() };
        opened.build_flows(&[])?;
        opened.open_sinks(cx, Some(state), false, false, true, |_| true).await?;
        Ok(opened)
    }

    /// Opens the sinks to remove something from them. A database that does not answer is not harmed.
    pub async fn open_to_prune(
        cx: &Context,
        pipeline: Arc<Pipeline>,
        only: &[String],
        state: Option<&State>,
        dry_run: bool,
    ) -> Result<Self> {
        let mut opened =
            Self { pipeline, sinks: Vec::new(), sessions: Vec::new(), flows: Vec::new(), warnings: Vec::new() };
        opened.build_flows(only)?;
        opened.open_sessions(cx, true).await?;
        opened.open_sinks(cx, state, dry_run, false, !dry_run, |_| true).await?;
        Ok(opened)
    }

    /// The specification of a flow.
    pub fn spec(&self, flow: &OpenFlow) -> &crate::config::FlowSpec {
        &self.pipeline.flows[flow.spec]
    }

    /// The sinks of a flow that can be used, with their indexes.
    pub fn sinks_of(&self, flow: &OpenFlow) -> Vec<(usize, &OpenSink, &Arc<dyn Vault>)> {
        self.spec(flow)
            .sinks
            .iter()
            .filter_map(|index| {
                let open = self.sinks.get(*index)?;
                Some((*index, open, open.sink.as_ref().ok()?))
            })
            .collect()
    }

    /// The mirrors that can be used.
    pub fn mirrors(&self) -> impl Iterator<Item = (&OpenSink, &dyn Mirror)> {
        self.sinks
            .iter()
            .filter(|open| open.mirrors.is_some())
            .filter_map(|open| Some((open, open.sink.as_ref().ok()?.mirror()?)))
    }

    /// The session of a flow, if it can be used.
    pub fn session_of(&self, flow: &OpenFlow) -> Result<&Arc<dyn Session>, SharedError> {
        match &self.sessions[flow.session].session {
            Ok((session, _)) => Ok(session),
            Err(error) => Err(Arc::clone(error)),
        }
    }

    /// Where the spool lies: in the first local vault that a flow must have, or else in the state directory. An optional
    /// sink is not a place for it: were it full, nothing could be saved anywhere.
    pub fn spool_root(&self, state: &std::path::Path) -> PathBuf {
        let mut required = self.sinks.iter().filter(|open| !open.optional);
        let of_sink = required.find_map(|open| open.sink.as_ref().ok()?.spool());
        of_sink.unwrap_or_else(|| state.join("spool"))
    }

    /// Gives the locks back.
    pub async fn close(&self) {
        for open in &self.sinks {
            if let Ok(sink) = &open.sink {
                sink.close().await;
            }
        }
        for open in &self.sessions {
            if let Ok((session, _)) = &open.session {
                session.close().await;
            }
        }
    }

    fn build_flows(&mut self, only: &[String]) -> Result<()> {
        let pipeline = Arc::clone(&self.pipeline);
        if let Some(unknown) = only.iter().find(|name| pipeline.flow(name).is_none()) {
            let known: Vec<&str> = pipeline.flows.iter().map(|flow| flow.name.as_str()).collect();
            return Err(Error::new(Kind::Config, format!("there is no flow `{unknown}`"))
                .hint(format!("the flows are: {}", known.join(", "))));
        }
        let mut by_database: BTreeMap<&str, usize> = BTreeMap::new();
        for (index, spec) in pipeline.flows.iter().enumerate() {
            if !only.is_empty() && !only.contains(&spec.name) {
                continue;
            }
            let mut of_database = None;
            let mut failed = None;
            if let Some(reference) = spec.source.database() {
                let name = reference.name();
                let at = if let Some(at) = by_database.get(name) {
                    *at
                } else {
                    let Some(database) = pipeline.database(name) else {
                        return Err(Error::new(Kind::Config, format!("there is no database `{name}`")));
                    };
                    let session = database.build.build().at(format!("database `{name}`"));
                    self.sessions.push(OpenSession {
                        database: Some(name.to_owned()),
                        identity: database.build.identity(),
                        session: session.map(|s| (s, stage::Opened::default())).map_err(Arc::new),
                    });
                    by_database.insert(name, self.sessions.len() - 1);
                    self.sessions.len() - 1
                };
                of_database = Some(at);
                failed = self.sessions[at].session.as_ref().err().cloned();
            }
            let shared = of_database.and_then(|at| self.sessions[at].session.as_ref().ok()).map(|(s, _)| Arc::clone(s));
            let built = match failed {
                Some(error) => Err(error),
                None => {
                    spec.source.build(&spec.name, shared.clone()).at(format!("flow `{}`", spec.name)).map_err(Arc::new)
                }
            };
            let (source, session) = match built {
                Ok((source, session)) => {
                    // A source may read its database without sharing a session with others.
                    let same =
                        |shared: &Arc<dyn Session>| std::ptr::addr_eq(Arc::as_ptr(shared), Arc::as_ptr(&session));
                    let of_database = of_database.filter(|_| shared.as_ref().is_some_and(same));
                    let at = of_database.unwrap_or_else(|| {
                        let identity = session.identity();
                        let session = Ok((session, stage::Opened::default()));
                        self.sessions.push(OpenSession { database: None, identity, session });
                        self.sessions.len() - 1
                    });
                    (Ok(source), at)
                }
                Err(error) => {
                    let at = of_database.unwrap_or_else(|| {
                        let session = Err(Arc::clone(&error));
                        self.sessions.push(OpenSession { database: None, identity: spec.name.clone(), session });
                        self.sessions.len() - 1
                    });
                    (Err(error), at)
                }
            };
            self.flows.push(OpenFlow {
                spec: index,
                name: spec.name.clone(),
                session,
                source,
                detection: spec.transforms.iter().find_map(|transform| transform.detection()),
                events: false,
                registered_now: false,
                form: spec.source.form(),
                unseen: Vec::new(),
            });
        }
        Ok(())
    }

    /// Two sessions on one database would wait for each other's lock. Sources with sessions of their own may have another
    /// account there.
    fn refuse_shared_databases(&mut self) {
        let mut seen: BTreeMap<String, String> = BTreeMap::new();
        for (index, open) in self.sessions.iter_mut().enumerate() {
            let Some(name) = open.database.clone() else { continue };
            if open.session.is_err() || self.flows.iter().all(|flow| flow.session != index) {
                continue;
            }
            let Some(other) = seen.insert(open.identity.clone(), name.clone()) else { continue };
            let message = format!("the databases `{other}` and `{name}` are one: {}", open.identity);
            let error = Error::new(Kind::Config, message).hint(format!("name `{other}` in all flows that read it"));
            let error = Arc::new(error);
            for flow in self.flows.iter_mut().filter(|flow| flow.session == index) {
                flow.source = Err(Arc::clone(&error));
            }
            open.session = Err(error);
        }
    }

    async fn open_sessions(&mut self, cx: &Context, dry_run: bool) -> Result<()> {
        for (index, open) in self.sessions.iter_mut().enumerate() {
            let Ok((session, found)) = &mut open.session else { continue };
            // A source that reads its database in a way of its own (a dump) has nothing to lock there.
            if self.flows.iter().all(|flow| flow.session != index) {
                continue;
            }
            let listening: Vec<String> = self
                .flows
                .iter()
                .filter(|flow| flow.session == index && flow.detection.is_some_and(|d| d.events))
                .map(|flow| flow.name.clone())
                .collect();
            let opening = retry(cx, || session.open(cx, &listening, dry_run)).await;
            match opening {
                Ok(opened) => *found = opened,
                Err(error) if matches!(error.kind(), Kind::Locked | Kind::Interrupted) => return Err(error),
                Err(error) => {
                    let error = Arc::new(error);
                    for flow in self.flows.iter_mut().filter(|flow| flow.session == index) {
                        flow.source = Err(Arc::clone(&error));
                    }
                    open.session = Err(error);
                }
            }
        }
        for flow in &mut self.flows {
            let Ok((session, found)) = &self.sessions[flow.session].session else { continue };
            flow.events = found.registered.contains(&flow.name);
            let wants = flow.detection.is_some_and(|detection| detection.events);
            if let (true, Some(why)) = (wants, &found.without_events) {
                if flow.detection.is_some_and(|detection| detection.tripwire.is_some()) {
                    // A directory has no events; saying so each day would be noise.
                    if self.pipeline.flows[flow.spec].source.announces() {
                        self.warnings.push(format!(
                            "flow `{}` is not told of changed days ({why}) and finds them by comparing sums at each run",
                            flow.name
                        ));
                    }
                } else {
                    flow.source = Err(Arc::new(
                        Error::new(
                            Kind::Denied,
                            format!("flow `{}` is to find changes by events alone, and cannot: {why}", flow.name),
                        )
                        .hint(format!(
                            "grant what is missing on {}, or write `detect = [\"events\", \"tripwire\"]`",
                            session.identity()
                        )),
                    ));
                }
            }
        }
        Ok(())
    }

    async fn open_sinks(
        &mut self,
        cx: &Context,
        state: Option<&State>,
        dry_run: bool,
        adopt: bool,
        probe_write: bool,
        uses: impl Fn(&OpenFlow) -> bool,
    ) -> Result<()> {
        let using = self.flows.iter().filter(|flow| uses(flow));
        let used: BTreeSet<usize> = using.flat_map(|flow| self.pipeline.flows[flow.spec].sinks.clone()).collect();
        let registered = self.flows.iter().any(|flow| flow.events);
        // Two accounts on one database are one database.
        let databases: BTreeSet<String> = self.pipeline.databases.iter().map(|one| one.build.identity()).collect();
        let databases: Vec<String> = databases.into_iter().collect();
        for (index, spec) in self.pipeline.sinks.iter().enumerate() {
            let mirrored = spec.build.mirrors();
            self.sinks.push(OpenSink {
                name: spec.name.clone(),
                optional: spec.optional,
                keep: spec.keep,
                mirrors: mirrored.and_then(|name| self.pipeline.sinks.iter().position(|s| s.name == name.name())),
                used: used.contains(&index),
                refused: false,
                sink: Err(Arc::new(Error::failed(format!("sink `{}` is not used by these flows", spec.name)))),
                identity: None,
            });
        }
        self.refuse_shared_places();
        // A mirror is opened after what it mirrors.
        let mut order: Vec<usize> = (0..self.sinks.len()).filter(|index| self.sinks[*index].used).collect();
        order.sort_by_key(|index| self.sinks[*index].mirrors.is_some());
        for index in order {
            if self.sinks[index].refused {
                continue;
            }
            let spec = &self.pipeline.sinks[index];
            let known = match state {
                Some(state) => state.vaults.contains_key(&spec.name),
                // The state is lost, but the application remembers us.
                None => registered,
            };
            let opening = async {
                let mirrored = match self.sinks[index].mirrors.map(|mirrored| &self.sinks[mirrored]) {
                    None => None,
                    Some(OpenSink { sink: Ok(sink), identity, .. }) => Some((Arc::clone(sink), identity.clone())),
                    Some(OpenSink { name, .. }) => {
                        return Err(Error::failed(format!("`{name}`, which it mirrors, cannot be used")));
                    }
                };
                let expect = Expected {
                    databases: databases.clone(),
                    known,
                    probe_write: probe_write || !dry_run,
                    adopt,
                    reading: false,
                    mirrored: mirrored.as_ref().and_then(|(_, identity)| identity.clone()),
                };
                let lists_it = self.pipeline.flows.iter().filter(|flow| flow.sinks.contains(&index));
                let around = Around {
                    datasets: lists_it.map(|flow| flow.name.clone()).collect(),
                    mirrored: mirrored.map(|(sink, _)| sink),
                };
                let sink: Arc<dyn Vault> = Arc::new(Retrying(spec.build.build(&around)?));
                let identity = sink.open(cx, &expect, dry_run).await?;
                Ok((sink, identity))
            };
            match opening.await.at(format!("sink `{}`", spec.name)) {
                Ok((sink, identity)) => {
                    if let Some(error) = self.same_vault(index, &identity) {
                        sink.close().await;
                        self.refuse(index, error);
                        continue;
                    }
                    self.sinks[index].sink = Ok(sink);
                    self.sinks[index].identity = Some(identity);
                }
                Err(error) if matches!(error.kind(), Kind::Locked | Kind::Interrupted) => return Err(error),
                Err(error) => self.sinks[index].sink = Err(Arc::new(error)),
            }
        }
        Ok(())
    }

    /// What the names do not tell: a sink behind a link or a bind mount of another one's place. The first is used.
    fn refuse_shared_places(&mut self) {
        let pipeline = Arc::clone(&self.pipeline);
        let used = pipeline.sinks.iter().zip(&self.sinks).enumerate().filter(|(_, (_, open))| open.used);
        let placed: Vec<_> =
            used.filter_map(|(index, (spec, _))| Some((index, spec, spec.build.place()?.resolved()))).collect();
        for (at, (index, spec, place)) in placed.iter().enumerate() {
            let collision = placed
                .iter()
                .take(at)
                .find_map(|(_, other, there)| Some(collision(spec, place.overlap(there)?, other)));
            let state = Location::directory(&pipeline.state).resolved();
            let in_the_way = match place.overlap(&state) {
                Some(overlap @ (Overlap::Same | Overlap::Around)) => {
                    Some(format!("the sink `{}` {overlap} the state directory {}", spec.name, pipeline.state.display()))
                }
                _ => None,
            };
            if let Some(message) = collision.or(in_the_way) {
                let error = Error::new(Kind::Refused, format!("{message}, behind a link or a mount")).hint(APART);
                self.refuse(*index, error);
            }
        }
    }

    /// Two buckets with one vault are one bucket under two names. A directory has a lock, which tells for sure.
    fn same_vault(&self, index: usize, identity: &Identity) -> Option<Error> {
        let apart = |index: usize| {
            let open = &self.sinks[index];
            open.mirrors.is_none() && !self.pipeline.sinks[index].build.is_directory()
        };
        let same = |other: &usize| {
            let known = self.sinks[*other].identity.as_ref();
            *other != index && apart(*other) && known.is_some_and(|known| known.vault == identity.vault)
        };
        let other = (0..self.sinks.len()).filter(|_| apart(index)).find(same)?;
        let message = format!(
            "the sinks `{}` and `{}` hold one and the same vault, {}",
            self.sinks[index].name, self.sinks[other].name, identity.vault
        );
        Some(Error::new(Kind::Refused, message).hint(
            "give each sink a place of its own; if one is a copy of the other, remove its .cdrvault/vault.json and run once \
             with --adopt-vault",
        ))
    }

    /// A sink that is another one is wrong although it is optional: there is one copy less than was thought.
    fn refuse(&mut self, index: usize, error: Error) {
        let open = &mut self.sinks[index];
        open.optional = false;
        open.refused = true;
        open.sink = Err(Arc::new(error));
    }

    async fn check_sources(&mut self, cx: &Context) {
        for flow in &mut self.flows {
            let Ok(source) = &flow.source else { continue };
            match retry(cx, || source.check(cx)).await {
                Ok(unseen) => {
                    self.warnings.extend(unseen.iter().map(|what| format!("flow `{}`: {what}", flow.name)));
                    flow.unseen = unseen;
                }
                Err(error) => flow.source = Err(Arc::new(error.at(format!("flow `{}`", flow.name)))),
            }
        }
    }

    /// Registers the flows that want to be told of changes and are not yet: everything they have becomes a debt.
    pub(super) async fn register(&mut self, cx: &Context, state: &mut State) -> Result<()> {
        for index in 0..self.sessions.len() {
            let Ok((session, found)) = &self.sessions[index].session else { continue };
            if found.without_events.is_some() {
                continue;
            }
            let mut new = Vec::new();
            for flow in self.flows.iter_mut().filter(|flow| flow.session == index && !flow.events) {
                let Ok(source) = flow.source.clone() else { continue };
                if !flow.detection.is_some_and(|detection| detection.events) {
                    continue;
                }
                let ask = Ask { listing: Some(DayRange::ALL), ..Ask::default() };
                match source.discover(cx, &ask).await {
                    Ok(all) => new.push((flow.name.clone(), all.into_iter().map(|one| one.partition).collect())),
                    Err(error) => flow.source = Err(Arc::new(error.at(format!("flow `{}`", flow.name)))),
                }
            }
            if new.is_empty() {
                continue;
            }
            let registering = session.register(cx, &new).await.map_err(Arc::new);
            for flow in self.flows.iter_mut().filter(|flow| new.iter().any(|(name, _)| *name == flow.name)) {
                match &registering {
                    Ok(()) => {
                        flow.events = true;
                        flow.registered_now = true;
                        // A transaction that was open at this moment announced nothing to us: look again later.
                        state.flow(&flow.name).full_until = Some(Timestamp::now() + std::time::Duration::from_hours(1));
                        state.flow(&flow.name).swept = None;
                        // Every day is a debt now, which is to be read in any case.
                        state.flow(&flow.name).again = false;
                    }
                    Err(error) => flow.source = Err(Arc::clone(error)),
                }
            }
        }
        Ok(())
    }
}
