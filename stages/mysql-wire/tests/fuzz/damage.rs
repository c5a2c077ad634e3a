//! What can be wrong with packets.

use proptest::prelude::*;
use proptest::sample::Index;

use crate::encoded::{Packet, framed};

#[derive(Debug, Clone)]
pub(crate) enum Damage {
    /// A byte of a packet is another one.
    Byte(Index, Index, u8),
    /// Bytes are put into a packet.
    Insert(Index, Index, Vec<u8>),
    /// So many are taken out.
    Remove(Index, Index, usize),
    /// A packet comes twice, never, or in the place of another.
    Twice(Index),
    Never(Index),
    Swap(Index, Index),
    /// Its header tells another number or another length.
    Number(Index, u8),
    Length(Index, u32),
    /// The bytes end here.
    Cut(Index),
}

/// Bytes that mean something more often than others.
fn byte() -> impl Strategy<Value = u8> {
    prop_oneof![
        3 => prop::sample::select(&[0, 1, 2, 3, 4, 0x20, 0x7f, 0x80, 0xfa, 0xfb, 0xfc, 0xfd, 0xfe, 0xff][..]),
        1 => any::<u8>(),
    ]
}

/// Mostly of the bodies: what is wrong with the headers is soon found.
pub(crate) fn damages() -> impl Strategy<Value = Vec<Damage>> {
    let index = any::<Index>;
    let damage = prop_oneof![
        8 => (index(), index(), byte()).prop_map(|(packet, at, byte)| Damage::Byte(packet, at, byte)),
        3 => (index(), index(), prop::collection::vec(byte(), 1..9)).prop_map(|(packet, at, bytes)| Damage::Insert(packet, at, bytes)),
        3 => (index(), index(), 1..9_usize).prop_map(|(packet, at, count)| Damage::Remove(packet, at, count)),
        1 => index().prop_map(Damage::Twice),
        1 => index().prop_map(Damage::Never),
        1 => (index(), index()).prop_map(|(one, other)| Damage::Swap(one, other)),
        1 => (index(), any::<u8>()).prop_map(|(packet, number)| Damage::Number(packet, number)),
        1 => (index(), prop_oneof![0..300_u32, Just(0xff_ffff), 0..0x100_0000_u32]).prop_map(|(packet, length)| Damage::Length(packet, length)),
        1 => index().prop_map(Damage::Cut),
    ];
    prop::collection::vec(damage, 1..5)
}

/// The bytes of damaged packets, whose numbers count up again where `renumber` says so, so that the damage is noticed later.
pub(crate) fn apply(mut packets: Vec<Packet>, damages: &[Damage], renumber: bool) -> Vec<u8> {
    let numbers: Vec<u8> = packets.iter().map(|packet| packet.number).collect();
    let mut cut = None;
    for damage in damages {
        if packets.is_empty() {
            break;
        }
        let count = packets.len();
        match damage {
            Damage::Byte(packet, at, byte) => {
                let body = &mut packets[packet.index(count)].body;
                if !body.is_empty() {
                    let at = at.index(body.len());
                    body[at] = *byte;
                }
            }
            Damage::Insert(packet, at, bytes) => {
                let body = &mut packets[packet.index(count)].body;
                let at = at.index(body.len() + 1);
                body.splice(at..at, bytes.iter().copied());
            }
            Damage::Remove(packet, at, count_of_bytes) => {
                let body = &mut packets[packet.index(count)].body;
                let at = at.index(body.len() + 1);
                body.drain(at..(at + count_of_bytes).min(body.len()));
            }
            Damage::Twice(packet) => {
                let at = packet.index(count);
                packets.insert(at, packets[at].clone());
            }
            Damage::Never(packet) => drop(packets.remove(packet.index(count))),
            Damage::Swap(one, other) => packets.swap(one.index(count), other.index(count)),
            Damage::Number(packet, number) => packets[packet.index(count)].number = *number,
            Damage::Length(packet, length) => packets[packet.index(count)].length = Some(*length),
            Damage::Cut(at) => cut = Some(at),
        }
    }
    if renumber {
        for (packet, number) in packets.iter_mut().zip(numbers) {
            packet.number = number;
        }
    }
    let mut bytes = framed(&packets);
    if let Some(at) = cut {
        bytes.truncate(at.index(bytes.len() + 1));
    }
    bytes
}
