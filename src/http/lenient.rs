//! Decoding that does not fail on fields we do not need: their types vary between versions and tenants.

use serde::de::{Deserializer, IgnoredAny};
use serde::{Deserialize, de::DeserializeOwned};
use serde_json::value::RawValue;

/// A string, or `None` for any other type. Never fails, whatever the nesting.
pub(crate) fn text<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<String>, D::Error> {
    Ok(string(Box::<RawValue>::deserialize(deserializer)?.get()))
}

/// The readable elements of a list; empty for any other type.
pub(crate) fn list<'de, D: Deserializer<'de>, T: DeserializeOwned>(deserializer: D) -> Result<Vec<T>, D::Error> {
    let raw = Box::<RawValue>::deserialize(deserializer)?;
    let elements: Vec<Box<RawValue>> = serde_json::from_str(raw.get()).unwrap_or_default();
    Ok(elements.iter().filter_map(|element| serde_json::from_str(element.get()).ok()).collect())
}

/// A `T`, or its default for any other type.
pub(crate) fn shape<'de, D: Deserializer<'de>, T: DeserializeOwned + Default>(deserializer: D) -> Result<T, D::Error> {
    let raw = Box::<RawValue>::deserialize(deserializer)?;
    Ok(serde_json::from_str(raw.get()).unwrap_or_default())
}

/// The string, if `json` is one.
pub(crate) fn string(json: &str) -> Option<String> {
    serde_json::from_str(json).ok()
}

/// A number of seconds: a number, with or without a fraction, or one as a string. `None` for anything else.
pub(crate) fn seconds<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<u64>, D::Error> {
    let raw = Box::<RawValue>::deserialize(deserializer)?;
    let number = serde_json::from_str::<f64>(raw.get()).ok().or_else(|| string(raw.get())?.trim().parse().ok());
    #[expect(
        clippy::cast_possible_truncation,
        clippy::cast_sign_loss,
        reason = "a lifetime in seconds, truncated on purpose"
    )]
    Ok(number.filter(|number| (0.0..1e15).contains(number)).map(|number| number as u64))
}

/// Whether `json` is `true` or the string `"true"`.
pub(crate) fn is_true(json: &str) -> bool {
    serde_json::from_str(json).unwrap_or(false) || string(json).as_deref() == Some("true")
}

/// Whether `json` is null.
pub(crate) fn is_null(json: &str) -> bool {
    serde_json::from_str::<Option<IgnoredAny>>(json).is_ok_and(|value| value.is_none())
}
