//! Ids that look like the real ones and come out the same for the same seed.

use std::iter;

const BASE62: &[u8] = b"0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz";

/// A seeded source of ids.
#[derive(Clone, Debug)]
pub(super) struct Identifiers(fastrand::Rng);

impl Identifiers {
    pub(super) fn new(seed: u64) -> Self {
        Self(fastrand::Rng::with_seed(seed))
    }

    fn text(&mut self, alphabet: &[u8], length: usize) -> String {
        iter::repeat_with(|| char::from(alphabet[self.0.usize(..alphabet.len())])).take(length).collect()
    }

    /// Letters and digits.
    pub(super) fn base62(&mut self, length: usize) -> String {
        self.text(BASE62, length)
    }

    /// Lower-case hexadecimal digits.
    pub(super) fn hex(&mut self, length: usize) -> String {
        self.text(&BASE62[..10].iter().copied().chain(*b"abcdef").collect::<Vec<u8>>(), length)
    }

    /// A random (version 4) UUID.
    pub(super) fn uuid(&mut self) -> String {
        uuid::Builder::from_random_bytes(self.0.u128(..).to_be_bytes()).into_uuid().to_string()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_same_seed_gives_the_same_ids() {
        let (mut one, mut other) = (Identifiers::new(7), Identifiers::new(7));
        assert_eq!(one.base62(17), other.base62(17));
        assert_eq!(one.uuid(), other.uuid());
        assert_ne!(one.uuid(), one.uuid());
        assert!(one.hex(24).bytes().all(|b| b.is_ascii_hexdigit() && !b.is_ascii_uppercase()));
    }
}
