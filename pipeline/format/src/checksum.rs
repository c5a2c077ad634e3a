//! The checksum that a JSON text of a vault carries as its last member: see docs/vault.md.

use sha2::{Digest as _, Sha256};

/// What stands before the checksum.
const MEMBER: &str = ",\"self-sha256\":\"";

/// The length of the last member: with 64 digits, a quote and a brace.
const LENGTH: usize = MEMBER.len() + 66;

/// A JSON object with at least one member, as it is stored: with the SHA-256 of what it would be without the last member.
pub fn seal(mut text: Vec<u8>) -> Vec<u8> {
    let sha256 = hex::encode(Sha256::digest(&text));
    text.pop();
    text.extend_from_slice(format!("{MEMBER}{sha256}\"}}").as_bytes());
    text
}

/// An error unless every bit is as it was written.
pub fn check(text: &[u8]) -> Result<(), String> {
    let (body, own) = text.split_at(text.len().saturating_sub(LENGTH));
    let mut hash = Sha256::new();
    hash.update(body);
    hash.update(b"}");
    if own == format!("{MEMBER}{}\"}}", hex::encode(hash.finalize())).as_bytes() {
        return Ok(());
    }
    Err("its checksum is wrong".to_owned())
}

/// Whether a text has a checksum: older versions wrote notes and identities without one.
pub fn is_sealed(text: &[u8]) -> bool {
    let name = b"\"self-sha256\"";
    text.windows(name.len()).any(|window| window == name)
}

/// The same as [`check`] of a text that has a checksum; any other is taken as it is.
pub fn check_if_sealed(text: &[u8]) -> Result<(), String> {
    if is_sealed(text) { check(text) } else { Ok(()) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_flipped_bit_is_noticed() {
        for text in [b"{\"a\":1}".to_vec(), b"{\n  \"a\": 1\n}".to_vec()] {
            let sealed = seal(text);
            check(&sealed).unwrap();
            serde_json::from_slice::<serde_json::Value>(&sealed).unwrap();
            for at in 0..sealed.len() {
                let mut other = sealed.clone();
                other[at] ^= 1;
                assert!(check(&other).is_err(), "byte {at}");
            }
        }
        assert!(check(b"{}").is_err());
        check_if_sealed(b"{}").unwrap();
    }
}
