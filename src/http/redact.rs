//! A remote may repeat what it was sent: in an error's text, in the headers it complains about, in an entry of the log.
//! What a request carried that is secret is taken out of whatever is kept or shown of its answer.

use std::fmt;

use base64::Engine as _;
use base64::engine::general_purpose::{STANDARD, STANDARD_NO_PAD, URL_SAFE, URL_SAFE_NO_PAD};
use reqwest::Request;
use reqwest::header::AUTHORIZATION;

/// What stands in place of a secret.
const MASK: &[u8] = b"[redacted]";
/// Shorter ones are found in innocent text.
const LENGTH_MIN: usize = 8;
/// Form fields of token requests that are secret.
const FIELDS: [&str; 2] = ["client_secret", "client_assertion"];

/// The secrets that one request carried, in every form in which they could come back.
#[derive(Default)]
pub(super) struct Carried(Vec<Vec<u8>>);

impl fmt::Debug for Carried {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} secrets", self.0.len())
    }
}

impl Carried {
    /// Looks through a request: its credential headers, and the form of a token request.
    pub(super) fn by(request: &Request) -> Self {
        let mut carried = Self::default();
        if let Some(value) = request.headers().get(AUTHORIZATION) {
            // The scheme is no secret: `SSWS 00a…`, `Bearer eyJ…`, `DPoP eyJ…`.
            let value = value.as_bytes();
            let credential = value.iter().position(|byte| *byte == b' ').map_or(value, |space| &value[space + 1..]);
            carried.add(value);
            carried.add(credential);
        }
        if let Some(proof) = request.headers().get("dpop") {
            carried.add(proof.as_bytes());
        }
        if let Some(body) = request.body().and_then(reqwest::Body::as_bytes) {
            for (field, value) in url::form_urlencoded::parse(body) {
                if FIELDS.contains(&field.as_ref()) {
                    carried.add(value.as_bytes());
                }
            }
        }
        // A form that holds another is masked whole.
        carried.0.sort_by_key(|secret| std::cmp::Reverse(secret.len()));
        carried.0.dedup();
        carried
    }

    fn add(&mut self, secret: &[u8]) {
        if secret.len() < LENGTH_MIN {
            return;
        }
        self.0.push(secret.to_vec());
        let percent: String = url::form_urlencoded::byte_serialize(secret).collect();
        self.0.push(percent.replace('+', "%20").into_bytes());
        self.0.push(percent.into_bytes());
        for alphabet in [&STANDARD, &STANDARD_NO_PAD, &URL_SAFE, &URL_SAFE_NO_PAD] {
            self.0.push(alphabet.encode(secret).into_bytes());
        }
    }

    /// `bytes` without the secrets.
    pub(super) fn out_of(&self, bytes: &[u8]) -> Vec<u8> {
        let mut clean = Vec::with_capacity(bytes.len());
        let mut rest = bytes;
        while let Some(first) = rest.first() {
            match self.0.iter().find(|secret| secret.first() == Some(first) && rest.starts_with(secret)) {
                Some(secret) => {
                    clean.extend_from_slice(MASK);
                    rest = &rest[secret.len()..];
                }
                None => {
                    clean.push(*first);
                    rest = &rest[1..];
                }
            }
        }
        clean
    }

    /// `text` without the secrets.
    pub(super) fn out_of_text(&self, text: &str) -> String {
        String::from_utf8_lossy(&self.out_of(text.as_bytes())).into_owned()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn request(build: impl FnOnce(reqwest::RequestBuilder) -> reqwest::RequestBuilder) -> Request {
        build(reqwest::Client::new().post("http://127.0.0.1/x")).build().unwrap()
    }

    #[test]
    fn what_was_sent_does_not_come_back_in_any_form() {
        let secret = "s3cr+t/va=lue é";
        let carried = Carried::by(&request(|request| {
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
            STANDARD.encode(secret),
            URL_SAFE_NO_PAD.encode("00canary-canary"),
        ] {
            let clean = carried.out_of_text(&format!("before {echo} after"));
            assert!(
                clean.starts_with("before ") && clean.ends_with(" after") && clean.contains("[redacted]"),
                "{clean}"
            );
            assert!(!clean.contains("canary") && !clean.contains("va=lue"), "{clean}");
        }
        assert_eq!(carried.out_of_text("my-client-id"), "my-client-id", "no secret");
        assert!(!format!("{carried:?}").contains("canary"));
    }

    #[test]
    fn nothing_carried_changes_nothing() {
        let carried = Carried::by(&request(|request| request));
        assert_eq!(carried.out_of(b"any \xff bytes"), b"any \xff bytes");
    }
}
