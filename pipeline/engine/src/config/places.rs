//! Whether vaults, and the state directory, are in each other's way, as far as their names tell.

use std::path::Path;

use super::pipeline::SinkSpec;
use super::table::Entry;
use cdrvault_plugin::location::{Location, Overlap};
use cdrvault_plugin::options::Problem;
use cdrvault_plugin::options::draft::Draft;

/// Two vaults in one place would wait for each other's lock for ever, and each would prune the other's versions.
pub(super) fn apart(draft: &Draft<'_>, entries: &[Entry<'_>], sinks: &[SinkSpec]) {
    let placed: Vec<_> = sinks.iter().filter_map(|sink| Some((sink, sink.build.place()?))).collect();
    for (index, (sink, place)) in placed.iter().enumerate() {
        let mut earlier = placed.iter().take(index);
        let first = earlier.find_map(|(other, before)| Some((other, place.overlap(before)?)));
        let Some((other, overlap)) = first else { continue };
        let (Some(here), Some(there)) = (entry(entries, sink), entry(entries, other)) else { continue };
        let problem = Problem::new(here.span.clone(), collision(sink, overlap, other));
        draft.report(problem.also(there.span.clone(), "the other one").help(APART));
    }
}

/// What to do about it.
pub(crate) const APART: &str = "give each sink a place of its own, neither inside the other";

/// What two sinks in one place are told.
pub(crate) fn collision(sink: &SinkSpec, overlap: Overlap, other: &SinkSpec) -> String {
    format!("the sink `{}` {overlap} the sink `{}`: {}", sink.name, other.name, sink.build.describe())
}

/// The state directory is not a place for a vault, nor a vault one for it.
pub(super) fn state(draft: &Draft<'_>, entries: &[Entry<'_>], sinks: &[SinkSpec], state: &Path) -> Vec<Problem> {
    let (directory, spool) = (Location::directory(state), Location::directory(&state.join("spool")));
    let mut warnings = Vec::new();
    for sink in sinks {
        let (Some(place), Some(entry)) = (sink.build.place(), entry(entries, sink)) else { continue };
        let Some(overlap) = place.overlap(&directory) else { continue };
        let message = format!("the sink `{}` {overlap} the state directory {}", sink.name, state.display());
        let problem = Problem::new(entry.span.clone(), message);
        let problem = problem.help("give the vault a place of its own: the state directory may be deleted at any time");
        // What is unknown in the spool is removed by every run.
        let in_spool = matches!(place.overlap(&spool), Some(Overlap::Same | Overlap::Inside));
        if overlap == Overlap::Inside && !in_spool { warnings.push(problem) } else { draft.report(problem) }
    }
    warnings
}

fn entry<'a, 'b>(entries: &'b [Entry<'a>], sink: &SinkSpec) -> Option<&'b Entry<'a>> {
    entries.iter().find(|entry| entry.name == sink.name)
}
