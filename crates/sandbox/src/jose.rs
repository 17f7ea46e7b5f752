//! Signed tokens as the two authorization servers check them: JWS (RFC 7515) against public keys (RFC 7517).

use std::fmt;

use aws_lc_rs::digest;
use aws_lc_rs::rsa::PublicKeyComponents;
use aws_lc_rs::signature::{self, UnparsedPublicKey};
use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use serde_json::Value;

/// A parsed token. Its signature is checked separately.
#[derive(Clone)]
pub(super) struct Jws {
    pub(super) header: Value,
    pub(super) claims: Value,
    signed: String,
    signature: Vec<u8>,
}

impl fmt::Debug for Jws {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // A token is a credential: claims and signature are not shown.
        f.debug_struct("Jws").field("header", &self.header).finish_non_exhaustive()
    }
}

impl Jws {
    /// Parses a compact token. `None` if it is malformed.
    pub(super) fn read(token: &str) -> Option<Self> {
        let (signed, signature) = token.rsplit_once('.')?;
        let (header, claims) = signed.split_once('.')?;
        Some(Self {
            header: json_part(header)?,
            claims: json_part(claims)?,
            signed: signed.to_owned(),
            signature: URL_SAFE_NO_PAD.decode(signature).ok()?,
        })
    }

    /// A text claim.
    pub(super) fn text(&self, claim: &str) -> Option<&str> {
        self.claims.get(claim)?.as_str()
    }

    /// A claim in epoch seconds.
    pub(super) fn seconds(&self, claim: &str) -> Option<i64> {
        let value = self.claims.get(claim)?;
        value.as_i64().or_else(|| value.as_f64().map(|seconds| seconds as i64))
    }

    /// Returns whether `audience` is the audience or one of several.
    pub(super) fn is_for(&self, audience: &str) -> bool {
        match &self.claims["aud"] {
            Value::String(one) => one == audience,
            Value::Array(all) => all.iter().any(|one| one == audience),
            _ => false,
        }
    }

    /// Returns whether the signature is valid for this public key and one of `algorithms`.
    pub(super) fn is_signed_by(&self, key: &Value, algorithms: &[&str]) -> bool {
        let Some(algorithm) = self.header["alg"].as_str().filter(|used| algorithms.contains(used)) else {
            return false;
        };
        let part = |name: &str| URL_SAFE_NO_PAD.decode(key[name].as_str()?).ok();
        let message = self.signed.as_bytes();
        if key["kty"] == "RSA" {
            let parameters = match algorithm {
                "RS256" => &signature::RSA_PKCS1_2048_8192_SHA256,
                "RS384" => &signature::RSA_PKCS1_2048_8192_SHA384,
                "RS512" => &signature::RSA_PKCS1_2048_8192_SHA512,
                "PS256" => &signature::RSA_PSS_2048_8192_SHA256,
                _ => return false,
            };
            let (Some(n), Some(e)) = (part("n"), part("e")) else { return false };
            return PublicKeyComponents { n, e }.verify(parameters, message, &self.signature).is_ok();
        }
        let (parameters, curve) = match algorithm {
            "ES256" => (&signature::ECDSA_P256_SHA256_FIXED, "P-256"),
            "ES384" => (&signature::ECDSA_P384_SHA384_FIXED, "P-384"),
            "ES512" => (&signature::ECDSA_P521_SHA512_FIXED, "P-521"),
            _ => return false,
        };
        let (Some(x), Some(y)) = (part("x"), part("y")) else { return false };
        let point = [&[4], &x[..], &y[..]].concat();
        key["kty"] == "EC"
            && key["crv"] == curve
            && UnparsedPublicKey::new(parameters, point).verify(message, &self.signature).is_ok()
    }
}

/// The rules for the claims of a client's assertion.
pub(super) struct AssertionRules<'a> {
    pub(super) client_id: &'a str,
    pub(super) audience: &'a str,
    /// Seconds that `exp` may be in the future.
    pub(super) lifetime_max: i64,
    /// Seconds.
    pub(super) now: i64,
}

impl AssertionRules<'_> {
    /// Checks the claims of RFC 7523 §3.
    pub(super) fn check(&self, assertion: &Jws) -> Result<(), &'static str> {
        if assertion.text("iss") != Some(self.client_id) || assertion.text("sub") != Some(self.client_id) {
            return Err("The issuer and subject of the client_assertion must be the client_id.");
        }
        if !assertion.is_for(self.audience) {
            return Err("The audience claim for client_assertion must be the endpoint invoked for the request.");
        }
        match assertion.seconds("exp") {
            None => Err("The client_assertion must have an expiry."),
            Some(exp) if exp <= self.now => Err("The client_assertion token is expired."),
            Some(exp) if exp > self.now + self.lifetime_max => {
                Err("The client_assertion token has an expiration too far into the future.")
            }
            Some(_) => Ok(()),
        }
    }
}

fn json_part(text: &str) -> Option<Value> {
    serde_json::from_slice(&URL_SAFE_NO_PAD.decode(text).ok()?).ok()
}

/// base64url(SHA-256(text)): DPoP's `ath`.
pub(super) fn sha256(text: &str) -> String {
    URL_SAFE_NO_PAD.encode(digest::digest(&digest::SHA256, text.as_bytes()))
}

/// The thumbprint of a public key, RFC 7638. `None` if it is not a key.
pub(super) fn thumbprint(key: &Value) -> Option<String> {
    let text = |name: &str| key[name].as_str();
    let members = match text("kty")? {
        "RSA" => format!(r#"{{"e":"{}","kty":"RSA","n":"{}"}}"#, text("e")?, text("n")?),
        "EC" => format!(r#"{{"crv":"{}","kty":"EC","x":"{}","y":"{}"}}"#, text("crv")?, text("x")?, text("y")?),
        _ => return None,
    };
    Some(sha256(&members))
}

/// An access token in the form of a JWT. The stand-ins remember the tokens that they issue, so the signature is filler.
pub(super) fn issued(claims: &Value, filling: &str) -> String {
    let header = serde_json::json!({ "alg": "RS256", "typ": "JWT", "kid": "sandbox" });
    let part = |value: &Value| URL_SAFE_NO_PAD.encode(value.to_string());
    format!("{}.{}.{}", part(&header), part(claims), URL_SAFE_NO_PAD.encode(filling))
}

#[cfg(test)]
pub(super) mod tests {
    use aws_lc_rs::rand::SystemRandom;
    use aws_lc_rs::rsa::KeySize;
    use aws_lc_rs::signature::{
        ECDSA_P256_SHA256_FIXED_SIGNING, EcdsaKeyPair, KeyPair as _, RSA_PKCS1_SHA256, RsaKeyPair,
    };
    use serde_json::json;

    use super::*;

    /// An RSA key for tests, which signs with RS256.
    pub(crate) struct TestRsaKey(RsaKeyPair);

    impl TestRsaKey {
        pub(crate) fn generate() -> Self {
            Self(RsaKeyPair::generate(KeySize::Rsa2048).unwrap())
        }

        pub(crate) fn public(&self) -> Value {
            let key: PublicKeyComponents<Vec<u8>> = self.0.public_key().into();
            json!({ "kty": "RSA", "n": URL_SAFE_NO_PAD.encode(key.n), "e": URL_SAFE_NO_PAD.encode(key.e) })
        }

        pub(crate) fn sign(&self, claims: &Value) -> String {
            let part = |value: &Value| URL_SAFE_NO_PAD.encode(value.to_string());
            let signed = format!("{}.{}", part(&json!({ "alg": "RS256" })), part(claims));
            let mut signature = vec![0; self.0.public_modulus_len()];
            self.0.sign(&RSA_PKCS1_SHA256, &SystemRandom::new(), signed.as_bytes(), &mut signature).unwrap();
            format!("{signed}.{}", URL_SAFE_NO_PAD.encode(signature))
        }
    }

    /// An EC key for tests.
    pub(crate) struct TestKey(EcdsaKeyPair);

    impl TestKey {
        pub(crate) fn generate() -> Self {
            Self(EcdsaKeyPair::generate(&ECDSA_P256_SHA256_FIXED_SIGNING).unwrap())
        }

        pub(crate) fn public(&self) -> Value {
            let point = self.0.public_key().as_ref();
            let part = |bytes: &[u8]| URL_SAFE_NO_PAD.encode(bytes);
            json!({ "kty": "EC", "crv": "P-256", "x": part(&point[1..33]), "y": part(&point[33..]), "kid": "k1" })
        }

        pub(crate) fn sign(&self, header: Value, claims: &Value) -> String {
            let mut header = header;
            header["alg"] = json!("ES256");
            let part = |value: &Value| URL_SAFE_NO_PAD.encode(value.to_string());
            let signed = format!("{}.{}", part(&header), part(claims));
            let signature = self.0.sign(&SystemRandom::new(), signed.as_bytes()).unwrap();
            format!("{signed}.{}", URL_SAFE_NO_PAD.encode(signature))
        }
    }

    #[test]
    fn a_signature_fits_its_key_and_no_other() {
        let (key, other) = (TestKey::generate(), TestKey::generate());
        let token = key.sign(json!({}), &json!({ "iss": "a" }));
        let jws = Jws::read(&token).unwrap();
        assert!(jws.is_signed_by(&key.public(), &["ES256"]));
        assert!(!jws.is_signed_by(&key.public(), &["RS256"]));
        assert!(!jws.is_signed_by(&other.public(), &["ES256"]));
        let forged = format!("{}x.{}", &token[..token.rfind('.').unwrap()], &token[token.rfind('.').unwrap() + 1..]);
        assert!(Jws::read(&forged).is_none_or(|jws| !jws.is_signed_by(&key.public(), &["ES256"])));
    }

    #[test]
    fn thumbprint_matches_the_rfc() {
        // The example of RFC 7638 §3.1.
        let key = json!({
            "kty": "RSA", "e": "AQAB", "alg": "RS256", "kid": "2011-04-29",
            "n": "0vx7agoebGcQSuuPiLJXZptN9nndrQmbXEps2aiAFbWhM78LhWx4cbbfAAtVT86zwu1RK7aPFFxuhDR1L6tSoc_BJECPebWKRXjBZCiFV4n3oknjhMstn64tZ_2W-5JsGY4Hc5n9yBXArwl93lqt7_RN5w6Cf0h4QyQ5v-65YGjQR0_FDW2QvzqY368QQMicAtaSqzs8KJZgnYb9c7d0zgdAZHzu6qMQvRL5hajrn1n91CbOpbISD08qNLyrdkt-bFTWhAI4vMQFh6WeZu0fM4lFd2NcRwr3XPksINHaQ-G_xBniIqbw0Ls1jF44-csFCur-kEgU8awapJzKnqDKgw"
        });
        assert_eq!(thumbprint(&key).as_deref(), Some("NzbLsXh8uDCcd-6MNwXF4W_7noWXFZAfHkxZsRGC9Xs"));
    }

    #[test]
    fn the_claims_of_an_assertion_are_checked() {
        let rules = AssertionRules { client_id: "c", audience: "https://a/token", lifetime_max: 3600, now: 1000 };
        let check = |claims: Value| rules.check(&Jws::read(&issued(&claims, "x")).unwrap()).is_ok();
        let good = json!({ "iss": "c", "sub": "c", "aud": "https://a/token", "exp": 1300 });
        assert!(check(good.clone()));
        for (claim, bad) in [
            ("iss", json!("d")),
            ("sub", json!(null)),
            ("aud", json!("https://b/")),
            ("exp", json!(1000)),
            ("exp", json!(4601)),
            ("exp", json!(null)),
        ] {
            let mut claims = good.clone();
            claims[claim] = bad.clone();
            assert!(!check(claims), "{claim} {bad}");
        }
    }
}
