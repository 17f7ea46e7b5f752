//! Signing keys and signed tokens: compact JWS (RFC 7515), JWK (RFC 7517) and its thumbprint (RFC 7638).

mod text;

use std::fmt;

use aws_lc_rs::rand::SystemRandom;
use aws_lc_rs::signature::{
    ECDSA_P256_SHA256_FIXED_SIGNING, ECDSA_P384_SHA384_FIXED_SIGNING, ECDSA_P521_SHA512_FIXED_SIGNING, EcdsaKeyPair,
    EcdsaSigningAlgorithm, KeyPair, RSA_PKCS1_SHA256, RSA_PKCS1_SHA384, RSA_PKCS1_SHA512, RsaKeyPair,
};
use aws_lc_rs::{digest, rsa};
use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use rustls_pki_types::PrivateKeyDer;
use rustls_pki_types::pem::PemObject;
use serde::{Deserialize, Serialize};

use text::KeyText;

/// The shortest RSA key accepted, in bits.
const RSA_BITS_MIN: usize = 2048;

/// Errors from reading a signing key.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
pub enum KeyError {
    /// Neither PEM nor JSON.
    #[error("this is neither a private key in PEM (-----BEGIN … PRIVATE KEY-----) nor a private JWK ({{…}})")]
    Unrecognized,
    /// A PEM key with a passphrase.
    #[error(
        "the private key is encrypted: decrypt it with `openssl pkey -in FILE -out NEWFILE`, and chmod 600 the new file"
    )]
    Encrypted,
    /// OpenSSH's form.
    #[error(
        "the private key is in OpenSSH's form: convert a copy of it with `ssh-keygen -p -N '' -m PEM -f COPY`, which overwrites \
         the copy"
    )]
    OpenSsh,
    /// A public key or certificate.
    #[error("this is a public key or certificate: the private key that belongs to it is needed")]
    Public,
    /// More than one private key.
    #[error("there are several private keys: keep only the one whose public key is registered")]
    Several,
    /// Another key type or curve.
    #[error("unsupported key type: use RSA, or EC on P-256, P-384 or P-521")]
    Unsupported,
    /// An RSA key below 2048 bits.
    #[error("the RSA key is too short: at least 2048 bits are needed")]
    TooShort,
    /// Supported type, invalid content.
    #[error("the private key is damaged: its parts cannot be read or do not match")]
    Damaged,
    /// A JWK with an algorithm that does not match its key.
    #[error("the JWK's algorithm is unsupported or does not match its key")]
    Algorithm,
}

/// A signature algorithm (RFC 7518 §3.1).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Algorithm {
    /// RSASSA-PKCS1-v1_5 with SHA-256.
    Rs256,
    /// RSASSA-PKCS1-v1_5 with SHA-384.
    Rs384,
    /// RSASSA-PKCS1-v1_5 with SHA-512.
    Rs512,
    /// ECDSA on P-256 with SHA-256.
    Es256,
    /// ECDSA on P-384 with SHA-384.
    Es384,
    /// ECDSA on P-521 with SHA-512.
    Es512,
}

impl Algorithm {
    const ALL: [Self; 6] = [Self::Rs256, Self::Rs384, Self::Rs512, Self::Es256, Self::Es384, Self::Es512];
    const ON_CURVES: [Self; 3] = [Self::Es256, Self::Es384, Self::Es512];

    /// The value of the header's `alg`.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Rs256 => "RS256",
            Self::Rs384 => "RS384",
            Self::Rs512 => "RS512",
            Self::Es256 => "ES256",
            Self::Es384 => "ES384",
            Self::Es512 => "ES512",
        }
    }

    /// The curve's signing algorithm and name; `None` for RSA.
    fn curve(self) -> Option<(&'static EcdsaSigningAlgorithm, &'static str)> {
        match self {
            Self::Rs256 | Self::Rs384 | Self::Rs512 => None,
            Self::Es256 => Some((&ECDSA_P256_SHA256_FIXED_SIGNING, "P-256")),
            Self::Es384 => Some((&ECDSA_P384_SHA384_FIXED_SIGNING, "P-384")),
            Self::Es512 => Some((&ECDSA_P521_SHA512_FIXED_SIGNING, "P-521")),
        }
    }
}

enum Pair {
    Rsa(RsaKeyPair),
    Ec(EcdsaKeyPair),
}

/// A private key with its algorithm. Its `Debug` shows only the algorithm.
pub struct SigningKey {
    pair: Pair,
    algorithm: Algorithm,
    /// The JWK's `kid`.
    id: Option<String>,
}

impl fmt::Debug for SigningKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("SigningKey").field("algorithm", &self.algorithm.as_str()).finish_non_exhaustive()
    }
}

/// A public key. The fields are in the order that a thumbprint requires (RFC 7638 §3.2).
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(untagged)]
pub enum PublicJwk {
    /// Elliptic curve.
    Ec {
        /// The curve.
        crv: &'static str,
        /// Always `EC`.
        kty: &'static str,
        /// Base64url.
        x: String,
        /// Base64url.
        y: String,
    },
    /// RSA.
    Rsa {
        /// Exponent, base64url.
        e: String,
        /// Always `RSA`.
        kty: &'static str,
        /// Modulus, base64url.
        n: String,
    },
}

#[derive(Deserialize)]
struct PrivateJwk {
    kty: String,
    crv: Option<String>,
    alg: Option<String>,
    kid: Option<String>,
    x: Option<String>,
    y: Option<String>,
    n: Option<String>,
    e: Option<String>,
    d: Option<String>,
    p: Option<String>,
    q: Option<String>,
    dp: Option<String>,
    dq: Option<String>,
    qi: Option<String>,
}

impl SigningKey {
    /// Reads a private key: PEM (PKCS#8, PKCS#1, SEC1) or a private JWK.
    ///
    /// RSA keys use RS256 and EC keys their curve's ES algorithm, unless a JWK's `alg` says otherwise.
    ///
    /// # Errors
    /// The errors never contain a part of the key.
    pub fn parse(text: &str) -> Result<Self, KeyError> {
        match KeyText::find(text)? {
            KeyText::Jwk(jwk) => Self::from_jwk(&jwk),
            KeyText::Pem(pem) => Self::from_pem(&pem),
        }
    }

    /// Generates a P-256 key.
    ///
    /// # Errors
    /// If the system's random generator fails.
    pub fn generate() -> Result<Self, KeyError> {
        let pair = EcdsaKeyPair::generate(&ECDSA_P256_SHA256_FIXED_SIGNING).map_err(|_| KeyError::Damaged)?;
        Ok(Self { pair: Pair::Ec(pair), algorithm: Algorithm::Es256, id: None })
    }

    fn from_pem(text: &str) -> Result<Self, KeyError> {
        let der = PrivateKeyDer::from_pem_slice(text.as_bytes()).map_err(|_| KeyError::Damaged)?;
        let rsa = match &der {
            PrivateKeyDer::Pkcs1(der) => RsaKeyPair::from_der(der.secret_pkcs1_der()).ok(),
            PrivateKeyDer::Pkcs8(der) => RsaKeyPair::from_pkcs8(der.secret_pkcs8_der()).ok(),
            _ => None,
        };
        if let Some(pair) = rsa {
            return Self::rsa(pair, Algorithm::Rs256, None);
        }
        for algorithm in Algorithm::ON_CURVES {
            if let Some((curve, _)) = algorithm.curve()
                && let Ok(pair) = EcdsaKeyPair::from_private_key_der(curve, der.secret_der())
            {
                return Ok(Self { pair: Pair::Ec(pair), algorithm, id: None });
            }
        }
        // The library refuses short RSA keys without saying why.
        let is_rsa = matches!(der, PrivateKeyDer::Pkcs1(_)) || contains(der.secret_der(), &RSA_ENCRYPTION_OID);
        Err(match () {
            () if !is_whole_sequence(der.secret_der()) => KeyError::Damaged,
            () if is_rsa && der.secret_der().len() < RSA_2048_DER_BYTES_MIN => KeyError::TooShort,
            () if is_rsa => KeyError::Damaged,
            () => KeyError::Unsupported,
        })
    }

    fn from_jwk(text: &str) -> Result<Self, KeyError> {
        let jwk: PrivateJwk = serde_json::from_str(text).map_err(|_| KeyError::Unrecognized)?;
        if jwk.d.is_none() && matches!(jwk.kty.as_str(), "RSA" | "EC") {
            return Err(KeyError::Public);
        }
        let named = match &jwk.alg {
            Some(name) => Some(
                Algorithm::ALL.into_iter().find(|algorithm| algorithm.as_str() == name).ok_or(KeyError::Algorithm)?,
            ),
            None => None,
        };
        match jwk.kty.as_str() {
            "RSA" => {
                let components = rsa::KeyPairComponents {
                    public_key: rsa::PublicKeyComponents { n: number(&jwk.n)?, e: number(&jwk.e)? },
                    d: number(&jwk.d)?,
                    p: number(&jwk.p)?,
                    q: number(&jwk.q)?,
                    dP: number(&jwk.dp)?,
                    dQ: number(&jwk.dq)?,
                    qInv: number(&jwk.qi)?,
                };
                if components.public_key.n.len() * 8 < RSA_BITS_MIN {
                    return Err(KeyError::TooShort);
                }
                let pair = RsaKeyPair::from_components(&components).map_err(|_| KeyError::Damaged)?;
                Self::rsa(pair, named.unwrap_or(Algorithm::Rs256), jwk.kid)
            }
            "EC" => {
                let (algorithm, curve) = Algorithm::ON_CURVES
                    .into_iter()
                    .find_map(|algorithm| {
                        let (curve, name) = algorithm.curve()?;
                        (jwk.crv.as_deref() == Some(name)).then_some((algorithm, curve))
                    })
                    .ok_or(KeyError::Unsupported)?;
                if named.is_some_and(|named| named != algorithm) {
                    return Err(KeyError::Algorithm);
                }
                let point = [&[4_u8][..], &number(&jwk.x)?, &number(&jwk.y)?].concat();
                let pair = EcdsaKeyPair::from_private_key_and_public_key(curve, &number(&jwk.d)?, &point)
                    .map_err(|_| KeyError::Damaged)?;
                Ok(Self { pair: Pair::Ec(pair), algorithm, id: jwk.kid })
            }
            _ => Err(KeyError::Unsupported),
        }
    }

    fn rsa(pair: RsaKeyPair, algorithm: Algorithm, id: Option<String>) -> Result<Self, KeyError> {
        if pair.public_modulus_len() * 8 < RSA_BITS_MIN {
            return Err(KeyError::TooShort);
        }
        if algorithm.curve().is_some() {
            return Err(KeyError::Algorithm);
        }
        Ok(Self { pair: Pair::Rsa(pair), algorithm, id })
    }

    /// The signature algorithm.
    pub const fn algorithm(&self) -> Algorithm {
        self.algorithm
    }

    /// The JWK's `kid`.
    pub fn id(&self) -> Option<&str> {
        self.id.as_deref()
    }

    /// The public key.
    pub fn public_jwk(&self) -> PublicJwk {
        match &self.pair {
            Pair::Rsa(pair) => {
                let key = pair.public_key();
                let unsigned = |bytes: &[u8]| URL_SAFE_NO_PAD.encode(without_leading_zeros(bytes));
                PublicJwk::Rsa {
                    e: unsigned(key.exponent().big_endian_without_leading_zero()),
                    kty: "RSA",
                    n: unsigned(key.modulus().big_endian_without_leading_zero()),
                }
            }
            Pair::Ec(pair) => {
                // Uncompressed: 4, x, y (SEC 1 §2.3.3).
                let point = pair.public_key().as_ref().get(1..).unwrap_or_default();
                let (x, y) = point.split_at(point.len() / 2);
                PublicJwk::Ec {
                    crv: self.algorithm.curve().map_or("", |(_, name)| name),
                    kty: "EC",
                    x: URL_SAFE_NO_PAD.encode(x),
                    y: URL_SAFE_NO_PAD.encode(y),
                }
            }
        }
    }

    /// Adds `alg` to `header`, signs it with `claims`, and returns the compact JWS.
    ///
    /// # Errors
    /// If the system's random generator fails, or the claims cannot be serialized as JSON.
    pub fn sign(&self, header: &serde_json::Value, claims: &impl Serialize) -> Result<String, SignError> {
        let mut header = header.clone();
        header["alg"] = self.algorithm.as_str().into();
        let payload = serde_json::to_vec(claims).map_err(|_| SignError)?;
        let mut jws = format!("{}.{}", URL_SAFE_NO_PAD.encode(header.to_string()), URL_SAFE_NO_PAD.encode(payload));
        let signature = self.signature(jws.as_bytes())?;
        jws.push('.');
        URL_SAFE_NO_PAD.encode_string(signature, &mut jws);
        Ok(jws)
    }

    fn signature(&self, message: &[u8]) -> Result<Vec<u8>, SignError> {
        let random = SystemRandom::new();
        match &self.pair {
            Pair::Ec(pair) => Ok(pair.sign(&random, message).map_err(|_| SignError)?.as_ref().to_vec()),
            Pair::Rsa(pair) => {
                let scheme = match self.algorithm {
                    Algorithm::Rs384 => &RSA_PKCS1_SHA384,
                    Algorithm::Rs512 => &RSA_PKCS1_SHA512,
                    _ => &RSA_PKCS1_SHA256,
                };
                let mut signature = vec![0; pair.public_modulus_len()];
                pair.sign(scheme, &random, message, &mut signature).map_err(|_| SignError)?;
                Ok(signature)
            }
        }
    }
}

impl PublicJwk {
    /// The SHA-256 thumbprint, base64url (RFC 7638). A DPoP token is bound to it.
    pub fn thumbprint(&self) -> String {
        // Serializing strings does not fail; the fields are in the RFC's order.
        sha256_base64url(serde_json::to_string(self).unwrap_or_default().as_bytes())
    }
}

/// Signing failed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("failed to sign")]
pub struct SignError;

/// SHA-256 in base64url, e.g. for DPoP's `ath` (RFC 9449 §4.2).
pub fn sha256_base64url(bytes: &[u8]) -> String {
    URL_SAFE_NO_PAD.encode(digest::digest(&digest::SHA256, bytes))
}

/// A 2048-bit key has at least 1,152 bytes of numbers: modulus and private exponent (256 each), and five of half size.
const RSA_2048_DER_BYTES_MIN: usize = 1100;

/// Whether this DER is one SEQUENCE of the full length; otherwise it is truncated.
fn is_whole_sequence(der: &[u8]) -> bool {
    match der {
        [0x30, length, rest @ ..] if *length < 0x80 => rest.len() == usize::from(*length),
        [0x30, 0x81, length, rest @ ..] => rest.len() == usize::from(*length),
        [0x30, 0x82, high, low, rest @ ..] => rest.len() == usize::from(u16::from_be_bytes([*high, *low])),
        _ => false,
    }
}

/// 1.2.840.113549.1.1.1, DER.
const RSA_ENCRYPTION_OID: [u8; 11] = [0x06, 0x09, 0x2a, 0x86, 0x48, 0x86, 0xf7, 0x0d, 0x01, 0x01, 0x01];

fn contains(bytes: &[u8], part: &[u8]) -> bool {
    bytes.windows(part.len()).any(|window| window == part)
}

fn without_leading_zeros(bytes: &[u8]) -> &[u8] {
    let zeros = bytes.iter().take_while(|byte| **byte == 0).count();
    bytes.get(zeros..).unwrap_or_default()
}

fn number(text: &Option<String>) -> Result<Vec<u8>, KeyError> {
    let text = text.as_deref().ok_or(KeyError::Damaged)?;
    URL_SAFE_NO_PAD.decode(text.trim_end_matches('=')).map_err(|_| KeyError::Damaged)
}

#[cfg(test)]
mod tests;
