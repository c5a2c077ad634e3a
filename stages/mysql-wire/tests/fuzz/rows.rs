//! Rows of both protocols, and the values that are sent beside a statement.

use cdrvault_mysql_wire::{Bound, Connection, Failure, LONGEST_ROW, push_with_length};
use proptest::prelude::*;
use proptest::test_runner::TestCaseResult;

use crate::captured::{self, SELECT};
use crate::damage::{apply, damages};
use crate::encoded::{
    self, KINDS, Packet, Shape, Value, answer, binary_result, column, done, end, framed, text_result,
};
use crate::packets::values;
use crate::plain::{Plain, Rows};
use crate::script::Script;
use crate::{fuzz, now};

/// Bytes, mostly few, and with lengths around those that are written in another way.
fn bytes() -> impl Strategy<Value = Vec<u8>> {
    prop_oneof![
        8 => prop::collection::vec(any::<u8>(), 0..12),
        1 => (245..260_usize, any::<u8>()).prop_map(|(length, byte)| vec![byte; length]),
        1 => (65_530..65_540_usize, any::<u8>()).prop_map(|(length, byte)| vec![byte; length]),
    ]
}

fn value(shape: Shape) -> BoxedStrategy<Value> {
    let bytes = match shape {
        Shape::Wide(width) => prop::collection::vec(any::<u8>(), width).boxed(),
        Shape::Time => prop::sample::select(&[0_u8, 4, 7, 8, 11, 12][..])
            .prop_flat_map(|length| {
                prop::collection::vec(any::<u8>(), usize::from(length))
                    .prop_map(move |bytes| [&[length], &bytes[..]].concat())
            })
            .boxed(),
        Shape::Bytes => bytes().boxed(),
    };
    prop::option::weighted(0.8, bytes).boxed()
}

/// Columns, and rows of them.
fn binary() -> impl Strategy<Value = (Vec<(u8, Shape)>, Rows)> {
    prop::collection::vec(prop::sample::select(&KINDS[..]), 1..24).prop_flat_map(|kinds| {
        let row: Vec<_> = kinds.iter().map(|(_, shape)| value(*shape)).collect();
        (Just(kinds), prop::collection::vec(row, 0..4))
    })
}

fn text() -> impl Strategy<Value = (usize, Rows)> {
    (1..300_usize).prop_flat_map(|columns| {
        let row = prop::collection::vec(value(Shape::Bytes), columns.min(24));
        let widened = row.prop_map(move |mut row: Vec<Value>| {
            row.resize(columns, None);
            row
        });
        (Just(columns), prop::collection::vec(widened, 0..4))
    })
}

/// All rows of a query by the binary protocol.
fn selected(said: Vec<u8>, pieces: &[usize], columns: usize) -> Result<Rows, Failure> {
    let (script, _) = Script::new(said, pieces);
    let mut connection = Connection::on(script);
    now(async {
        let mut rows = Vec::new();
        let mut selected = connection.select("SELECT").await?;
        while let Some(row) = selected.next().await? {
            rows.push((0..columns).map(|column| row.get(column).map(<[u8]>::to_vec)).collect());
        }
        Ok(rows)
    })
}

fn queried(said: Vec<u8>, columns: usize) -> Result<Rows, Failure> {
    let (script, _) = Script::new(said, &[]);
    now(Connection::on(script).query("SELECT")).map(|rows| values(&rows, columns))
}

/// Where to cut: the ends of packets, and places in between.
fn cuts(packets: &[Packet], some: &[prop::sample::Index]) -> Vec<usize> {
    let whole = framed(packets).len();
    let ends = (0..packets.len()).map(|count| framed(&packets[..count]).len());
    let ends: Vec<usize> = ends.flat_map(|end| [end, end + 2, end + 4, end + 5]).collect();
    let some = some.iter().map(|index| index.index(whole));
    ends.into_iter().chain(some).filter(|cut| *cut < whole).collect()
}

#[test]
fn rows_of_text_are_those_that_were_written_and_a_cut_is_an_error() {
    let inputs = (text(), prop::collection::vec(any::<prop::sample::Index>(), 10));
    fuzz(150, &inputs, |((columns, rows), some)| {
        let packets = answer(text_result(columns, &rows));
        let said = framed(&packets);
        prop_assert!(queried(said.clone(), columns).unwrap() == rows, "other rows");
        for cut in cuts(&packets[packets.len() - rows.len() - 2..], &some) {
            let missing = framed(&packets[packets.len() - rows.len() - 2..]).len() - cut;
            prop_assert!(queried(said[..said.len() - missing].to_vec(), columns).is_err(), "{} are missing", missing);
        }
        Ok(())
    });
}

#[test]
fn binary_rows_are_those_that_were_written_and_a_cut_is_an_error() {
    let inputs = (
        binary(),
        prop::collection::vec(1..70_000_usize, 0..3),
        prop::collection::vec(any::<prop::sample::Index>(), 10),
    );
    fuzz(400, &inputs, |((kinds, rows), pieces, some)| {
        let packets: Vec<Packet> = binary_result(&kinds, &rows).into_iter().flat_map(answer).collect();
        let said = framed(&packets);
        prop_assert!(selected(said.clone(), &pieces, kinds.len()).unwrap() == rows, "other rows");
        for cut in cuts(&packets, &some) {
            prop_assert!(selected(said[..cut].to_vec(), &pieces, kinds.len()).is_err(), "cut at {}", cut);
        }
        Ok(())
    });
}

#[test]
fn damaged_rows_are_read_as_by_a_plain_decoder() {
    let made = binary().prop_map(|(kinds, rows)| binary_result(&kinds, &rows).into_iter().flat_map(answer).collect());
    let packets = prop_oneof![2 => made.boxed(), 1 => Just(captured::packets(SELECT)).boxed()];
    fuzz(4_000, &(packets, damages(), any::<bool>()), |(packets, damages, renumber): (Vec<Packet>, _, _)| {
        read_as_by_a_plain_decoder(&apply(packets, &damages, renumber))
    });
}

fn read_as_by_a_plain_decoder(said: &[u8]) -> TestCaseResult {
    let plain = Plain { rest: said, number: 1 }.select(LONGEST_ROW);
    let columns = plain.as_ref().and_then(|rows| rows.first()).map_or(1, Vec::len);
    match (selected(said.to_vec(), &[], columns), plain) {
        (Ok(rows), Some(plain)) => prop_assert_eq!(rows, plain),
        (Err(_), None) => {}
        (Err(error), Some(_)) => prop_assert!(false, "{}", error),
        (Ok(rows), None) => prop_assert!(false, "{} rows of what is wrong", rows.len()),
    }
    Ok(())
}

#[test]
fn a_column_of_another_form_is_an_error() {
    let sound = column(0xfd);
    let with = |at: usize, bytes: &[u8]| [&sound[..at], bytes, &sound[at + bytes.len()..]].concat();
    let mut wrong = vec![
        // Found by a long run: a text whose length is NULL, as an empty one.
        b"\x03def\x07billing\x01t\x01\x01\xfb\x01c\x0c-\0\xff\xff\0\0\0\0\0\0\0\0".to_vec(),
        // Another catalog, another length of the rest, a type that is not known.
        with(1, b"x"),
        with(20, b"\x0d"),
        with(27, b"\x80"),
        [&sound[..], &[0]].concat(),
        b"\xff\x87\x07#70100Connection was killed".to_vec(),
        end(),
    ];
    // Each text may be cut short, and its length may be what no length is.
    wrong.extend((0..sound.len()).map(|end| sound[..end].to_vec()));
    wrong.extend([4, 12, 14, 16, 18].into_iter().flat_map(|at| [with(at, b"\xfb"), with(at, b"\xff")]));
    for wrong in wrong {
        let result =
            |columns: [Vec<u8>; 2]| answer([encoded::length(2)].into_iter().chain(columns).chain([end(), end()]));
        let prepared = |count: [u8; 2], column: &[u8]| {
            answer([vec![0, 7, 0, 0, 0, count[0], 0, count[1], 0, 0, 0, 0], column.to_vec(), end()])
        };
        let empty = answer([vec![0, 7, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0]]);
        let damaged = framed(&result([sound.clone(), wrong.clone()]));
        // By the text protocol; by the binary one; of a statement's columns, and of its parameters.
        assert!(queried(damaged.clone(), 2).is_err(), "{wrong:?}");
        assert!(selected([framed(&empty), damaged].concat(), &[], 2).is_err(), "{wrong:?}");
        let whole = framed(&result([sound.clone(), sound.clone()]));
        assert!(selected([framed(&empty), whole.clone()].concat(), &[], 2).is_ok());
        for count in [[1, 0], [0, 1]] {
            assert!(selected([framed(&prepared(count, &sound)), whole.clone()].concat(), &[], 2).is_ok());
            assert!(selected([framed(&prepared(count, &wrong)), whole.clone()].concat(), &[], 2).is_err(), "{wrong:?}");
        }
    }
}

#[test]
fn values_beside_a_statement_are_sent_as_they_are() {
    let bound = prop_oneof![bytes().prop_map(Ok), ".{0,9}".prop_map(Err)];
    fuzz(300, &prop::collection::vec(bound, 0..20), |given: Vec<Result<Vec<u8>, String>>| {
        let count = given.len() as u8;
        let mut prepared = vec![vec![0, 9, 8, 7, 6, 0, 0, count, 0, 0, 0, 0]];
        if count > 0 {
            prepared.extend((0..count).map(|_| encoded::column(0xfd)).chain([encoded::end()]));
        }
        let said = [framed(&answer(prepared)), framed(&answer([done()]))].concat();
        let (script, talk) = Script::new(said, &[]);
        let bound: Vec<Bound> =
            given.iter().cloned().map(|value| value.map_or_else(Bound::Text, Bound::Bytes)).collect();
        now(Connection::on(script).execute_with("INSERT", &bound)).unwrap();

        let mut executed = b"\x17\x09\x08\x07\x06\0\x01\0\0\0".to_vec();
        if count > 0 {
            executed.resize(executed.len() + given.len().div_ceil(8), 0);
            executed.push(1);
            executed.extend(given.iter().flat_map(|value| if value.is_ok() { [0xfc, 0] } else { [0xfd, 0] }));
            executed.extend(given.iter().flat_map(|value| match value {
                Ok(bytes) => encoded::text(bytes),
                Err(text) => encoded::text(text.as_bytes()),
            }));
        }
        let sent = [b"\x16INSERT".to_vec(), executed, b"\x19\x09\x08\x07\x06".to_vec()];
        let sent: Vec<Packet> = sent.into_iter().map(|body| Packet { number: 0, body, length: None }).collect();
        prop_assert!(talk.lock().unwrap().heard == framed(&sent), "other bytes");
        Ok(())
    });
}

#[test]
fn a_length_is_written_as_the_documentation_tells() {
    for length in [0, 1, 0xfa, 0xfb, 0xfc, 0xffff, 0x1_0000, 0xff_ffff, 0x100_0000] {
        let bytes = vec![7; length];
        let mut written = Vec::new();
        push_with_length(&mut written, &bytes);
        assert!(written == encoded::text(&bytes), "{length}");
    }
}

#[test]
fn what_was_captured_is_read() {
    let rows = selected(framed(&captured::packets(SELECT)), &[], 23).unwrap();
    assert_eq!(rows.len(), 3);
    assert_eq!(rows[0][0].as_deref(), Some(&[1, 0, 0, 0][..]));
    assert_eq!(rows[0][16].as_deref(), Some(&b"\0\xfb\xfc\xfd\xfe\xff"[..]));
    assert!(rows[1][1..].iter().all(Option::is_none));
    assert_eq!(rows[2][15].as_ref().map(Vec::len), Some(400));
    let texts = queried(framed(&captured::packets(captured::QUERIES[0])), 23).unwrap();
    assert_eq!(texts[0][9].as_deref(), Some(&b"2026-01-05 10:11:12.345678"[..]));
    assert_eq!(texts[2][16].as_deref(), Some(&b""[..]));
}
