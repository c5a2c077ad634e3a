//! Whether a database is as the last run left it. A restored dump, transactions that a server lost, an older copy of a
//! file, or a clone of this host that takes announcements from the same rows: none of these is announced. So a run leaves
//! a mark, in the application's own tables and in our state, and a server says since when it runs.

use std::collections::BTreeSet;
use std::io::Read as _;
use std::path::Path;

use crate::opened::Opened;
use crate::state::{DatabaseState, State};
use cdrvault_format::error::{Error, Result};
use cdrvault_plugin::context::Context;
use cdrvault_plugin::stage::{self, MARK_BITS, Server};

/// What became of a database since the last run.
#[derive(Debug, PartialEq, Eq)]
enum Standing {
    /// It was not seen before.
    New,
    /// Nothing that is known.
    Same,
    /// The same server was started anew: what it had not yet written to disk may be lost.
    Restarted,
    /// Another server says that it has the same data.
    Moved(String),
    /// Its mark is not that of the last run.
    Other,
}

fn standing(known: Option<&DatabaseState>, found: &stage::Opened) -> Standing {
    let Some(known) = known else { return Standing::New };
    if let Some(marks) = &found.marks
        && !known.marks.is_empty()
        && known.marks.is_disjoint(marks)
    {
        return Standing::Other;
    }
    match (&known.server, &found.server) {
        (Some(then), Some(now)) if then.name != now.name => {
            Standing::Moved(format!("`{}` instead of `{}`", now.name, then.name))
        }
        (Some(Server { started: Some(then), .. }), Some(Server { started: Some(now), .. })) if then != now => {
            Standing::Restarted
        }
        _ => Standing::Same,
    }
}

/// Compares every open database with what the state remembers of it, and notes in the state what has to be done about a
/// difference. What people have to know is a line each.
pub(super) fn recognise(opened: &Opened, state: &mut State) -> Result<Vec<String>> {
    let mut lines = Vec::new();
    for open in &opened.sessions {
        let (Some(name), Ok((_, found))) = (&open.database, &open.session) else { continue };
        if found.marks.is_none() && found.server.is_none() {
            continue;
        }
        let standing = standing(state.databases.get(name), found);
        match &standing {
            Standing::New | Standing::Same => {}
            Standing::Restarted => {
                tracing::info!("the server of database `{name}` was restarted: every day is compared with what is saved");
            }
            Standing::Moved(how) => lines.push(format!(
                "database `{name}` is served by {how} since the last run: every day is compared with what is saved"
            )),
            Standing::Other => lines.push(format!(
                "database `{name}` is not as the last run left it: an earlier state of it was put back, or a clone of this \
                 host reads it too; every day is read again"
            )),
        }
        let own = state.databases.entry(name.clone()).or_default();
        own.server.clone_from(&found.server);
        if standing == Standing::Same {
            continue;
        }
        own.era = random()?;
        if standing == Standing::New {
            continue;
        }
        for flow in &opened.pipeline.flows {
            let is_here = flow.source.database().is_some_and(|reference| reference.name() == name);
            if is_here && flow.transforms.iter().any(|transform| transform.detection().is_some()) {
                let own = state.flow(&flow.name);
                own.swept = None;
                own.again |= standing == Standing::Other;
            }
        }
    }
    Ok(lines)
}

/// Gives every database that can be marked a new mark. Whatever happens on the way, the state knows the mark that is
/// there: the old one is forgotten only when the new one is committed.
pub(super) async fn renew(cx: &Context, opened: &Opened, state: &mut State, directory: &Path) -> Result<()> {
    let mut marking = Vec::new();
    for (index, open) in opened.sessions.iter().enumerate() {
        let (Some(name), Ok((session, found))) = (&open.database, &open.session) else { continue };
        let listens = opened.flows.iter().any(|flow| flow.session == index && flow.events);
        if listens && found.marks.is_some() {
            marking.push((name, session, random()? & ((1 << MARK_BITS) - 1)));
        }
    }
    if marking.is_empty() {
        return Ok(());
    }
    for (name, _, mark) in &marking {
        let own = state.databases.entry((*name).clone()).or_default();
        own.marks.insert(*mark);
    }
    state.save(directory)?;
    for (name, session, mark) in &marking {
        session.mark(cx, *mark).await?;
        state.databases.entry((*name).clone()).or_default().marks = BTreeSet::from([*mark]);
    }
    state.save(directory)
}

/// Whether a database lacks the mark of the last run, so that it is to get one although there is nothing to do.
pub(super) fn is_due(opened: &Opened, state: &State) -> bool {
    opened.sessions.iter().any(|open| {
        let (Some(name), Ok((_, found))) = (&open.database, &open.session) else { return false };
        let known = state.databases.get(name);
        found.marks.as_ref().is_some_and(|marks| known.is_none_or(|known| known.marks.is_disjoint(marks)))
    })
}

fn random() -> Result<u64> {
    let path = Path::new("/dev/urandom");
    let mut bytes = [0; 8];
    let read = std::fs::File::open(path).and_then(|mut file| file.read_exact(&mut bytes));
    read.map_err(|error| Error::io("read", path, error))?;
    Ok(u64::from_ne_bytes(bytes))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn server(name: &str, started: Option<i64>) -> Server {
        Server { name: name.to_owned(), started }
    }

    fn found(marks: &[u64], server: impl Into<Option<Server>>) -> stage::Opened {
        let (marks, server) = (Some(marks.iter().copied().collect()), server.into());
        stage::Opened { marks, server, ..stage::Opened::default() }
    }

    #[test]
    fn a_database_is_known_again_by_its_mark_and_its_server() {
        let known = DatabaseState { marks: [1, 2].into(), server: Some(server("a", Some(5))), era: 1 };
        let of = |found| standing(Some(&known), &found);
        assert_eq!(standing(None, &found(&[1], None)), Standing::New);
        assert_eq!(of(found(&[2], server("a", Some(5)))), Standing::Same);
        assert_eq!(of(found(&[2, 9], server("a", None))), Standing::Same);
        assert_eq!(of(found(&[2], server("a", Some(6)))), Standing::Restarted);
        assert!(matches!(of(found(&[1], server("b", Some(5)))), Standing::Moved(_)));
        assert_eq!(of(found(&[3], server("a", Some(5)))), Standing::Other);
        assert_eq!(of(found(&[], None)), Standing::Other, "the rows are those of a dump from before");
        let unmarked = DatabaseState { marks: BTreeSet::new(), ..known.clone() };
        assert_eq!(standing(Some(&unmarked), &found(&[3], None)), Standing::Same);
        let unable = stage::Opened { marks: None, ..found(&[], server("a", Some(5))) };
        assert_eq!(standing(Some(&known), &unable), Standing::Same, "rights were taken away");
    }
}
