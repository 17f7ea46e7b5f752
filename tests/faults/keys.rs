//! Private keys in all supported formats.

use aws_lc_rs::encoding::{AsDer, EcPrivateKeyRfc5915Der, Pkcs8V1Der};
use aws_lc_rs::rsa::{KeyPair as RsaKeyPair, KeySize};
use aws_lc_rs::signature::{EcdsaKeyPair, EcdsaSigningAlgorithm};
use base64::Engine as _;
use base64::engine::general_purpose::{STANDARD, URL_SAFE_NO_PAD};
use serde_json::{Value, json};

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
            _ => panic!("no DER"),
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

/// An RSA key: PKCS#1, PKCS#8, and as JWK for each of the three algorithms.
pub(crate) fn rsa() -> Vec<(&'static str, String)> {
    let pair = RsaKeyPair::generate(KeySize::Rsa2048).unwrap();
    let pkcs8 = AsDer::<Pkcs8V1Der<'_>>::as_der(&pair).unwrap().as_ref().to_vec();
    let pkcs1 = elements(&pkcs8)[2];
    let numbers = elements(pkcs1);
    let number = |at: usize| {
        let bytes: &[u8] = numbers[at];
        let zeros = bytes.iter().take_while(|byte| **byte == 0).count();
        URL_SAFE_NO_PAD.encode(&bytes[zeros..])
    };
    let jwk = |algorithm: &str| {
        json!({ "kty": "RSA", "alg": algorithm, "n": number(1), "e": number(2), "d": number(3), "p": number(4),
                "q": number(5), "dp": number(6), "dq": number(7), "qi": number(8) })
        .to_string()
    };
    vec![
        ("RS256", pem("RSA PRIVATE KEY", pkcs1)),
        ("RS256", pem("PRIVATE KEY", &pkcs8)),
        ("RS256", jwk("RS256")),
        ("RS384", jwk("RS384")),
        ("RS512", jwk("RS512")),
    ]
}

/// An EC key: SEC1, PKCS#8 and JWK.
pub(crate) fn ec(
    algorithm: &'static str,
    name: &str,
    curve: &'static EcdsaSigningAlgorithm,
) -> Vec<(&'static str, String)> {
    use aws_lc_rs::signature::KeyPair;
    let pair = EcdsaKeyPair::generate(curve).unwrap();
    let pkcs8 = pair.to_pkcs8v1().unwrap().as_ref().to_vec();
    let sec1 = AsDer::<EcPrivateKeyRfc5915Der<'_>>::as_der(&pair.private_key()).unwrap().as_ref().to_vec();
    let point = &pair.public_key().as_ref()[1..];
    let (x, y) = point.split_at(point.len() / 2);
    let part = |bytes: &[u8]| URL_SAFE_NO_PAD.encode(bytes);
    let jwk = json!({ "kty": "EC", "crv": name, "x": part(x), "y": part(y), "d": part(elements(&sec1)[1]) });
    vec![
        (algorithm, pem("EC PRIVATE KEY", &sec1)),
        (algorithm, pem("PRIVATE KEY", &pkcs8)),
        (algorithm, jwk.to_string()),
    ]
}

/// The `alg` of a signed token.
pub(crate) fn algorithm_of(token: &str) -> String {
    let header = token.split_once('.').unwrap().0;
    let header: Value = serde_json::from_slice(&URL_SAFE_NO_PAD.decode(header).unwrap()).unwrap();
    header["alg"].as_str().unwrap().to_owned()
}
