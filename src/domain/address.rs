//! E-mail addresses: which strings are valid, and when two are equal.

use std::fmt;

/// The longest valid address: 64 octets, `@`, 255 octets (RFC 5321 §4.5.3.1).
const LENGTH_MAX: usize = 320;

/// The domain to which Okta renames the login of a deleted user: never a real address.
const DELETED: &str = "@deleted.invalid";

/// A string with the shape of an e-mail address, in its original spelling.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Address(String);

impl Address {
    /// Parses `text` if it has the shape of an address that could belong to a user.
    ///
    /// `None` for logins that are not addresses, for white space or control characters, for more than 320 bytes, and for
    /// the placeholder of a deleted user's login (`…@deleted.invalid`).
    pub fn parse(text: &str) -> Option<Self> {
        let text = text.trim();
        let (local, host) = text.rsplit_once('@')?;
        let shaped = !local.is_empty()
            && !host.is_empty()
            && text.len() <= LENGTH_MAX
            && !text.chars().any(|c| c.is_whitespace() || c.is_control());
        (shaped && !text.to_lowercase().ends_with(DELETED)).then(|| Self(text.to_owned()))
    }

    /// The original spelling.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// The key under which all spellings of the address compare equal: lower case.
    pub fn key(&self) -> String {
        self.0.to_lowercase()
    }

    /// The part after the last `@`, in lower case.
    pub fn domain(&self) -> String {
        self.0.rsplit_once('@').map_or_else(String::new, |(_, host)| host.to_lowercase())
    }

    /// Compares two addresses without regard to case.
    pub fn same(&self, other: &str) -> bool {
        self.key() == other.trim().to_lowercase()
    }
}

/// Each address in its original spelling and in lower case, without duplicates.
pub fn spellings(addresses: &[Address]) -> Vec<String> {
    let mut all: Vec<String> = Vec::with_capacity(addresses.len() * 2);
    for spelling in addresses.iter().flat_map(|address| [address.as_str().to_owned(), address.key()]) {
        if !all.contains(&spelling) {
            all.push(spelling);
        }
    }
    all
}

/// Takes the address out of a mailbox as mail programs copy it: `Ann <ann@example.com>`, `mailto:ann@example.com`. Any
/// other text is returned as it is, without white space around it.
pub fn unwrap_mailbox(text: &str) -> &str {
    let text = text.trim();
    let inner = text.strip_suffix('>').and_then(|text| text.rsplit_once('<')).map_or(text, |(_, inner)| inner.trim());
    let inner = inner.strip_prefix("mailto:").unwrap_or(inner);
    if Address::parse(inner).is_some() { inner } else { text }
}

impl fmt::Debug for Address {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:?}", self.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn valid_addresses_are_recognized() {
        for yes in ["a@b", "Ann.O'Hara+x@Example.com", "jörg@exämple.de", "\"a b\"@c".trim_matches('"'), "a@b@c"] {
            assert_eq!(Address::parse(yes).is_some(), !yes.contains(' '), "{yes}");
        }
        for no in ["", "ann", "@b", "a@", "a b@c", "a@b\n@c", "00u1@deleted.invalid", "00u1@Deleted.Invalid"] {
            assert_eq!(Address::parse(no), None, "{no}");
        }
        assert_eq!(Address::parse(&format!("{}@b", "a".repeat(400))), None);
    }

    #[test]
    fn lower_case_address_has_one_spelling() {
        let addresses =
            ["Ann@Example.com", "ann@example.com", "bob@example.com"].map(|text| Address::parse(text).unwrap());
        assert_eq!(spellings(&addresses), ["Ann@Example.com", "ann@example.com", "bob@example.com"]);
    }

    #[test]
    fn addresses_compare_without_case() {
        let address = Address::parse(" Ann@Example.COM ").unwrap();
        assert_eq!(address.as_str(), "Ann@Example.COM");
        assert_eq!(address.key(), "ann@example.com");
        assert_eq!(address.domain(), "example.com");
        assert!(address.same("ANN@example.com"));
    }
}
