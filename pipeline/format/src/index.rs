//! The index of a dataset's receipts: which generations of each partition must have one. What it names and is not there
//! was lost, since whatever is removed on purpose is taken out of it before.

use std::collections::{BTreeMap, BTreeSet};

use serde::{Deserialize, Serialize};

use crate::checksum;
use crate::manifest::NOTES_FORMAT;
use crate::partition::Partition;

/// Generations by partition, in order.
pub type Generations = BTreeMap<Partition, Vec<u32>>;

/// See the module.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub struct Index {
    /// [`NOTES_FORMAT`] of the writer.
    pub format: u32,
    /// Whose receipts.
    pub dataset: String,
    /// Which.
    pub generations: Generations,
}

impl Index {
    /// One that names these.
    pub fn new(dataset: &str, generations: Generations) -> Self {
        Self { format: NOTES_FORMAT, dataset: dataset.to_owned(), generations }
    }

    /// As it is stored.
    pub fn to_text(&self) -> Result<Vec<u8>, serde_json::Error> {
        serde_json::to_vec(self).map(checksum::seal)
    }

    /// The inverse: an error unless every bit is as it was written, and it is that of this dataset.
    pub fn of_text(text: &[u8], dataset: &str) -> Result<Self, String> {
        checksum::check(text)?;
        let index: Self = serde_json::from_slice(text).map_err(|error| error.to_string())?;
        if index.dataset != dataset {
            return Err(format!("it is that of `{}`", index.dataset.escape_debug()));
        }
        Ok(index)
    }

    /// The highest generation of a partition.
    pub fn newest(&self, partition: Partition) -> Option<u32> {
        self.generations.get(&partition)?.iter().max().copied()
    }

    /// With what has a receipt now besides.
    #[must_use]
    pub fn with(mut self, standing: &Generations) -> Self {
        for (partition, generations) in standing {
            let all = self.generations.entry(*partition).or_default();
            let set: BTreeSet<u32> = all.iter().chain(generations).copied().collect();
            *all = set.into_iter().collect();
        }
        self
    }

    /// Without these.
    #[must_use]
    pub fn without(mut self, gone: impl Iterator<Item = (Partition, u32)>) -> Self {
        for (partition, generation) in gone {
            if let Some(all) = self.generations.get_mut(&partition) {
                all.retain(|one| *one != generation);
            }
        }
        self.generations.retain(|_, all| !all.is_empty());
        self
    }

    /// What it names and has no receipt.
    pub fn lost(&self, standing: &Generations) -> Vec<(Partition, u32)> {
        let stands = |partition, generation: &u32| {
            standing.get(partition).is_some_and(|all: &Vec<u32>| all.contains(generation))
        };
        let named = self.generations.iter().flat_map(|(partition, all)| all.iter().map(move |one| (partition, one)));
        named.filter(|(partition, one)| !stands(*partition, one)).map(|(partition, one)| (*partition, *one)).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_named_and_is_not_there_was_lost() {
        let day: Partition = "2026-01-15".parse().unwrap();
        let of = |all: &[u32]| Generations::from([(day, all.to_vec())]);
        let index = Index::new("ar_cdr", of(&[1, 2])).with(&of(&[3]));
        assert_eq!(index.generations, of(&[1, 2, 3]));
        assert_eq!(Index::of_text(&index.to_text().unwrap(), "ar_cdr").unwrap(), index);
        assert!(Index::of_text(&index.to_text().unwrap(), "other").is_err());
        assert_eq!(index.lost(&of(&[1, 3])), [(day, 2)]);
        assert_eq!(index.lost(&Generations::new()), [(day, 1), (day, 2), (day, 3)]);
        let index = index.without([(day, 2)].into_iter());
        assert_eq!(index.lost(&of(&[1, 3])), []);
        assert_eq!(index.newest(day), Some(3));
    }
}
