//! Verifies our signatures with another library than the one that signs.

use aws_lc_rs::encoding::{AsDer, EcPrivateKeyRfc5915Der, Pkcs8V1Der};
use aws_lc_rs::rsa::KeySize;
use aws_lc_rs::signature::{ECDSA_P521_SHA512_FIXED, UnparsedPublicKey};
use base64::engine::general_purpose::STANDARD;
use jsonwebtoken::jwk::Jwk;
use jsonwebtoken::{DecodingKey, Validation, decode};
use serde_json::{Value, json};

use super::*;

fn pem(label: &str, der: &[u8]) -> String {
    let text = STANDARD.encode(der);
    let lines: Vec<&str> = text.as_bytes().chunks(64).map(|line| std::str::from_utf8(line).unwrap()).collect();
    format!("-----BEGIN {label}-----\n{}\n-----END {label}-----\n", lines.join("\n"))
}

/// The contents of the elements of a DER SEQUENCE.
fn elements(sequence: &[u8]) -> Vec<&[u8]> {
    fn element(der: &[u8]) -> (&[u8], &[u8]) {
        let (length, rest) = match der {
            [_, 0x81, length, rest @ ..] => (usize::from(*length), rest),
            [_, 0x82, high, low, rest @ ..] => (usize::from(u16::from_be_bytes([*high, *low])), rest),
            [_, length, rest @ ..] => (usize::from(*length), rest),
            _ => panic!("invalid DER"),
        };
        rest.split_at(length)
    }
    let (mut rest, mut all) = (element(sequence).0, Vec::new());
    while !rest.is_empty() {
        let (content, after) = element(rest);
        all.push(content);
        rest = after;
    }
    all
}

struct Rsa {
    pkcs8: Vec<u8>,
    pkcs1: Vec<u8>,
}

impl Rsa {
    fn new() -> Self {
        let pair = RsaKeyPair::generate(KeySize::Rsa2048).unwrap();
        let pkcs8 = AsDer::<Pkcs8V1Der<'_>>::as_der(&pair).unwrap().as_ref().to_vec();
        let pkcs1 = elements(&pkcs8)[2].to_vec();
        Self { pkcs8, pkcs1 }
    }

    fn jwk(&self) -> Value {
        let numbers = elements(&self.pkcs1);
        let number = |at: usize| URL_SAFE_NO_PAD.encode(without_leading_zeros(numbers[at]));
        json!({ "kty": "RSA", "kid": "k1", "n": number(1), "e": number(2), "d": number(3), "p": number(4),
                "q": number(5), "dp": number(6), "dq": number(7), "qi": number(8) })
    }
}

fn ec(curve: &'static EcdsaSigningAlgorithm) -> (EcdsaKeyPair, Vec<u8>, Vec<u8>) {
    let pair = EcdsaKeyPair::generate(curve).unwrap();
    let pkcs8 = pair.to_pkcs8v1().unwrap().as_ref().to_vec();
    let sec1 = AsDer::<EcPrivateKeyRfc5915Der<'_>>::as_der(&pair.private_key()).unwrap().as_ref().to_vec();
    (pair, pkcs8, sec1)
}

fn verify(key: &SigningKey) {
    let token =
        key.sign(&json!({ "typ": "JWT", "kid": "k1" }), &json!({ "sub": "me", "exp": 4_000_000_000_u64 })).unwrap();
    let jwk = serde_json::to_value(key.public_jwk()).unwrap();
    assert!(jwk.get("d").is_none());
    if key.algorithm() == Algorithm::Es512 {
        // The verifying library does not support P-521.
        let (message, signature) = token.rsplit_once('.').unwrap();
        let coordinate = |name: &str| URL_SAFE_NO_PAD.decode(jwk[name].as_str().unwrap()).unwrap();
        let point = [vec![4], coordinate("x"), coordinate("y")].concat();
        let signature = URL_SAFE_NO_PAD.decode(signature).unwrap();
        UnparsedPublicKey::new(&ECDSA_P521_SHA512_FIXED, point).verify(message.as_bytes(), &signature).unwrap();
        return;
    }
    let name = key.algorithm().as_str();
    let jwk: Jwk = serde_json::from_value(jwk).unwrap();
    let mut validation = Validation::new(name.parse().unwrap());
    validation.set_required_spec_claims(&["exp"]);
    let decoded = decode::<Value>(&token, &DecodingKey::from_jwk(&jwk).unwrap(), &validation).unwrap();
    assert_eq!(decoded.claims["sub"], "me", "{name}");
    assert_eq!(decoded.header.kid.as_deref(), Some("k1"));
    // The library's own thumbprint of the same key.
    assert_eq!(key.public_jwk().thumbprint(), jwk.thumbprint(jsonwebtoken::jwk::ThumbprintHash::SHA256).unwrap());
    let (head, tail) = token.split_at(token.len() / 2);
    let forged = format!("{head}{}{}", if tail.starts_with('A') { 'B' } else { 'A' }, &tail[1..]);
    assert!(decode::<Value>(&forged, &DecodingKey::from_jwk(&jwk).unwrap(), &validation).is_err());
}

#[test]
fn all_key_forms_produce_valid_signatures() {
    let rsa = Rsa::new();
    for text in [pem("PRIVATE KEY", &rsa.pkcs8), pem("RSA PRIVATE KEY", &rsa.pkcs1), rsa.jwk().to_string()] {
        let key = SigningKey::parse(&text).unwrap();
        assert_eq!(key.algorithm(), Algorithm::Rs256);
        verify(&key);
    }
    for name in ["RS384", "RS512"] {
        let mut jwk = rsa.jwk();
        jwk["alg"] = name.into();
        let key = SigningKey::parse(&jwk.to_string()).unwrap();
        assert_eq!((key.algorithm().as_str(), key.id()), (name, Some("k1")));
        verify(&key);
    }
    for algorithm in Algorithm::ON_CURVES {
        let (curve, name) = algorithm.curve().unwrap();
        let (pair, pkcs8, sec1) = ec(curve);
        for text in [pem("PRIVATE KEY", &pkcs8), pem("EC PRIVATE KEY", &sec1)] {
            let key = SigningKey::parse(&text).unwrap();
            assert_eq!(key.algorithm(), algorithm);
            verify(&key);
        }
        let point = &pair.public_key().as_ref()[1..];
        let (x, y) = point.split_at(point.len() / 2);
        let secret = elements(&sec1)[1];
        let [x, y, d] = [x, y, secret].map(|bytes| URL_SAFE_NO_PAD.encode(bytes));
        let jwk = json!({ "kty": "EC", "crv": name, "x": x, "y": y, "d": d });
        verify(&SigningKey::parse(&jwk.to_string()).unwrap());
    }
    verify(&SigningKey::generate().unwrap());
}

/// As people paste, export and store keys.
#[test]
fn key_is_found_in_any_form() {
    let rsa = Rsa::new();
    let text = pem("PRIVATE KEY", &rsa.pkcs8);
    let certificate = pem("CERTIFICATE", b"anything");
    for (form, key) in [
        ("escaped", text.replace('\n', "\\n")),
        ("escaped twice", text.replace('\n', "\\r\\n")),
        ("one line", text.replace('\n', " ")),
        ("no line ends", text.replace('\n', "")),
        ("CRLF", text.replace('\n', "\r\n")),
        ("BOM", format!("\u{feff}{text}")),
        ("quotes", format!("\"{}\"", text.replace('\n', "\\n"))),
        ("bag", format!("Bag Attributes\n    friendlyName: x\nKey Attributes: <No Attributes>\n{text}")),
        ("chain", format!("{certificate}{text}")),
        ("set", json!({ "keys": [{ "kty": "RSA", "n": "x", "e": "AQAB" }, rsa.jwk()] }).to_string()),
    ] {
        match SigningKey::parse(&key) {
            Ok(key) => verify(&key),
            Err(error) => panic!("{form}: {error}"),
        }
    }
}

#[test]
fn invalid_keys_fail_without_leaking() {
    let rsa = Rsa::new();
    let with = |name: &str, value: Value| {
        let mut jwk = rsa.jwk();
        jwk[name] = value;
        jwk.to_string()
    };
    let short = [&[0x30, 0x82, 0x01, 0x00][..], &[7; 256]].concat();
    let ed25519 = [&[0x30, 0x2e, 2, 1, 0, 0x30, 5, 6, 3, 0x2b, 0x65, 0x70, 4, 0x22, 4, 0x20][..], &[9; 32]].concat();
    let cases = [
        (String::new(), KeyError::Unrecognized),
        ("canary".to_owned(), KeyError::Unrecognized),
        ("{\"canary\":1}".to_owned(), KeyError::Unrecognized),
        (pem("ENCRYPTED PRIVATE KEY", b"canary"), KeyError::Encrypted),
        ("-----BEGIN RSA PRIVATE KEY-----\nProc-Type: 4,ENCRYPTED\n\ncanary".to_owned(), KeyError::Encrypted),
        (pem("OPENSSH PRIVATE KEY", b"canary"), KeyError::OpenSsh),
        (format!("{}{}", pem("PRIVATE KEY", &rsa.pkcs8), pem("PRIVATE KEY", &rsa.pkcs8)), KeyError::Several),
        (json!({ "keys": [rsa.jwk(), rsa.jwk()] }).to_string(), KeyError::Several),
        (json!({ "keys": [{ "kty": "RSA", "n": "canary", "e": "AQAB" }] }).to_string(), KeyError::Public),
        (pem("PUBLIC KEY", b"canary"), KeyError::Public),
        (pem("CERTIFICATE", b"canary"), KeyError::Public),
        ("-----BEGIN PRIVATE KEY-----\ncanary!".to_owned(), KeyError::Damaged),
        (pem("PRIVATE KEY", &rsa.pkcs8[..1000]), KeyError::Damaged),
        (pem("RSA PRIVATE KEY", &short), KeyError::TooShort),
        (pem("PRIVATE KEY", &ed25519), KeyError::Unsupported),
        (with("kty", "OKP".into()), KeyError::Unsupported),
        (with("d", Value::Null), KeyError::Public),
        (with("p", Value::Null), KeyError::Damaged),
        (with("q", "AQAB".into()), KeyError::Damaged),
        (with("n", "!".into()), KeyError::Damaged),
        (with("n", URL_SAFE_NO_PAD.encode([0xc1; 128]).into()), KeyError::TooShort),
        (with("alg", "ES256".into()), KeyError::Algorithm),
        (with("alg", "none".into()), KeyError::Algorithm),
        (
            json!({ "kty": "EC", "crv": "secp256k1", "x": "AA", "y": "AA", "d": "AA" }).to_string(),
            KeyError::Unsupported,
        ),
        (json!({ "kty": "EC", "crv": "P-256", "x": "AA", "y": "AA", "d": "AA" }).to_string(), KeyError::Damaged),
    ];
    for (text, expected) in cases {
        let error = SigningKey::parse(&text).unwrap_err();
        assert_eq!(error, expected, "{text}");
        assert!(!format!("{error} {error:?}").contains("canary"));
    }
}

#[test]
fn debug_shows_only_the_algorithm() {
    assert_eq!(format!("{:?}", SigningKey::generate().unwrap()), "SigningKey { algorithm: \"ES256\", .. }");
}
