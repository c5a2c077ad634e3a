//! What a stage or a sink sees: the traits it implements, what passes through it, and the types of its options.
//!
//! | module | holds |
//! |---|---|
//! | [`stage`], [`sink`], [`target`] | the contracts |
//! | [`codec`] | how stored objects are decoded, by the names in their receipts |
//! | [`registry`] | the kinds of each that a program knows |
//! | [`payload`], [`notice`] | what moves from stage to stage |
//! | [`options`] | the types of options, and the part of the pipeline file that a stage reads |
//! | [`context`], [`progress`], [`scratch`], [`lock`], [`program`], [`location`] | what is around a stage: deadlines, private files, locks, other programs |

pub mod codec;
pub mod context;
pub mod location;
pub mod lock;
pub mod notice;
pub mod options;
pub mod payload;
pub mod program;
pub mod progress;
pub mod registry;
pub mod scratch;
pub mod sink;
pub mod stage;
pub mod target;
