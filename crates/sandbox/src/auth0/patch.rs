//! `PATCH /api/v2/users/{id}`: what may be changed, and how it is merged.
//!
//! Auth0's API description: "These properties are merged instead of being replaced but be careful, the merge only
//! occurs on the first level." A `null` deletes a key, `{}` (or `null`) for the whole object deletes all of it, recorded
//! by terraform-provider-auth0.

use serde_json::{Map, Value};

use super::problem::Problem;

/// The properties that a PATCH may name, from Auth0's API description.
const WRITABLE: [&str; 18] = [
    "blocked",
    "email_verified",
    "email",
    "phone_number",
    "phone_verified",
    "user_metadata",
    "app_metadata",
    "given_name",
    "family_name",
    "name",
    "nickname",
    "picture",
    "verify_email",
    "verify_phone_number",
    "password",
    "connection",
    "client_id",
    "username",
];

/// Properties that are never returned.
const UNSEEN: [&str; 5] = ["verify_email", "verify_phone_number", "password", "connection", "client_id"];

/// `app_metadata` must not hold these: it is merged over the root profile. Auth0 docs: "Metadata field names and data
/// types".
const RESERVED: [&str; 15] = [
    "__tenant",
    "_id",
    "blocked",
    "clientID",
    "created_at",
    "email_verified",
    "email",
    "globalClientID",
    "global_client_id",
    "identities",
    "lastIP",
    "lastLogin",
    "loginsCount",
    "metadata",
    "user_id",
];

/// Checks a PATCH body.
pub(super) fn check(patch: &Map<String, Value>) -> Result<(), Problem> {
    for (name, value) in patch {
        if !WRITABLE.contains(&name.as_str()) {
            return Err(Problem::invalid_body(format!("'Additional properties not allowed: {name}'.")));
        }
        let (right, expected) = match name.as_str() {
            "blocked" | "email_verified" | "phone_verified" | "verify_email" | "verify_phone_number" => {
                (value.is_boolean(), "boolean")
            }
            "user_metadata" | "app_metadata" => (value.is_object() || value.is_null(), "object"),
            "connection" | "client_id" => (value.as_str().is_some_and(|text| !text.is_empty()), "string"),
            _ => (value.is_string() || value.is_null(), "string"),
        };
        if !right {
            return Err(Problem::invalid_body(format!("'Expected type {expected}' on property {name}.")));
        }
        if name.ends_with("_metadata") {
            check_metadata(name, value)?;
        }
    }
    Ok(())
}

/// Checks metadata keys: no dots or dollars, and in `app_metadata` no key of the root profile.
pub(super) fn check_metadata(name: &str, value: &Value) -> Result<(), Problem> {
    for key in value.as_object().into_iter().flat_map(Map::keys) {
        if key.contains(['.', '$']) || name == "app_metadata" && RESERVED.contains(&key.as_str()) {
            return Err(Problem::invalid_body(format!("'Invalid key {key}' on property {name}.")));
        }
    }
    Ok(())
}

/// Merges a checked PATCH into a user.
pub(super) fn merge(user: &mut Map<String, Value>, patch: &Map<String, Value>) {
    for (name, value) in patch {
        match (name.as_str(), value) {
            (hidden, _) if UNSEEN.contains(&hidden) => {}
            ("user_metadata" | "app_metadata", Value::Object(changes)) if !changes.is_empty() => {
                merge_metadata(user, name, changes);
            }
            // `{}` wipes.
            ("user_metadata", Value::Object(_)) => {
                user.insert(name.clone(), value.clone());
            }
            ("app_metadata", Value::Object(_)) | (_, Value::Null) => {
                user.remove(name);
            }
            _ => {
                user.insert(name.clone(), value.clone());
            }
        }
    }
}

fn merge_metadata(user: &mut Map<String, Value>, name: &str, changes: &Map<String, Value>) {
    let mut metadata = match user.remove(name) {
        Some(Value::Object(metadata)) => metadata,
        _ => Map::new(),
    };
    for (key, value) in changes {
        match value {
            Value::Null => {
                metadata.remove(key);
            }
            // The merge is on the first level only: deeper values are replaced.
            _ => {
                metadata.insert(key.clone(), value.clone());
            }
        }
    }
    user.insert(name.to_owned(), Value::Object(metadata));
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn merged(user: Value, patch: Value) -> Value {
        let (Value::Object(mut user), Value::Object(patch)) = (user, patch) else { panic!("objects") };
        check(&patch).unwrap();
        merge(&mut user, &patch);
        Value::Object(user)
    }

    #[test]
    fn only_the_first_level_is_merged() {
        let user = json!({ "user_metadata": { "okta": { "id": 1, "deactivated": "false" }, "lang": "de" } });
        let after = merged(user, json!({ "user_metadata": { "okta": { "deactivated": "true" } } }));
        assert_eq!(after, json!({ "user_metadata": { "okta": { "deactivated": "true" }, "lang": "de" } }));
    }

    #[test]
    fn null_deletes_a_key_and_empty_object_all() {
        let user = json!({ "app_metadata": { "a": 1, "b": 2 }, "user_metadata": { "c": 3 }, "nickname": "x" });
        let after = merged(user.clone(), json!({ "app_metadata": { "a": null }, "nickname": null }));
        assert_eq!(after, json!({ "app_metadata": { "b": 2 }, "user_metadata": { "c": 3 } }));
        let after = merged(user.clone(), json!({ "app_metadata": {}, "user_metadata": {} }));
        assert_eq!(after, json!({ "user_metadata": {}, "nickname": "x" }), "recorded by terraform-provider-auth0");
        assert_eq!(merged(user, json!({ "user_metadata": null, "app_metadata": null })), json!({ "nickname": "x" }));
    }

    #[test]
    fn a_password_is_never_kept() {
        let after = merged(json!({}), json!({ "password": "p", "connection": "c", "blocked": true }));
        assert_eq!(after, json!({ "blocked": true }));
    }

    #[test]
    fn invalid_patches_are_refused() {
        for patch in [
            json!({ "user_id": "x" }),
            json!({ "identities": [] }),
            json!({ "logins_count": 1 }),
            json!({ "blocked": "true" }),
            json!({ "app_metadata": "x" }),
            json!({ "user_metadata": [] }),
            json!({ "connection": "" }),
            json!({ "app_metadata": { "blocked": true } }),
            json!({ "user_metadata": { "a.b": 1 } }),
            json!({ "user_metadata": { "$a": 1 } }),
        ] {
            let problem = check(patch.as_object().unwrap()).unwrap_err();
            assert_eq!(problem.status, 400, "{patch}");
        }
    }
}
