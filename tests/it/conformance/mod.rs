//! What every sink must do, whatever it is made of. A new sink adds a [`Subject`] and a line to the list at the end.

mod places;
mod promises;
mod subject;

use subject::Subject;

/// All of it, in one vault.
fn conforms(subject: Subject) {
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build().unwrap();
    runtime.block_on(async {
        promises::a_replacement_is_whole_or_invisible(&subject).await;
        promises::a_receipt_is_written_once(&subject).await;
        promises::what_is_not_what_was_sealed_never_becomes_live(&subject).await;
        promises::what_looks_unchanged_is_sent(&subject).await;
        promises::a_limit_takes_its_time(&subject).await;
        promises::a_publishing_that_is_given_up_does_no_harm(&subject).await;
        promises::an_error_halfway_does_no_harm(&subject).await;
        promises::notes_and_removal(&subject).await;
        promises::two_writers_do_not_mix(&subject).await;
        promises::fifteen_hundred_days_are_listed(&subject).await;
    });
    drop(runtime);
}

fn sizes(subject: Subject) {
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build().unwrap();
    runtime.block_on(promises::round_trip_of_many_sizes(&subject));
}

macro_rules! conformance {
    ($($name:ident: $subject:expr;)*) => {
        $(mod $name {
            use super::places;

            #[test]
            fn conforms() {
                super::conforms($subject);
            }

            #[test]
            fn round_trip_of_many_sizes() {
                super::sizes($subject);
            }
        })*
    };
}

conformance! {
    a_directory: places::local();
    rsync_over_ssh: places::rsync();
    rsync_with_rrsync: places::rrsync();
    rsync_with_a_limit: places::limited(places::over_ssh("rsync", ":", "bandwidth = \"40MiB\"\n", None));
    rsync_to_a_daemon: places::to_daemon();
    rsync_to_a_directory: places::to_directory("rsync");
    rdiff_over_ssh: places::rdiff();
    rdiff_to_a_directory: places::to_directory("rdiff");
    s3_that_ignores_conditions: places::garage("");
    s3_with_a_limit: places::limited(places::garage("bandwidth = \"40MiB\"\n"));
    s3_that_honours_conditions: places::moto();
}
