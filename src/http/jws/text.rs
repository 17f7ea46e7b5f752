//! Finds the private key in a text, as people paste and export keys: with escaped line ends, on one line, behind the attributes
//! of a PKCS#12 bag, or in a set.

use serde_json::Value;

use super::KeyError;

/// What a key text contains.
pub(super) enum KeyText {
    /// One PEM block of a private key, with its usual line ends.
    Pem(String),
    /// A JWK.
    Jwk(String),
}

impl KeyText {
    /// Finds the one private key.
    ///
    /// # Errors
    /// When there is none, or several, or when it cannot be used in this form. The error never contains a part of the key.
    pub(super) fn find(text: &str) -> Result<Self, KeyError> {
        let text = text.trim_start_matches('\u{feff}').trim();
        let text = text.trim_matches(['"', '\'']).trim();
        if text.starts_with('{') {
            return jwk(text).map(Self::Jwk);
        }
        // Environment variables and JSON carry line ends as two characters.
        let text = text.replace("\\r", "").replace("\\n", "\n");
        pem(&text).map(Self::Pem)
    }
}

/// The JWK itself, or the one private key of a set.
fn jwk(text: &str) -> Result<String, KeyError> {
    let value: Value = serde_json::from_str(text).map_err(|_| KeyError::Unrecognized)?;
    let Some(keys) = value.get("keys").and_then(Value::as_array) else { return Ok(text.to_owned()) };
    let mut private = keys.iter().filter(|key| key.get("d").is_some());
    match (private.next(), private.next()) {
        (Some(key), None) => Ok(key.to_string()),
        (Some(_), Some(_)) => Err(KeyError::Several),
        (None, _) if keys.is_empty() => Err(KeyError::Unrecognized),
        (None, _) => Err(KeyError::Public),
    }
}

/// The one private key among the blocks, with line ends where PEM requires them.
fn pem(text: &str) -> Result<String, KeyError> {
    let (mut found, mut is_public, mut rest) = (None, false, text);
    while let Some((_, after)) = rest.split_once("-----BEGIN ") {
        let (label, body) = after.split_once("-----").ok_or(KeyError::Damaged)?;
        let (body, after) = body.split_once("-----END ").unwrap_or((body, ""));
        rest = after;
        match label {
            "OPENSSH PRIVATE KEY" => return Err(KeyError::OpenSsh),
            "ENCRYPTED PRIVATE KEY" => return Err(KeyError::Encrypted),
            _ if !label.ends_with("PRIVATE KEY") => {
                is_public |= label.ends_with("PUBLIC KEY") || label.ends_with("CERTIFICATE");
                continue;
            }
            _ if body.contains("ENCRYPTED") => return Err(KeyError::Encrypted),
            _ => {}
        }
        let data: String = body.split_whitespace().collect();
        let block = format!("-----BEGIN {label}-----\n{data}\n-----END {label}-----\n");
        if found.replace(block).is_some() {
            return Err(KeyError::Several);
        }
    }
    match found {
        Some(block) => Ok(block),
        None if is_public => Err(KeyError::Public),
        None => Err(KeyError::Unrecognized),
    }
}
