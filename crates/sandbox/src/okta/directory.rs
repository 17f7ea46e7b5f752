//! The users of the org: their attributes, indexes and JSON form.

use std::borrow::Cow;
use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use serde_json::{Map, Value, json};

use crate::expression::{Attributes, Expression, Operator};
use crate::lagged::Lagged;
use okta_auth0_sync_clock::{Timestamp, timestamp_text};

/// A user as Okta stores it.
#[derive(Clone, Debug)]
pub(super) struct User {
    pub(super) id: Arc<str>,
    pub(super) status: Arc<str>,
    pub(super) transitioning: Option<Arc<str>>,
    pub(super) created: Timestamp,
    pub(super) activated: Option<Timestamp>,
    pub(super) status_changed: Option<Timestamp>,
    pub(super) last_updated: Timestamp,
    pub(super) login: Box<str>,
    pub(super) email: Option<Box<str>>,
    pub(super) first_name: Option<Box<str>>,
    pub(super) last_name: Option<Box<str>>,
    /// The other profile attributes.
    pub(super) more: Option<Box<Map<String, Value>>>,
    /// With a password, activation leads to ACTIVE; without, to PROVISIONED.
    pub(super) has_password: bool,
    /// Whether the user is outside the caller's resource set.
    pub(super) hidden: bool,
}

impl User {
    /// First and last name, the `displayName` of log entries.
    pub(super) fn name(&self) -> String {
        let parts: Vec<&str> = [&self.first_name, &self.last_name].into_iter().flatten().map(AsRef::as_ref).collect();
        parts.join(" ")
    }

    /// Merges profile attributes; `null` removes one, `login` cannot be removed.
    pub(super) fn merge_profile(&mut self, profile: &Map<String, Value>) {
        for (name, value) in profile {
            let text = value.as_str().map(Box::from);
            match name.as_str() {
                "login" => self.login = text.unwrap_or_else(|| self.login.clone()),
                "email" => self.email = text,
                "firstName" => self.first_name = text,
                "lastName" => self.last_name = text,
                _ => {
                    self.more.get_or_insert_default().insert(name.clone(), value.clone());
                }
            }
        }
    }

    /// The profile, with the attributes that every recorded profile has even when they are null.
    pub(super) fn profile(&self) -> Map<String, Value> {
        let mut profile = Map::new();
        profile.insert("mobilePhone".into(), Value::Null);
        profile.insert("secondEmail".into(), Value::Null);
        profile.extend(self.more.iter().flat_map(|more| more.iter()).map(|(k, v)| (k.clone(), v.clone())));
        profile.insert("firstName".into(), json!(self.first_name));
        profile.insert("lastName".into(), json!(self.last_name));
        profile.insert("login".into(), json!(self.login));
        profile.insert("email".into(), json!(self.email));
        profile
    }

    /// The user object, as recorded in terraform-provider-okta (a deprovisioned user, 2025).
    pub(super) fn json(&self, org_url: &str, view: View) -> Value {
        let time = |at: Option<Timestamp>| at.map(timestamp_text);
        let mut user = json!({
            "id": *self.id,
            "status": *self.status,
            "created": timestamp_text(self.created),
            "activated": time(self.activated),
            "statusChanged": time(self.status_changed),
            "lastLogin": null,
            "lastUpdated": timestamp_text(self.last_updated),
            "passwordChanged": null,
            "type": { "id": "otySandboxDefault000" },
            "profile": self.profile(),
        });
        if view.names_hidden
            && let Some(profile) = user["profile"].as_object_mut()
        {
            profile.retain(|attribute, _| attribute != "login" && attribute != "email");
        }
        // Without a transition the key is absent, not null.
        if let Some(transitioning) = &self.transitioning {
            user["transitioningToStatus"] = json!(**transitioning);
        }
        if view.credentials {
            user["credentials"] = json!({ "provider": { "type": "OKTA", "name": "OKTA" } });
            if self.has_password {
                user["credentials"]["password"] = json!({});
            }
        }
        if view.links {
            user["_links"] = self.links(org_url, view.listed);
        }
        user
    }

    fn links(&self, org_url: &str, listed: bool) -> Value {
        let own = format!("{org_url}/api/v1/users/{}", self.id);
        let mut links = Map::from_iter([("self".to_owned(), json!({ "href": own }))]);
        if listed {
            return Value::Object(links);
        }
        let operations: &[&str] = match &*self.status {
            "STAGED" => &["activate", "deactivate"],
            "PROVISIONED" | "RECOVERY" => &["reactivate", "deactivate"],
            "SUSPENDED" => &["unsuspend", "deactivate"],
            "DEPROVISIONED" => &["activate"],
            _ => &["suspend", "deactivate"],
        };
        for operation in operations {
            let href = format!("{own}/lifecycle/{operation}");
            links.insert((*operation).to_owned(), json!({ "href": href, "method": "POST" }));
        }
        if &*self.status == "DEPROVISIONED" {
            links.insert("delete".to_owned(), json!({ "href": own, "method": "DELETE" }));
        }
        links.insert(
            "type".to_owned(),
            json!({ "href": format!("{org_url}/api/v1/meta/types/user/otySandboxDefault000") }),
        );
        links.insert(
            "schema".to_owned(),
            json!({ "href": format!("{org_url}/api/v1/meta/schemas/user/oscSandboxDefault000") }),
        );
        Value::Object(links)
    }
}

/// The parts of a user that a response contains.
#[derive(Clone, Copy, Debug)]
pub(super) struct View {
    pub(super) credentials: bool,
    pub(super) links: bool,
    /// In a list, a user has only the link to itself.
    pub(super) listed: bool,
    /// Whether the caller's role has a condition that hides profile attributes (help.okta.com, "Permission conditions").
    pub(super) names_hidden: bool,
}

impl Attributes for User {
    fn values(&self, attribute: &str) -> Vec<Cow<'_, str>> {
        let time = |at: Timestamp| Some(Cow::Owned(timestamp_text(at)));
        let text = |text: &Option<Box<str>>| text.as_ref().map(|text| Cow::Owned(text.to_string()));
        let value = match attribute {
            "id" => Some(Cow::Borrowed(&*self.id)),
            "status" => Some(Cow::Borrowed(&*self.status)),
            "created" => time(self.created),
            "activated" => self.activated.and_then(time),
            "statusChanged" => self.status_changed.and_then(time),
            "lastUpdated" => time(self.last_updated),
            "profile.login" => Some(Cow::Borrowed(&*self.login)),
            "profile.email" => text(&self.email),
            "profile.firstName" => text(&self.first_name),
            "profile.lastName" => text(&self.last_name),
            other => {
                let name = other.strip_prefix("profile.").unwrap_or_default();
                match self.more.as_ref().and_then(|more| more.get(name)) {
                    Some(Value::String(text)) => Some(Cow::Borrowed(text.as_str())),
                    Some(value @ (Value::Bool(_) | Value::Number(_))) => Some(Cow::Owned(value.to_string())),
                    _ => None,
                }
            }
        };
        value.into_iter().collect()
    }

    fn ignores_case(&self, attribute: &str) -> bool {
        attribute.starts_with("profile.")
    }
}

/// Values of profile attributes, compared case-sensitively, as `filter` does.
pub(super) struct CaseSensitive<'a>(pub(super) &'a User);

impl Attributes for CaseSensitive<'_> {
    fn values(&self, attribute: &str) -> Vec<Cow<'_, str>> {
        self.0.values(attribute)
    }

    fn ignores_case(&self, _: &str) -> bool {
        false
    }
}

/// All users.
#[derive(Debug, Default)]
pub(super) struct Directory {
    /// In order of creation. A deleted user leaves an empty slot.
    users: Vec<Lagged<Arc<User>>>,
    by_id: HashMap<Arc<str>, usize>,
    /// Lower-case login → slot: unique.
    by_login: HashMap<String, usize>,
    /// Lower-case login or e-mail → slots of users who have or had it: the candidates of a search.
    hints: HashMap<String, Vec<usize>>,
    /// How far the index of searches and lists lags behind.
    lag: Duration,
}

impl Directory {
    /// An empty directory whose index lags by `lag`.
    pub(super) fn new(lag: Duration) -> Self {
        Self { lag, ..Self::default() }
    }

    /// Adds a user whose login is not taken.
    pub(super) fn insert(&mut self, user: User, now: Duration) {
        let place = self.users.len();
        self.by_id.insert(user.id.clone(), place);
        self.index(place, &user);
        self.users.push(Lagged::born(Arc::new(user), now, self.lag));
    }

    fn index(&mut self, place: usize, user: &User) {
        let login = user.login.to_lowercase();
        self.by_login.insert(login.clone(), place);
        for key in user.email.iter().map(|email| email.to_lowercase()).chain([login]) {
            let places = self.hints.entry(key).or_default();
            if !places.contains(&place) {
                places.push(place);
            }
        }
    }

    /// The user with this id.
    pub(super) fn get(&self, id: &str) -> Option<&Arc<User>> {
        self.users.get(*self.by_id.get(id)?)?.current()
    }

    /// The user with this id or login.
    pub(super) fn find(&self, id_or_login: &str) -> Option<&Arc<User>> {
        self.get(id_or_login).or_else(|| {
            let place = *self.by_login.get(&id_or_login.to_lowercase())?;
            self.users[place].current()
        })
    }

    /// Changes a user, and returns the new state.
    pub(super) fn change(&mut self, id: &str, now: Duration, change: impl FnOnce(&mut User)) -> Option<Arc<User>> {
        let place = *self.by_id.get(id)?;
        let before = self.users[place].current()?.clone();
        let mut user = (*before).clone();
        change(&mut user);
        let user = Arc::new(user);
        *self.users[place].change(now, self.lag) = Some(user.clone());
        if before.login != user.login {
            self.by_login.remove(&before.login.to_lowercase());
        }
        if before.login != user.login || before.email != user.email {
            self.index(place, &user);
        }
        Some(user)
    }

    /// Removes a user permanently.
    pub(super) fn remove(&mut self, id: &str, now: Duration) {
        if let Some(place) = self.by_id.remove(id) {
            let gone = self.users[place].change(now, self.lag).take();
            if let Some(user) = gone {
                self.by_login.remove(&user.login.to_lowercase());
            }
        }
    }

    /// All existing users in order of creation.
    pub(super) fn current(&self) -> impl Iterator<Item = &Arc<User>> {
        self.users.iter().filter_map(Lagged::current)
    }

    /// The users in the search index with their slots, from the slot `from` on.
    ///
    /// With `expression`, only candidates: the caller evaluates the expression.
    pub(super) fn indexed(
        &self,
        expression: Option<&Expression>,
        from: usize,
        now: Duration,
    ) -> impl Iterator<Item = (usize, &Arc<User>)> {
        let places: Box<dyn Iterator<Item = usize>> = match expression.and_then(|of| self.candidates(of)) {
            Some(mut few) => {
                few.sort_unstable();
                few.dedup();
                Box::new(few.into_iter().filter(move |place| *place >= from))
            }
            None => Box::new(from..self.users.len()),
        };
        places.filter_map(move |place| Some((place, self.users[place].indexed(now, self.lag)?)))
    }

    /// The only slots at which the expression can hold, if it determines them.
    fn candidates(&self, expression: &Expression) -> Option<Vec<usize>> {
        match expression {
            Expression::Compare { attribute, operator: Operator::Equal, value } => match attribute.as_str() {
                "id" => Some(self.by_id.get(value.as_str()).copied().into_iter().collect()),
                "profile.login" | "profile.email" => {
                    Some(self.hints.get(&value.to_lowercase()).cloned().unwrap_or_default())
                }
                _ => None,
            },
            Expression::And(one, other) => self.candidates(one).or_else(|| self.candidates(other)),
            Expression::Or(one, other) => {
                let mut all = self.candidates(one)?;
                all.extend(self.candidates(other)?);
                Some(all)
            }
            _ => None,
        }
    }
}
