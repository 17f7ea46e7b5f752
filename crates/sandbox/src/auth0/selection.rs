//! `fields` and `include_fields`: the selected part of a user.

use serde_json::Value;

use crate::message::Inbound;

use super::problem::Problem;

/// The names that `fields` accepts.
const FIELDS: [&str; 24] = [
    "user_id",
    "email",
    "email_verified",
    "username",
    "phone_number",
    "phone_verified",
    "created_at",
    "updated_at",
    "identities",
    "app_metadata",
    "user_metadata",
    "picture",
    "name",
    "nickname",
    "multifactor",
    "last_ip",
    "last_login",
    "logins_count",
    "blocked",
    "given_name",
    "family_name",
    "last_password_reset",
    "multifactor_last_modified",
    "blocked_for",
];

/// The selected fields of a user.
pub(super) struct Selection {
    fields: Vec<String>,
    include: bool,
}

impl Selection {
    /// Reads the selection of a request.
    ///
    /// # Errors
    /// If it names an unknown field.
    pub(super) fn of(request: &Inbound) -> Result<Self, Problem> {
        let fields: Vec<String> = request
            .param("fields")
            .unwrap_or_default()
            .split(',')
            .map(str::trim)
            .filter(|field| !field.is_empty())
            .map(str::to_owned)
            .collect();
        if let Some(unknown) = fields.iter().find(|field| !FIELDS.contains(&field.as_str())) {
            return Err(Problem::invalid_query(format!(
                "'String does not match pattern: {unknown}' on property fields."
            )));
        }
        Ok(Self { fields, include: request.param("include_fields").as_deref() != Some("false") })
    }

    /// The selected part of a user.
    pub(super) fn apply(&self, user: &Value) -> Value {
        if self.fields.is_empty() {
            return user.clone();
        }
        let chosen = user.as_object().into_iter().flatten();
        Value::Object(
            chosen
                .filter(|(name, _)| self.fields.contains(name) == self.include)
                .map(|(name, value)| (name.clone(), value.clone()))
                .collect(),
        )
    }
}
