//! Who calls: resellers, their customers, and the customers' extensions.

use rand::{Rng, SeedableRng};
use rand_chacha::ChaCha8Rng;

use super::hash::mix;
use super::native::Format;
use super::weights::Weights;

/// The root of the organization.
const ROOT: i32 = 1;
const RESELLERS: i32 = 8;

/// Accents, quotes and an emoji, because real names have them.
const NAMES: &[&str] = &[
    "Cafè Centrale",
    "Müller & Söhne",
    "Trattoria dell'Orso",
    "Studio Legale D'Angelo",
    "Società Elettrica",
    "Hôtel Bellevue",
    "Zoë Andersson",
    "Bäckerei St.Pölten",
    "Officina Rossi",
    "Call Center Nord",
    "Farmacia Comunale",
    "Łukasz Transport",
    "Żabka",
    "Ραδιόφωνο",
    "Reception 😀",
    "Back\\Office",
];

/// All customers of an instance.
#[derive(Debug)]
pub(super) struct Population {
    customers: Vec<Customer>,
    /// A few customers make most of the calls, as Zipf's law has it.
    weights: Weights,
}

/// A customer.
#[derive(Debug)]
pub(super) struct Customer {
    pub(super) id: i32,
    pub(super) party: i32,
    pub(super) name: &'static str,
    pub(super) format: Format,
    /// What the customer pays, in per cent of the list price.
    pub(super) discount: i64,
    pub(super) has_bundle: bool,
    path: String,
    first_extension: i32,
    extensions: i32,
}

/// An extension of a customer.
#[derive(Debug, Clone, Copy)]
pub(super) struct Extension<'p> {
    pub(super) customer: &'p Customer,
    index: i32,
}

impl Population {
    /// As many customers as the volume feeds, of very different sizes.
    pub(super) fn new(seed: u64, calls_per_day: u64) -> Self {
        let mut rng = ChaCha8Rng::seed_from_u64(mix(&[seed, 0x0070_656f_706c_6500]));
        let count = i32::try_from((calls_per_day / 40).clamp(24, 6_000)).unwrap_or(24);
        let mut next = ROOT + RESELLERS + 1;
        let customers: Vec<_> = (0..count).map(|rank| Customer::new(&mut rng, rank, count, &mut next)).collect();
        let weights = Weights::new((1..=u64::try_from(customers.len()).unwrap_or(1)).map(|rank| 10_000_000 / rank));
        Self { customers, weights }
    }

    pub(super) fn customers(&self) -> &[Customer] {
        &self.customers
    }

    /// Somebody who calls, or is called.
    pub(super) fn pick(&self, rng: &mut impl Rng) -> Extension<'_> {
        let customer = &self.customers[self.weights.pick(rng)];
        let draw = rng.random_range(0..customer.extensions);
        Extension { customer, index: draw.min(rng.random_range(0..customer.extensions)) }
    }
}

impl Customer {
    fn new(rng: &mut impl Rng, rank: i32, count: i32, next: &mut i32) -> Self {
        let reseller = ROOT + 1 + rng.random_range(0..RESELLERS);
        let id = *next;
        // The big customers have a hundred extensions and more, the small ones one or two.
        let extensions = 1 + rng.random_range(0..4) + 300 / (rank + 2) * i32::from(count > rank);
        *next += 1 + extensions;
        // A third of the customers come directly, without a reseller.
        let path =
            if rng.random_range(0..3) == 0 { format!("/{ROOT}/{id}/") } else { format!("/{ROOT}/{reseller}/{id}/") };
        Self {
            id,
            party: 40_000 + id,
            name: NAMES[rng.random_range(0..NAMES.len())],
            format: Format::of_customer(rng.random_range(0..10)),
            discount: [100, 100, 95, 90, 80][rng.random_range(0..5)],
            has_bundle: rng.random_range(0..4) == 0,
            path,
            first_extension: id + 1,
            extensions,
        }
    }

    /// The customer's own place in the organization.
    pub(super) fn path(&self) -> &[u8] {
        self.path.as_bytes()
    }

    /// How many extensions there are.
    pub(super) fn size(&self) -> i32 {
        self.extensions
    }
}

impl Extension<'_> {
    pub(super) fn id(self) -> i32 {
        self.customer.first_extension + self.index
    }

    /// The number that is dialled inside: `2020`.
    pub(super) fn number(self) -> i32 {
        2_000 + self.index
    }

    /// The place in the organization: `/1/2/5/`.
    pub(super) fn path(self) -> Vec<u8> {
        format!("{}{}/", self.customer.path, self.id()).into_bytes()
    }
}
