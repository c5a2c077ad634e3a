//! What comes together while a file is loaded.

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::ops::Range;
use std::path::Path;

use super::problem::Problem;

/// The problems found so far, and the places of literal secrets. Shared by all sections of a file.
pub(super) struct Draft<'a> {
    base: &'a Path,
    problems: RefCell<Vec<Problem>>,
    /// By where they begin, because a section that is wrong is read more than once.
    literals: RefCell<BTreeMap<usize, Literal>>,
}

/// A secret that stands in the file itself.
pub(super) struct Literal {
    pub(super) span: Range<usize>,
    /// It is a part of a URL.
    pub(super) in_url: bool,
}

impl<'a> Draft<'a> {
    pub(super) fn new(base: &'a Path) -> Self {
        Self { base, problems: RefCell::default(), literals: RefCell::default() }
    }

    /// The directory that relative paths are relative to.
    pub(super) fn base(&self) -> &'a Path {
        self.base
    }

    pub(super) fn report(&self, problem: Problem) {
        self.problems.borrow_mut().push(problem);
    }

    pub(super) fn literal(&self, span: Range<usize>, in_url: bool) {
        self.literals.borrow_mut().insert(span.start, Literal { span, in_url });
    }

    pub(super) fn into_parts(self) -> (Vec<Problem>, Vec<Literal>) {
        (self.problems.into_inner(), self.literals.into_inner().into_values().collect())
    }
}
