//! Whether the stages of a flow fit together.

use std::ops::Range;
use std::path::Path;

use cdrvault_plugin::options::Problem;
use cdrvault_plugin::options::draft::Draft;
use cdrvault_plugin::options::nearest::listed;
use cdrvault_plugin::options::section::{Body, Section};
use cdrvault_plugin::payload::Shape;
use cdrvault_plugin::registry::Registry;
use cdrvault_plugin::stage::Transform;

/// The source.
pub(super) struct Start<'a> {
    pub(super) kind: &'a str,
    pub(super) shape: Shape,
    pub(super) span: Range<usize>,
}

/// One element of `transforms`.
pub(super) struct Link {
    /// `None` if it is wrong in itself.
    pub(super) transform: Option<Box<dyn Transform>>,
    pub(super) span: Range<usize>,
}

/// Follows the shape of the payload from the source to the sinks. `end` is the place of the whole chain.
pub(super) fn check(draft: &Draft<'_>, registry: &Registry, start: &Start<'_>, links: &[Link], end: &Range<usize>) {
    detections(draft, links);
    let mut shape = start.shape;
    let mut giver = (start.kind, start.span.clone());
    for link in links {
        // What a transform that is wrong would give is anybody's guess.
        let Some(transform) = &link.transform else { return };
        match transform.accepts(shape) {
            Some(next) => {
                if next != shape {
                    giver = (transform.kind(), link.span.clone());
                }
                shape = next;
            }
            None => return draft.report(misfit(registry, start.kind, transform.as_ref(), link, shape, &giver)),
        }
    }
    if shape == Shape::Rows {
        let encoders = between(registry, Shape::Rows, |given| given == Shape::Objects);
        draft.report(
            Problem::new(end.clone(), "rows reach the sinks, which hold objects")
                .also(giver.1, format!("`{}` gives rows", giver.0))
                .help(format!("end the chain with {}", either(&encoders))),
        );
    }
}

fn misfit(
    registry: &Registry,
    start: &str,
    transform: &dyn Transform,
    link: &Link,
    gets: Shape,
    giver: &(&str, Range<usize>),
) -> Problem {
    let kind = transform.kind();
    let takes = if gets == Shape::Rows { Shape::Objects } else { Shape::Rows };
    let bridges = between(registry, gets, |given| transform.accepts(given).is_some());
    let help = match (bridges.as_slice(), giver.0 == start) {
        ([], true) => format!("remove `{kind}`: nothing makes {takes} of the {gets} that `{start}` gives"),
        ([], false) if giver.0 == kind => format!("remove the second `{kind}`"),
        ([], false) => format!("remove `{kind}`, or put it before `{}`", giver.0),
        (bridges, _) => format!("put {} before it", either(bridges)),
    };
    Problem::new(link.span.clone(), format!("`{kind}` takes {takes}, but gets {gets}"))
        .label(format!("takes {takes}"))
        .also(giver.1.clone(), format!("`{}` gives {gets}", giver.0))
        .help(help)
}

/// The kinds that take one shape and, without any options, give another that is wanted.
fn between(registry: &Registry, from: Shape, wanted: impl Fn(Shape) -> bool) -> Vec<&'static str> {
    let gives = |transform: &dyn Transform| transform.accepts(from).is_some_and(|given| given != from && wanted(given));
    let plain = Draft::new(Path::new("/"));
    let kinds = registry.transforms.iter().filter(|plugin| {
        let mut section = Section::new(&plain, "", plugin.kind, String::new(), 0..0, Body::Nothing);
        (plugin.parse)(&mut section).is_some_and(|transform| gives(transform.as_ref()))
    });
    kinds.map(|plugin| plugin.kind).collect()
}

fn either(kinds: &[&str]) -> String {
    match kinds {
        [] => "a transform that makes objects of rows".to_owned(),
        [only] => format!("`{only}`"),
        several => format!("one of {}", listed(several)),
    }
}

/// Two answers to the question of what has changed are one too many.
fn detections(draft: &Draft<'_>, links: &[Link]) {
    let mut detecting = links.iter().filter_map(|link| {
        let transform = link.transform.as_ref()?;
        transform.detection().map(|_| (transform.kind(), link.span.clone()))
    });
    let Some((first, first_span)) = detecting.next() else { return };
    for (kind, span) in detecting {
        let message = if kind == first {
            format!("`{kind}` is there twice")
        } else {
            format!("`{first}` and `{kind}` both find out what has changed")
        };
        draft.report(Problem::new(span, message).also(first_span.clone(), "the first").help("keep one of them"));
    }
}
