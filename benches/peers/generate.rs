//! Calls for the comparison with other tools, as the CSV that `LOAD DATA` reads: `ar_cdr.csv` and `ar_source_cdr.csv`.
#![allow(clippy::print_stderr, reason = "it is a command")]
#![allow(clippy::disallowed_methods, reason = "what it writes is read once and thrown away")]

use std::error::Error;
use std::fs::File;
use std::io::{BufWriter, Write as _};
use std::path::PathBuf;
use std::process::ExitCode;

use cdrvault::generator::{Generator, Settings, csv};
use jiff::ToSpan as _;
use jiff::civil::Date;

const USAGE: &str = "usage: generate FIRST-DAY DAYS CALLS-PER-DAY CALLS-OF-THE-LAST-DAY DIRECTORY";

fn main() -> ExitCode {
    match generate() {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("generate: {error}\n{USAGE}");
            ExitCode::FAILURE
        }
    }
}

fn generate() -> Result<(), Box<dyn Error>> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let [first, days, calls, last, directory] = arguments.as_slice() else { return Err("five arguments".into()) };
    let (first, days): (Date, i64) = (first.parse()?, days.parse()?);
    let (calls, calls_of_last): (u64, u64) = (calls.parse()?, last.parse()?);
    let directory = PathBuf::from(directory);
    let mut cdrs = BufWriter::new(File::create(directory.join("ar_cdr.csv"))?);
    let mut sources = BufWriter::new(File::create(directory.join("ar_source_cdr.csv"))?);
    let generator = Generator::new(Settings { calls_per_day: calls.max(calls_of_last), ..Settings::default() });
    for number in 0..days {
        let calls = if number + 1 == days { calls_of_last } else { calls };
        for rated in generator.exactly(first.checked_add(number.days())?, calls) {
            if let Some(source) = &rated.source {
                csv::write(&mut sources, source)?;
            }
            csv::write(&mut cdrs, &rated.cdr)?;
        }
    }
    cdrs.flush()?;
    sources.flush()?;
    Ok(())
}
