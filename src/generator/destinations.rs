//! Whom the customers call, and what it costs.

use std::sync::LazyLock;

use rand::Rng;

use super::hash::mix;
use super::weights::Weights;

/// A tariff zone.
#[derive(Debug)]
pub(super) struct Destination {
    /// What its numbers begin with.
    pub(super) prefix: &'static str,
    /// How many digits follow.
    digits: u32,
    /// As the rate plan names it.
    pub(super) rate: &'static str,
    /// As people name it.
    pub(super) name: &'static str,
    /// What the carrier takes for a minute.
    pub(super) cost: i64,
    /// What the customer pays for a minute.
    pub(super) income: i64,
    /// What the customer pays for being connected.
    pub(super) setup: i64,
    /// How often it is called, and whether it calls.
    weight: u64,
}

#[rustfmt::skip]
const DESTINATIONS: &[Destination] = &[
    zone("39347",  7, "it-mobile-1",      "Cellulare Uno",        195,   690,    0, 210),
    zone("39331",  7, "it-mobile-2",      "Cellulare Due",        195,   690,    0, 140),
    zone("39320",  7, "it-mobile-3",      "Cellulare Tre",        210,   720,    0,  90),
    zone("3906",   7, "it-fixed",         "Roma",                  38,   140,    0, 160),
    zone("3902",   7, "it-fixed",         "Milano",                38,   140,    0, 150),
    zone("39051",  6, "it-fixed",         "Bologna",               38,   140,    0, 120),
    zone("39055",  6, "it-fixed",         "Firenze Città",         38,   140,    0,  60),
    zone("39800",  6, "it-free",          "Numero Verde",           0,     0,    0,  30),
    zone("39199",  6, "it-shared",        "Numero a tariffazione", 910,  1450,  850,   6),
    zone("39899",  6, "it-premium",       "Servizi a valore",    9800, 14900, 1500,   2),
    zone("432742", 6, "at-fixed",         "St.Pölten",             95,   320,    0,  24),
    zone("43664",  7, "at-mobile",        "Österreich Mobil",     390,  1150,    0,  16),
    zone("4989",   7, "de-fixed",         "München",               62,   240,    0,  34),
    zone("49151",  8, "de-mobile",        "Deutschland Mobilfunk", 310,   980,    0,  22),
    zone("331",    8, "fr-fixed",         "Paris Île-de-France",   60,   240,    0,  20),
    zone("4420",   8, "uk-fixed",         "London",                55,   240,    0,  22),
    zone("447",    9, "uk-mobile",        "United Kingdom Mobile", 240,   980,    0,  12),
    zone("1212",   7, "us-fixed",         "New York, NY",          48,   260,    0,  10),
    zone("55119",  8, "br-mobile",        "São Paulo (móvel)",    620,  1900,    0,   4),
    zone("870",    9, "satellite",        "Inmarsat",           38000, 52000, 5000,   1),
];

#[expect(clippy::too_many_arguments, reason = "a line of a table")]
const fn zone(
    prefix: &'static str,
    digits: u32,
    rate: &'static str,
    name: &'static str,
    cost: i64,
    income: i64,
    setup: i64,
    weight: u64,
) -> Destination {
    Destination { prefix, digits, rate, name, cost, income, setup, weight }
}

static WEIGHTS: LazyLock<Weights> = LazyLock::new(|| Weights::new(DESTINATIONS.iter().map(|zone| zone.weight)));

/// The number at the other end of a call.
#[derive(Debug)]
pub(super) struct Remote {
    pub(super) zone: &'static Destination,
    /// The row of `ar_telephone_prefix`.
    pub(super) zone_id: i32,
    /// In international form, without `+`.
    pub(super) number: String,
}

impl Remote {
    /// Draws one. People call the same numbers again and again, and now and then a new one.
    pub(super) fn draw(rng: &mut impl Rng, caller: u64) -> Self {
        let index = WEIGHTS.pick(rng);
        let zone = &DESTINATIONS[index];
        let known = match rng.random_range(0..10) {
            0..4 => mix(&[caller, rng.random_range(0..6)]) % 1_000_000_007,
            4..8 => rng.random_range(0..900).min(rng.random_range(0..900)),
            _ => rng.random_range(0..1_000_000_007),
        };
        let subscriber = mix(&[known, index as u64]) % 10_u64.pow(zone.digits);
        let digits = zone.digits as usize;
        let number = format!("{}{subscriber:0digits$}", zone.prefix);
        Self { zone, zone_id: i32::try_from(index + 1).unwrap_or(0), number }
    }

    /// As the customer may see it.
    pub(super) fn masked(&self) -> String {
        let shown = self.number.len().saturating_sub(3);
        format!("{}XXX", &self.number[..shown])
    }
}
