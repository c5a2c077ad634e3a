//! Hashes that are the same on every machine and in every release.

/// Mixes some numbers into one (the finaliser of SplitMix64, <https://prng.di.unimi.it/splitmix64.c>).
pub(super) fn mix(numbers: &[u64]) -> u64 {
    numbers.iter().fold(0, |state, number| {
        let mut z = (state ^ number).wrapping_add(0x9e37_79b9_7f4a_7c15);
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    })
}

/// A permutation of 0..2^31: numbers that look random and never meet, as the key of `ar_cdr` needs them.
pub(super) fn scatter(number: u32, key: u64) -> i32 {
    const MASK: u32 = 0x7fff_ffff;
    let mut x = number & MASK;
    for round in key.to_le_bytes().map(u32::from).into_iter().take(3) {
        x = x.wrapping_add(round << 13) & MASK;
        x ^= x >> 16;
        // Odd factors are invertible modulo a power of two.
        x = x.wrapping_mul(0x2c1b_3c6d ^ (round << 1)) & MASK;
        x ^= x >> 15;
    }
    i32::try_from(x).unwrap_or(0)
}
