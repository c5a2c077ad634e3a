//! The calls of one day.

use std::collections::VecDeque;

use jiff::civil::{Date, DateTime, Time};
use rand::{Rng, SeedableRng};
use rand_chacha::ChaCha8Rng;

use super::cdr::{Cdr, SourceCdr};
use super::destinations::Remote;
use super::hash::{mix, scatter};
use super::money::price;
use super::native::{Facts, Format, disposition};
use super::population::{Customer, Extension, Population};
use super::traffic::{Minutes, ordinal};

/// The kinds of call, as `ar_cdr.destination_type` numbers them.
mod kind {
    pub(super) const INCOMING: i16 = 1;
    pub(super) const OUTGOING: i16 = 2;
    pub(super) const INTERNAL: i16 = 3;
    pub(super) const ERROR: i16 = 5;
    pub(super) const SYSTEM: i16 = 6;
}

/// A row of `ar_cdr`, with the call that it was rated from where this is the first row of that call.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Rated {
    /// The row of `ar_source_cdr`; services and second legs have none of their own.
    pub source: Option<SourceCdr>,
    /// The row of `ar_cdr`.
    pub cdr: Cdr,
}

/// The calls of one day, in their order. Made by [`Generator::calls`](super::Generator::calls).
#[derive(Debug)]
pub struct Calls<'g> {
    rng: ChaCha8Rng,
    population: &'g Population,
    date: Date,
    minutes: Minutes,
    /// The seconds of this minute's calls, the last one first.
    seconds: Vec<i8>,
    minute: u32,
    /// Permutes the ids.
    key: u64,
    first_source: u32,
    sequence: u32,
    rows: u32,
    ready: VecDeque<Rated>,
}

impl<'g> Calls<'g> {
    pub(super) fn new(seed: u64, population: &'g Population, date: Date, calls: u64) -> Self {
        let key = mix(&[seed, ordinal(date), calls]);
        let mut calls = Self {
            rng: ChaCha8Rng::seed_from_u64(key),
            population,
            date,
            minutes: Minutes::new(date, calls),
            seconds: Vec::new(),
            minute: 0,
            key,
            first_source: u32::try_from(mix(&[key]) >> 34).unwrap_or(0),
            sequence: 0,
            rows: 0,
            ready: VecDeque::new(),
        };
        calls.charge_services();
        calls
    }

    /// The services that are charged on this day, at midnight.
    fn charge_services(&mut self) {
        let day = usize::try_from(self.date.day()).unwrap_or(1);
        let charged = self.population.customers().iter().skip(day - 1).step_by(31);
        for customer in charged {
            let cdr = self.service(customer);
            self.ready.push_back(Rated { source: None, cdr });
        }
    }

    /// Makes the calls of the next minute that has some ready to be rated.
    fn next_minute(&mut self) -> Option<()> {
        let (minute, calls) = self.minutes.find(|(_, calls)| *calls > 0)?;
        self.minute = minute;
        self.seconds.extend((0..calls).map(|_| self.rng.random_range(0..60_i8)));
        self.seconds.sort_unstable_by(|a, b| b.cmp(a));
        Some(())
    }

    fn at(&self, second: i8) -> DateTime {
        let hour = i8::try_from(self.minute / 60).unwrap_or(0);
        let minute = i8::try_from(self.minute % 60).unwrap_or(0);
        let time = Time::new(hour, minute, second, 0).unwrap_or(Time::midnight());
        DateTime::from_parts(self.date, time)
    }

    /// Ids look random, and no two are the same on one day.
    fn next_id(&mut self) -> i32 {
        self.rows += 1;
        scatter(self.rows, self.key)
    }

    fn call(&mut self, at: DateTime) -> Rated {
        self.sequence += 1;
        let extension = self.population.pick(&mut self.rng);
        let caller = u64::from(extension.id().unsigned_abs());
        let remote = Remote::draw(&mut self.rng, caller);
        let kind = match self.rng.random_range(0..1000) {
            0..4 => kind::ERROR,
            4..7 => kind::SYSTEM,
            7..127 => kind::INTERNAL,
            127..450 => kind::INCOMING,
            _ => kind::OUTGOING,
        };
        let billsec = self.talk();
        let duration = billsec + self.rng.random_range(2..if billsec == 0 { 45 } else { 18 });
        let source = self.source(at, kind, extension, &remote, duration, billsec);

        let mut cdr = blank(at, self.next_id());
        cdr.destination_type = kind;
        cdr.duration = duration;
        cdr.billsec = billsec;
        cdr.from_source_cdr_id = Some(source.id);
        cdr.exported_internal_telephone_number = extension.number().to_string();
        if kind == kind::ERROR {
            self.fail(&mut cdr, &source, extension);
        } else {
            self.assign(&mut cdr, extension);
            match kind {
                kind::OUTGOING => self.rate_outgoing(&mut cdr, extension.customer, &remote),
                kind::INCOMING => self.rate_incoming(&mut cdr, extension, &remote),
                _ => cdr.income = Some(0),
            }
        }
        Rated { source: Some(source), cdr }
    }

    /// Seconds of talk: every fourth call is not answered, most are short, a few go on for hours.
    fn talk(&mut self) -> i32 {
        match self.rng.random_range(0..1000) {
            0..240 => 0,
            240..640 => self.rng.random_range(1..90),
            640..900 => self.rng.random_range(30..360),
            900..990 => self.rng.random_range(180..1_800),
            _ => self.rng.random_range(900..14_400),
        }
    }

    fn source(
        &mut self,
        at: DateTime,
        kind: i16,
        extension: Extension<'_>,
        remote: &Remote,
        duration: i32,
        billsec: i32,
    ) -> SourceCdr {
        let format = extension.customer.format;
        let facts = Facts {
            at,
            customer: extension.customer.id,
            name: extension.customer.name,
            extension: extension.number(),
            remote: &remote.number,
            zone: remote.zone.name,
            incoming: kind == kind::INCOMING,
            duration,
            billsec,
            cost: price(remote.zone.cost, 0, billsec),
            sequence: self.sequence,
        };
        let mut content = Some(format.content(&facts));
        if kind == kind::ERROR {
            // Lines cut short, empty ones, and those that never arrived.
            content = match self.rng.random_range(0..8) {
                0 => None,
                1 => Some(String::new()),
                _ => content.map(|line| line.chars().take(31).collect()),
            };
        }
        SourceCdr {
            calldate: at,
            id: i32::try_from(self.first_source.wrapping_add(self.sequence) & 0x7fff_ffff).unwrap_or(0),
            ar_cdr_provider_id: format.id(),
            ar_physical_format_id: format.id(),
            content,
            is_hacked: i8::from(self.rng.random_range(0..8_000) == 0),
        }
    }

    /// Who made the call, and who pays.
    fn assign(&mut self, cdr: &mut Cdr, extension: Extension<'_>) {
        let customer = extension.customer;
        cdr.ar_organization_unit_id = Some(extension.id());
        cdr.cached_parent_id_hierarchy = Some(extension.path());
        cdr.billable_ar_organization_unit_id = Some(customer.id);
        cdr.exported_billable_customer_ar_party_id = Some(customer.party);
        cdr.ar_communication_channel_type_id = Some(customer.format.id());
        let state = disposition(cdr.billsec, self.sequence);
        cdr.imported_info = match customer.format {
            Format::Asterisk => Some(format!("acc{}\t{}\t{state}\t", customer.id, extension.number())),
            Format::Carrier => Some(format!("GW1\t\t{state}")),
            Format::Softswitch => None,
        };
    }

    fn rate_outgoing(&mut self, cdr: &mut Cdr, customer: &Customer, remote: &Remote) {
        let zone = remote.zone;
        let list = price(zone.income, zone.setup, cdr.billsec) * customer.discount / 100;
        let bundled = customer.has_bundle && zone.rate.starts_with("it-") && self.rng.random_range(0..3) == 0;
        cdr.income = Some(if bundled { 0 } else { list });
        cdr.cost_saving = bundled.then_some(list);
        cdr.bundle_ar_organization_unit_id = bundled.then_some(customer.id);
        cdr.cost = Some(price(zone.cost, 0, cdr.billsec));
        cdr.ar_vendor_id = Some(1 + remote.zone_id % 4);
        // One carrier says what it will charge, rarely the same.
        let told = price(zone.cost, 0, cdr.billsec) + self.rng.random_range(-2..=2);
        cdr.expected_cost = (customer.format == Format::Carrier).then_some(told.max(0));
        cdr.ar_telephone_prefix_id = Some(remote.zone_id);
        // A service number of the carrier is a refund.
        if zone.rate == "it-free" {
            cdr.cost = Some(-price(12, 0, cdr.billsec));
        }
        cdr.debug_cost_rate = Some(format!("vendor-{}/{}", 1 + remote.zone_id % 4, zone.rate));
        cdr.debug_income_rate = Some(format!("retail-{}/{}", customer.discount, zone.rate));
        self.address(cdr, remote);
        if self.rng.random_range(0..2_500) == 0 {
            cdr.count_of_calls = self.rng.random_range(2..40);
        }
    }

    /// Some incoming calls are forwarded at once, which makes a second, outgoing row.
    fn rate_incoming(&mut self, cdr: &mut Cdr, extension: Extension<'_>, remote: &Remote) {
        cdr.income = Some(0);
        cdr.cost = Some(0);
        cdr.ar_vendor_id = Some(1 + remote.zone_id % 4);
        self.address(cdr, remote);
        if cdr.billsec == 0 || self.rng.random_range(0..40) != 0 {
            return;
        }
        cdr.is_redirect = 1;
        let target = Remote::draw(&mut self.rng, u64::from(extension.id().unsigned_abs()));
        let mut leg = cdr.clone();
        leg.id = self.next_id();
        leg.destination_type = kind::OUTGOING;
        self.rate_outgoing(&mut leg, extension.customer, &target);
        self.ready.push_back(Rated { source: None, cdr: leg });
    }

    /// The number at the other end, in its three forms.
    fn address(&mut self, cdr: &mut Cdr, remote: &Remote) {
        cdr.cached_masked_external_telephone_number = Some(remote.masked());
        let ported = remote.zone.rate.contains("mobile") && self.rng.random_range(0..6) == 0;
        cdr.external_telephone_number_with_applied_portability =
            Some(if ported { format!("{}C0{}", remote.number, 1 + remote.zone_id % 9) } else { remote.number.clone() });
        cdr.cached_external_telephone_number = Some(remote.number.clone());
    }

    /// A call that could not be rated.
    fn fail(&mut self, cdr: &mut Cdr, source: &SourceCdr, extension: Extension<'_>) {
        cdr.error_destination_type = if self.rng.random_range(0..3) == 0 { kind::INCOMING } else { kind::OUTGOING };
        let key = match source.content {
            None => format!("empty source CDR - provider {}", source.ar_cdr_provider_id),
            Some(_) => format!("unknown extension - \"{}\"", extension.number()),
        };
        cdr.ar_problem_duplication_key = Some(key);
        if source.content.is_none() {
            cdr.exported_internal_telephone_number = String::new();
        }
    }

    /// The monthly charge of a service.
    fn service(&mut self, customer: &Customer) -> Cdr {
        let at = DateTime::from_parts(self.date, Time::midnight());
        let mut cdr = blank(at, self.next_id());
        let last = DateTime::from_parts(self.date.last_of_month(), Time::constant(23, 59, 59, 0));
        cdr.is_service_cdr = 1;
        cdr.to_calldate = Some(last);
        cdr.count_of_calls = customer.size();
        cdr.destination_type = kind::OUTGOING;
        cdr.ar_organization_unit_id = Some(customer.id);
        cdr.cached_parent_id_hierarchy = Some(customer.path().to_vec());
        cdr.billable_ar_organization_unit_id = Some(customer.id);
        cdr.exported_billable_customer_ar_party_id = Some(customer.party);
        cdr.income = Some(i64::from(customer.size()) * 49_000 * customer.discount / 100);
        cdr.cost = Some(0);
        cdr.cached_external_telephone_number = Some(format!("Canone mensile – {}", customer.name));
        cdr.debug_income_rate = Some("service/line".to_owned());
        cdr
    }
}

impl Iterator for Calls<'_> {
    type Item = Rated;

    fn next(&mut self) -> Option<Rated> {
        if let Some(rated) = self.ready.pop_front() {
            return Some(rated);
        }
        loop {
            if let Some(second) = self.seconds.pop() {
                return Some(self.call(self.at(second)));
            }
            self.next_minute()?;
        }
    }
}

/// A row with the defaults of the schema.
fn blank(calldate: DateTime, id: i32) -> Cdr {
    Cdr {
        calldate,
        id,
        is_service_cdr: 0,
        to_calldate: None,
        count_of_calls: 1,
        destination_type: 0,
        is_redirect: 0,
        duration: 0,
        billsec: 0,
        ar_organization_unit_id: None,
        cached_parent_id_hierarchy: None,
        billable_ar_organization_unit_id: None,
        bundle_ar_organization_unit_id: None,
        income: None,
        cost_saving: None,
        ar_vendor_id: None,
        ar_communication_channel_type_id: None,
        cost: None,
        expected_cost: None,
        ar_telephone_prefix_id: None,
        cached_external_telephone_number: None,
        external_telephone_number_with_applied_portability: None,
        cached_masked_external_telephone_number: None,
        error_destination_type: 0,
        ar_problem_duplication_key: None,
        debug_cost_rate: None,
        debug_income_rate: None,
        imported_info: None,
        exported_internal_telephone_number: String::new(),
        exported_billable_customer_ar_party_id: None,
        from_source_cdr_id: None,
    }
}
