//! Framing: packets in parts, numbers, limits.

use cdrvault_mysql_wire::{Connection, Failure, LONGEST_ROW, Row};
use proptest::prelude::*;
use proptest::test_runner::TestCaseResult;

use crate::captured::{self, QUERIES};
use crate::damage::{apply, damages};
use crate::encoded::{PART, Packet, answer, column, done, end, framed, length, text, text_result};
use crate::plain::{Plain, Rows};
use crate::script::Script;
use crate::{fuzz, now};

/// The values of rows that have so many.
pub(crate) fn values(rows: &[Row], columns: usize) -> Rows {
    rows.iter().map(|row| (0..columns).map(|column| row.get(column).map(<[u8]>::to_vec)).collect()).collect()
}

/// Lengths of packets around those at which something changes.
fn lengths() -> impl Strategy<Value = usize> {
    prop_oneof![
        40 => 0..300_usize,
        10 => 65_520..65_550_usize,
        10 => (128 << 10) - 20..(128 << 10) + 20_usize,
        1 => PART - 12..PART + 4,
        1 => 2 * PART - 12..2 * PART + 4,
    ]
}

#[test]
fn packets_come_whole_however_they_are_cut() {
    let inputs = (prop::collection::vec((lengths(), any::<u8>()), 0..5), prop::collection::vec(1..9_000_usize, 0..4));
    fuzz(40, &inputs, |(rows, mut pieces)| {
        // No more than an answer may come to, with what it takes to keep it.
        let mut all = 0;
        let fit = rows.iter().take_while(|(length, _)| {
            all += length + 1024;
            all <= LONGEST_ROW
        });
        let rows: Rows = fit.map(|(length, byte)| vec![Some(vec![*byte; *length])]).collect();
        let mut said = framed(&answer(text_result(1, &rows)));
        said.extend(framed(&answer([done()])));
        if said.len() > 1 << 20 {
            for piece in &mut pieces {
                *piece *= 64;
            }
        }
        let (script, talk) = Script::new(said, &pieces);
        let mut connection = Connection::on(script);
        let read = now(connection.query("SELECT c FROM t")).unwrap();
        prop_assert!(values(&read, 1) == rows, "other rows");
        now(connection.ping()).unwrap();
        // Each command begins to count anew.
        prop_assert_eq!(&talk.lock().unwrap().heard, b"\x10\0\0\0\x03SELECT c FROM t\x01\0\0\0\x0e");
        Ok(())
    });
}

#[test]
fn statements_are_sent_in_parts_that_make_them_again() {
    let inputs = prop_oneof![20 => 0..3_000_usize, 1 => PART - 4..PART + 4, 1 => 2 * PART - 4..2 * PART + 4];
    fuzz(30, &inputs, |length| {
        let (script, talk) = Script::new(framed(&answer([done()])), &[]);
        let statement = vec![b'x'; length];
        let mut connection = Connection::on(script);
        // The answer counts on from what was sent.
        let parts = (length + 1) / PART;
        let answered = now(connection.execute(&statement));
        prop_assert_eq!(answered.is_ok(), parts == 0);
        let mut body = vec![3];
        body.extend(statement);
        let mut sent = answer([body]);
        sent[0].number = 0;
        prop_assert!(talk.lock().unwrap().heard == framed(&sent), "{} bytes", length);
        Ok(())
    });
}

#[test]
fn damaged_packets_are_read_as_by_a_plain_decoder() {
    let small = prop::collection::vec(prop::option::of(prop::collection::vec(any::<u8>(), 0..20)), 3);
    let made = prop::collection::vec(small, 0..4).prop_map(|rows| answer(text_result(3, &rows)));
    let packets = prop_oneof![made, (0..QUERIES.len()).prop_map(|which| captured::packets(QUERIES[which]))];
    let inputs = (packets, damages(), any::<bool>(), prop::collection::vec(1..40_usize, 0..4));
    fuzz(4_000, &inputs, |(packets, damages, renumber, pieces)| {
        read_as_by_a_plain_decoder(apply(packets, &damages, renumber), &pieces)
    });
}

#[test]
fn what_damaged_packets_once_did_they_do_no_more() {
    // Found by long runs. An error that is too short for its number, after which the connection took another statement.
    for error in [&b"\xff"[..], b"\xff\x19"] {
        let packet = |number| Packet { number, body: error.to_vec(), length: None };
        let begun = |count| answer(text_result(1, &[]).into_iter().take(count).chain([error.to_vec()]));
        // In the place of the answer, of a column, of the columns' end and of a row; and out of order.
        for packets in [begun(0), begun(1), begun(2), begun(3), vec![packet(9)]] {
            let said = [framed(&packets), framed(&answer([done()]))].concat();
            read_as_by_a_plain_decoder(said, &[]).unwrap();
        }
    }
}

/// And after a failure, nothing that is left over is taken for the next answer.
fn read_as_by_a_plain_decoder(said: Vec<u8>, pieces: &[usize]) -> TestCaseResult {
    let plain = Plain { rest: &said, number: 1 }.query(LONGEST_ROW);
    let (script, _) = Script::new(said.clone(), pieces);
    let mut connection = Connection::on(script);
    let read = now(connection.query("SELECT"));
    match (&read, &plain) {
        (Ok(rows), Some(plain)) => {
            let columns = plain.first().map_or(1, Vec::len);
            prop_assert_eq!(&values(rows, columns), plain);
        }
        (Err(_), None) => {}
        _ => prop_assert!(false, "{:?}, where it should be {:?}", read.map(|rows| rows.len()), plain),
    }
    if !matches!(read, Ok(_) | Err(Failure::Server { .. })) {
        let next = now(connection.ping());
        prop_assert!(matches!(next, Err(Failure::Protocol(_))), "{:?} after {:?}", next, read.map(|rows| rows.len()));
    }
    Ok(())
}

#[test]
fn after_a_failure_no_statement_is_taken() {
    let column_end = || [column(0xfd), end()];
    let prepared = |columns: u8, parameters: u8| vec![0, 7, 0, 0, 0, columns, 0, parameters, 0, 0, 0, 0];
    let result = answer([length(1)].into_iter().chain(column_end()).chain([end()]));
    let refuses = |connection: &mut Connection, failed: Result<(), Failure>| {
        assert!(matches!(failed, Err(Failure::Protocol(_))), "{failed:?}");
        assert!(matches!(now(connection.ping()), Err(Failure::Protocol(_))));
        assert!(matches!(now(connection.query("SELECT")).map(drop), Err(Failure::Protocol(_))));
        assert!(matches!(now(connection.select("SELECT")).map(drop), Err(Failure::Protocol(_))));
    };
    let on = |answers: &[Vec<Packet>]| {
        // More than enough to answer whatever is asked after that.
        let more = framed(&answer([done()])).repeat(4);
        let said: Vec<u8> = answers.iter().flat_map(|packets| framed(packets)).chain(more).collect();
        Connection::on(Script::new(said, &[]).0)
    };

    // Rows for a ping, none for a query, and rows for a statement that writes.
    let mut connection = on(std::slice::from_ref(&result));
    let failed = now(connection.ping());
    refuses(&mut connection, failed);
    let mut connection = on(&[answer([prepared(0, 0)]), answer([done()])]);
    let failed = now(connection.select("SELECT")).map(drop);
    refuses(&mut connection, failed);
    let mut connection = on(&[answer([prepared(0, 0)]), result]);
    let failed = now(connection.execute_with("INSERT", &[])).map(drop);
    refuses(&mut connection, failed);

    // Bytes that are not a row, and a row after them.
    let prepared = answer([prepared(1, 0)].into_iter().chain(column_end()));
    let row = vec![0, 0, 1, b'a'];
    let rows = [length(1)].into_iter().chain(column_end()).chain([vec![1], row, end()]);
    let mut connection = on(&[prepared, answer(rows)]);
    let failed = now(async {
        let mut selected = connection.select("SELECT").await?;
        assert!(matches!(selected.next().await.map(drop), Err(Failure::Protocol(_))));
        selected.next().await.map(drop)
    });
    refuses(&mut connection, failed);
}

#[test]
fn a_row_may_be_as_long_as_was_told_and_no_longer() {
    let inputs = (1 << 20..3_usize << 20, -2..3_isize, prop::collection::vec(1..1_usize << 20, 1..3));
    fuzz(40, &inputs, |(limit, more, pieces): (usize, isize, Vec<usize>)| {
        // A text of this length has its length in four bytes before it.
        let row = text(&vec![7; limit.saturating_add_signed(more) - 4]);
        let said = framed(&answer([length(1), column(0xfd), end(), row, end()]));
        let (script, talk) = Script::new(said, &pieces);
        let mut connection = Connection::on(script);
        connection.take_rows_up_to(limit);
        let read = now(connection.query("SELECT"));
        if more <= 0 {
            prop_assert_eq!(read.unwrap().len(), 1);
        } else {
            prop_assert!(matches!(read, Err(Failure::TooLong { limit: told }) if told == limit), "not refused");
            prop_assert!(talk.lock().unwrap().given < 1 << 20, "it is refused by its header");
        }
        Ok(())
    });
}

#[test]
fn a_server_without_end_is_heard_up_to_the_limit() {
    let inputs = (0..4_usize, 0..PART, any::<bool>(), 0..40_usize << 20, any::<bool>());
    fuzz(12, &inputs, |(parts, last, is_there, limit, as_row)| {
        let mut said = if as_row { framed(&answer([length(1), column(0xfd), end()])) } else { Vec::new() };
        let before = said.len();
        let first = if as_row { 4 } else { 1 };
        for number in 0..=parts {
            let part = if number < parts { PART } else { last };
            said.extend(&part.to_le_bytes()[..3]);
            said.push(first + number as u8);
            // What is missing comes as zeros.
            said.resize(said.len() + if is_there || number < parts { part } else { 0 }, 7);
        }
        let (script, talk) = Script::new(said, &[]);
        let mut connection = Connection::on(script.without_end());
        connection.take_rows_up_to(limit);
        prop_assert!(now(connection.query("SELECT")).is_err());
        let most = if as_row { limit.max(1 << 20) } else { 1 << 20 };
        let given = talk.lock().unwrap().given;
        prop_assert!(given <= before + most + (512 << 10), "{} bytes", given);
        Ok(())
    });
}

#[test]
fn many_small_rows_are_no_way_around_the_limit() {
    // What a row takes to be kept is many times its bytes.
    let mut said = framed(&answer([length(1), column(0xfd), end()]));
    let mut rows = Vec::new();
    for number in 0..=255_u8 {
        rows.extend([1, 0, 0, number.wrapping_add(4), 0xfb]);
    }
    for _ in 0..(16 << 20) / rows.len() {
        said.extend_from_slice(&rows);
    }
    let (script, _) = Script::new(said, &[]);
    let read = now(Connection::on(script).query("SELECT"));
    assert!(matches!(read, Err(Failure::TooLong { limit: LONGEST_ROW })), "{:?}", read.map(|rows| rows.len()));
    assert!(crate::peak() < 300 << 10, "{} KiB", crate::peak());
}

#[test]
fn an_error_is_no_longer_than_other_words() {
    let error = |letters| {
        let said = [b"\xff\x19\x04#70100", &vec![b'x'; letters][..]].concat();
        let (script, _) = Script::new(framed(&answer([length(1), column(0xfd), end(), said])), &[]);
        now(Connection::on(script).query("SELECT")).map(drop)
    };
    assert!(matches!(error(100), Err(Failure::Server { number: 1049, message }) if message.len() == 100));
    assert!(matches!(error(2 << 20), Err(Failure::TooLong { limit: 1_048_576 })));
}
