//! What comes together while a file is loaded.

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::ops::Range;
use std::path::Path;

use super::problem::Problem;

/// The problems found so far, and the places of literal secrets. Shared by all sections of a file.
pub struct Draft<'a> {
    base: &'a Path,
    problems: RefCell<Vec<Problem>>,
    /// By where they begin, because a section that is wrong is read more than once.
    literals: RefCell<BTreeMap<usize, Literal>>,
}

/// A secret that stands in the file itself.
pub struct Literal {
    /// Where it stands.
    pub span: Range<usize>,
    /// It is a part of a URL.
    pub in_url: bool,
}

impl<'a> Draft<'a> {
    /// Nothing is found yet. Relative paths are relative to `base`.
    pub fn new(base: &'a Path) -> Self {
        Self { base, problems: RefCell::default(), literals: RefCell::default() }
    }

    /// The directory that relative paths are relative to.
    pub fn base(&self) -> &'a Path {
        self.base
    }

    /// Adds a problem.
    pub fn report(&self, problem: Problem) {
        self.problems.borrow_mut().push(problem);
    }

    /// Notes a secret that is written in the file.
    pub fn literal(&self, span: Range<usize>, in_url: bool) {
        self.literals.borrow_mut().insert(span.start, Literal { span, in_url });
    }

    /// What was found.
    pub fn into_parts(self) -> (Vec<Problem>, Vec<Literal>) {
        (self.problems.into_inner(), self.literals.into_inner().into_values().collect())
    }
}
