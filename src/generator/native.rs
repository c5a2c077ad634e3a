//! How VoIP servers write calls down. Each format is one that Asterisell imports; the values are invented.

use std::fmt::Write as _;

use jiff::civil::DateTime;

use super::row::Clock;

/// A native format.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Format {
    /// Asterisk's `Master.csv`.
    Asterisk,
    /// The semicolons, padded numbers and decimal commas of an Italian carrier.
    Carrier,
    /// The semicolons of a softswitch.
    Softswitch,
}

/// What a server knows of a call.
#[derive(Debug)]
pub(super) struct Facts<'c> {
    pub(super) at: DateTime,
    pub(super) customer: i32,
    pub(super) name: &'c str,
    pub(super) extension: i32,
    pub(super) remote: &'c str,
    pub(super) zone: &'c str,
    pub(super) incoming: bool,
    pub(super) duration: i32,
    pub(super) billsec: i32,
    /// In ten-thousandths.
    pub(super) cost: i64,
    /// The number of the call on its day.
    pub(super) sequence: u32,
}

impl Format {
    /// The format of a customer's server, from a number below 10.
    pub(super) fn of_customer(draw: u8) -> Self {
        match draw {
            0..6 => Self::Asterisk,
            6..8 => Self::Carrier,
            _ => Self::Softswitch,
        }
    }

    /// The row of `ar_physical_format`, and of `ar_cdr_provider`.
    pub(super) fn id(self) -> i32 {
        match self {
            Self::Asterisk => 1,
            Self::Carrier => 2,
            Self::Softswitch => 3,
        }
    }

    /// The call in this format.
    pub(super) fn content(self, call: &Facts<'_>) -> String {
        match self {
            Self::Asterisk => asterisk(call),
            Self::Carrier => carrier(call),
            Self::Softswitch => softswitch(call),
        }
    }
}

/// How a call ended, in Asterisk's words.
pub(super) fn disposition(billsec: i32, sequence: u32) -> &'static str {
    match (billsec, sequence % 5) {
        (1.., _) => "ANSWERED",
        (_, 0) => "BUSY",
        (_, 1) => "FAILED",
        _ => "NO ANSWER",
    }
}

/// `2024-03-05 09:12:44,"""Bob"" <2020>",2020,0039051123,from-int,SIP/2020-01,SIP/trunk-02,Dial,SIP/trunk,200,187,ANSWERED,3,acc1,...`
fn asterisk(call: &Facts<'_>) -> String {
    let Facts { extension, remote, duration, billsec, sequence, .. } = *call;
    let (trunk, channel) = (sequence % 4, sequence % 4096);
    let mut line = String::with_capacity(224);
    let _ = write!(line, "{},\"\"\"{}\"\" ", Clock(call.at), call.name);
    let _ = if call.incoming {
        write!(
            line,
            "<00{remote}>\",00{remote},{extension},from-trunk,SIP/trunk-{trunk:02}{channel:06x},SIP/{extension}-{channel:06x}"
        )
    } else {
        write!(
            line,
            "<{extension}>\",{extension},00{remote},from-int,SIP/{extension}-{channel:06x},SIP/trunk-{trunk:02}{channel:06x}"
        )
    };
    let _ = write!(line, ",Dial,SIP/trunk-{trunk:02}/00{remote},{duration},{billsec},");
    let _ = write!(line, "{},3,acc{},", disposition(billsec, sequence), call.customer);
    let epoch = call.at.to_zoned(jiff::tz::TimeZone::UTC).map_or(0, |at| at.timestamp().as_second());
    let _ = write!(line, "{epoch}.{sequence},,");
    line
}

/// `00001;07/04/2024 09.12.00;05221503000     ;+393480000000       ;0000011;0,003483;Cellulare X`
fn carrier(call: &Facts<'_>) -> String {
    let at = call.at;
    let own = format!("0{}{:04}", 522_000 + call.customer, call.extension);
    let remote = format!("+{}", call.remote);
    let (from, to) = if call.incoming { (&remote, &own) } else { (&own, &remote) };
    let mut line = String::with_capacity(112);
    let _ = write!(line, "{:05};{:02}/{:02}/{:04} ", call.sequence % 100_000, at.day(), at.month(), at.year());
    let _ = write!(line, "{:02}.{:02}.{:02};{from:<16};{to:<20};", at.hour(), at.minute(), at.second());
    let _ = write!(line, "{:07};{},{:04}00;{}", call.billsec, call.cost / 10_000, call.cost % 10_000, call.zone);
    line
}

/// `2024-03-05 09:12:44;49151000;90506000;CUST1;GW1;368;19435-1`
fn softswitch(call: &Facts<'_>) -> String {
    let own = format!("905{:05}{:04}", call.customer, call.extension);
    let (from, to) = if call.incoming { (call.remote, own.as_str()) } else { (own.as_str(), call.remote) };
    let mut line = String::with_capacity(96);
    let _ = write!(line, "{};{from};{to};CUST{};", Clock(call.at), call.customer);
    let _ = write!(line, "GW{};{};{}-1", 1 + call.sequence % 3, call.billsec, call.sequence);
    line
}
