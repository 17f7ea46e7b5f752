//! Redacts the secrets of a request from the parts of its response that are stored or shown. A remote may echo a secret:
//! in an error's text, in quoted headers, in a System Log event.

use std::fmt;

use base64::Engine as _;
use base64::engine::general_purpose::{STANDARD, STANDARD_NO_PAD, URL_SAFE, URL_SAFE_NO_PAD};
use reqwest::Request;
use reqwest::header::AUTHORIZATION;

/// Replaces a secret.
const MASK: &[u8] = b"[redacted]";
/// Shorter secrets would match ordinary text.
const LENGTH_MIN: usize = 8;
/// Secret form fields of token requests.
const FIELDS: [&str; 2] = ["client_secret", "client_assertion"];

/// The secrets of one request, plain and in base64. They match however their bytes are escaped.
#[derive(Default)]
pub(super) struct RequestSecrets(Vec<Vec<u8>>);

impl fmt::Debug for RequestSecrets {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} secrets", self.0.len())
    }
}

impl RequestSecrets {
    /// Collects the credential headers and the secret form fields of a request.
    pub(super) fn of(request: &Request) -> Self {
        let mut secrets = Self::default();
        if let Some(value) = request.headers().get(AUTHORIZATION) {
            // The scheme is not secret: `SSWS 00a…`, `Bearer eyJ…`, `DPoP eyJ…`.
            let value = value.as_bytes();
            let credential = value.iter().position(|byte| *byte == b' ').map_or(value, |space| &value[space + 1..]);
            secrets.add(value);
            secrets.add(credential);
        }
        if let Some(proof) = request.headers().get("dpop") {
            secrets.add(proof.as_bytes());
        }
        if let Some(body) = request.body().and_then(reqwest::Body::as_bytes) {
            for (field, value) in url::form_urlencoded::parse(body) {
                if FIELDS.contains(&field.as_ref()) {
                    secrets.add(value.as_bytes());
                }
            }
        }
        // Longest first, so that a secret that contains another one is masked whole.
        secrets.0.sort_by_key(|secret| std::cmp::Reverse(secret.len()));
        secrets.0.dedup();
        secrets
    }

    fn add(&mut self, secret: &[u8]) {
        if secret.len() < LENGTH_MIN {
            return;
        }
        self.0.push(secret.to_vec());
        for alphabet in [&STANDARD, &STANDARD_NO_PAD, &URL_SAFE, &URL_SAFE_NO_PAD] {
            self.0.push(alphabet.encode(secret).into_bytes());
        }
    }

    /// Masks the secrets in `bytes`.
    pub(super) fn redact(&self, bytes: &[u8]) -> Vec<u8> {
        let mut clean = Vec::with_capacity(bytes.len());
        let mut rest = bytes;
        while let Some(first) = rest.first() {
            match self.0.iter().find_map(|secret| match_length(secret, rest)) {
                Some(length) => {
                    clean.extend_from_slice(MASK);
                    rest = &rest[length..];
                }
                None => {
                    clean.push(*first);
                    rest = &rest[1..];
                }
            }
        }
        clean
    }

    /// Masks the secrets in `text`.
    pub(super) fn redact_text(&self, text: &str) -> String {
        String::from_utf8_lossy(&self.redact(text.as_bytes())).into_owned()
    }
}

/// The length of this secret at the start of `text`, with each byte plain or escaped.
fn match_length(secret: &[u8], text: &[u8]) -> Option<usize> {
    // A secret may contain what looks like an escape, so try both readings.
    let read = |prefer_plain: bool| {
        let mut at = 0;
        for byte in secret {
            let rest = &text[at..];
            let plain = rest.first() == Some(byte);
            at += match unescape(rest) {
                Some((decoded, length)) if decoded == *byte && !(prefer_plain && plain) => length,
                _ if plain => 1,
                _ => return None,
            };
        }
        Some(at)
    };
    read(false).or_else(|| read(true))
}

/// Decodes an escape and returns its length: `%2f`, `+`, and in JSON `\/` and `\u002f`.
fn unescape(text: &[u8]) -> Option<(u8, usize)> {
    let digit = |sign: u8| char::from(sign).to_digit(16).and_then(|digit| u8::try_from(digit).ok());
    let hex = |high: u8, low: u8| Some(digit(high)? << 4 | digit(low)?);
    match text {
        [b'+', ..] => Some((b' ', 1)),
        [b'%', high, low, ..] => Some((hex(*high, *low)?, 3)),
        // Above ASCII, the number is a code point and not a byte.
        [b'\\', b'u', b'0', b'0', high, low, ..] => Some((hex(*high, *low).filter(u8::is_ascii)?, 6)),
        [b'\\', sign @ (b'"' | b'\\' | b'/'), ..] => Some((*sign, 2)),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn secret_is_found_in_any_escaping(
            bytes in prop::collection::vec((b' '..=b'~', 0..5_u8), LENGTH_MIN..60),
        ) {
            let secret: Vec<u8> = bytes.iter().map(|(byte, _)| *byte).collect();
            let mut secrets = RequestSecrets::default();
            secrets.add(&secret);
            let escaped: String = bytes
                .iter()
                .map(|(byte, form)| match form {
                    0 => format!("%{byte:02x}"),
                    1 => format!("%{byte:02X}"),
                    2 => format!("\\u00{byte:02x}"),
                    3 if *byte == b' ' => "+".to_owned(),
                    // A byte that could start an escape is escaped.
                    _ if matches!(byte, b'%' | b'\\' | b'+') => format!("%{byte:02X}"),
                    _ => char::from(*byte).to_string(),
                })
                .collect();
            prop_assert_eq!(secrets.redact_text(&format!("{escaped}\n")), "[redacted]\n");
            let plain = String::from_utf8(secret).unwrap();
            prop_assert_eq!(secrets.redact_text(&plain), "[redacted]");
        }
    }

    fn request(build: impl FnOnce(reqwest::RequestBuilder) -> reqwest::RequestBuilder) -> Request {
        build(reqwest::Client::new().post("http://127.0.0.1/x")).build().unwrap()
    }

    #[test]
    fn echoed_secrets_are_redacted_in_every_form() {
        let secret = "s3cr+t/va=lue é";
        let secrets = RequestSecrets::of(&request(|request| {
            request
                .header("authorization", "SSWS 00canary-canary")
                .form(&[("client_secret", secret), ("client_id", "my-client-id")])
        }));
        for echo in [
            "SSWS 00canary-canary".to_owned(),
            "token 00canary-canary is unknown".to_owned(),
            secret.to_owned(),
            "s3cr%2Bt%2Fva%3Dlue+%C3%A9".to_owned(),
            "s3cr%2Bt%2Fva%3Dlue%20%C3%A9".to_owned(),
            "s3cr%2bt/va%3dlue%20%c3%a9".to_owned(),
            "s3cr+t\\/va\\u003dlue é".to_owned(),
            STANDARD.encode(secret),
            URL_SAFE_NO_PAD.encode("00canary-canary"),
        ] {
            let clean = secrets.redact_text(&format!("before {echo} after"));
            assert!(
                clean.starts_with("before ") && clean.ends_with(" after") && clean.contains("[redacted]"),
                "{clean}"
            );
            assert!(!clean.contains("canary") && !clean.contains("va=lue"), "{clean}");
        }
        assert_eq!(secrets.redact_text("my-client-id"), "my-client-id", "not a secret");
        assert!(!format!("{secrets:?}").contains("canary"));
    }

    #[test]
    fn without_secrets_nothing_is_redacted() {
        let secrets = RequestSecrets::of(&request(|request| request));
        assert_eq!(secrets.redact(b"any \xff bytes"), b"any \xff bytes");
    }
}
