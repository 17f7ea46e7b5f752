//! Ids that look like real ones and are the same for the same seed.

use std::iter;

use okta_auth0_sync_clock::Timestamp;

const BASE62: &[u8] = b"0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz";

/// From the first day of the Gregorian calendar, where UUIDs count from, to 1970.
const GREGORIAN_MS: i64 = 12_219_292_800_000;

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

    /// The id of an event: a version 1 UUID whose time is that of publication, as in the example of
    /// Okta's API description (`dc9fd3c0-598c-11ef-8478-2b7584bf8d5a`, published 2024-08-13T15:58:20.353Z).
    pub(super) fn entry_uuid(&mut self, published: Timestamp) -> String {
        let random = self.0.u128(..).to_be_bytes();
        // In steps of 100 ns; below a millisecond it is random.
        let below = u64::from(u16::from_be_bytes([random[0], random[1]])) % 10_000;
        let since_1582 = u64::try_from(published.as_millisecond() + GREGORIAN_MS).unwrap_or(0) * 10_000 + below;
        let [a, b, c, d, e, f, g, h] = since_1582.to_be_bytes();
        let mut bytes = [e, f, g, h, c, d, a, b, 0, 0, 0, 0, 0, 0, 0, 0];
        bytes[8..].copy_from_slice(&random[8..]);
        let (variant, version) = (uuid::Variant::RFC4122, uuid::Version::Mac);
        uuid::Builder::from_bytes(bytes).with_variant(variant).with_version(version).into_uuid().to_string()
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
        let published = okta_auth0_sync_clock::parse_timestamp("2024-08-13T15:58:20.353Z").unwrap();
        let id = one.entry_uuid(published);
        // The lowest part of the time differs below the millisecond.
        assert_eq!((&id[..4], &id[8..19]), ("dc9f", "-598c-11ef-"), "{id}");
        let uuid = uuid::Uuid::parse_str(&id).unwrap();
        assert_eq!((uuid.get_version_num(), uuid.get_timestamp().unwrap().to_unix().0), (1, 1_723_564_700));
        assert_ne!(one.entry_uuid(published), id);
        assert!(one.hex(24).bytes().all(|b| b.is_ascii_hexdigit() && !b.is_ascii_uppercase()));
    }
}
