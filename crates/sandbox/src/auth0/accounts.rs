//! The users of the tenant, stored as the JSON that the API returns, with indexes by id, address and search.

use std::collections::{BTreeSet, HashMap};
use std::sync::Arc;
use std::time::Duration;

use serde_json::{Map, Value, json};

use crate::lagged::Lagged;

use super::search::Query;

/// All users.
#[derive(Debug)]
pub(super) struct Accounts {
    /// In order of creation. A deleted user leaves an empty slot.
    users: Vec<Lagged<Arc<Value>>>,
    by_id: HashMap<String, usize>,
    /// The address as written → slots.
    by_email: HashMap<String, Vec<usize>>,
    /// An address or an identity's id, in lower case → slots of users who have or had it: the candidates of a search.
    hints: HashMap<String, Vec<usize>>,
    /// How far the search index lags behind.
    lag: Duration,
}

impl Accounts {
    pub(super) fn new(lag: Duration) -> Self {
        Self { users: Vec::new(), by_id: HashMap::new(), by_email: HashMap::new(), hints: HashMap::new(), lag }
    }

    /// Adds a user whose `user_id` is not taken.
    pub(super) fn insert(&mut self, user: Value, now: Duration) {
        let place = self.users.len();
        self.by_id.insert(user_id(&user).to_owned(), place);
        self.index(place, &user);
        self.users.push(Lagged::born(Arc::new(user), now, self.lag));
    }

    fn index(&mut self, place: usize, user: &Value) {
        if let Some(email) = user["email"].as_str() {
            self.by_email.entry(email.to_owned()).or_default().push(place);
        }
        let identities = user["identities"].as_array().into_iter().flatten();
        let of_identities = identities.flat_map(|identity| [&identity["user_id"], &identity["profileData"]["email"]]);
        for value in std::iter::once(&user["email"]).chain(of_identities).filter_map(Value::as_str) {
            let places = self.hints.entry(value.to_lowercase()).or_default();
            if !places.contains(&place) {
                places.push(place);
            }
        }
    }

    fn unindex(&mut self, place: usize, user: &Value) {
        if let Some(places) = user["email"].as_str().and_then(|email| self.by_email.get_mut(email)) {
            places.retain(|other| *other != place);
        }
    }

    /// The user with this id.
    pub(super) fn get(&self, id: &str) -> Option<&Arc<Value>> {
        self.users.get(*self.by_id.get(id)?)?.current()
    }

    /// The users with exactly this address.
    pub(super) fn with_email(&self, email: &str) -> impl Iterator<Item = &Arc<Value>> {
        self.by_email.get(email).into_iter().flatten().filter_map(|place| self.users[*place].current())
    }

    /// All existing users in order of creation.
    pub(super) fn current(&self) -> impl Iterator<Item = &Arc<Value>> {
        self.users.iter().filter_map(Lagged::current)
    }

    /// Changes a user, and returns the new state.
    pub(super) fn change(
        &mut self,
        id: &str,
        now: Duration,
        change: impl FnOnce(&mut Map<String, Value>),
    ) -> Option<Arc<Value>> {
        let place = *self.by_id.get(id)?;
        let before = self.users[place].current()?.clone();
        let mut fields = before.as_object().cloned().unwrap_or_default();
        change(&mut fields);
        // The id is the key: it stays.
        fields.insert("user_id".to_owned(), json!(id));
        let after = Arc::new(Value::Object(fields));
        *self.users[place].change(now, self.lag) = Some(after.clone());
        if before["email"] != after["email"] || before["identities"] != after["identities"] {
            self.unindex(place, &before);
            self.index(place, &after);
        }
        Some(after)
    }

    /// Removes a user and returns it.
    pub(super) fn remove(&mut self, id: &str, now: Duration) -> Option<Arc<Value>> {
        let place = self.by_id.remove(id)?;
        let gone = self.users[place].change(now, self.lag).take()?;
        self.unindex(place, &gone);
        Some(gone)
    }

    /// The users that the lagging index finds.
    pub(super) fn search(&self, query: &Query, now: Duration) -> Vec<&Arc<Value>> {
        let places: Vec<usize> = if let Some(id) = query.required("user_id") {
            self.by_id.get(id).copied().into_iter().collect()
        } else if let Some(values) = query.identifiers() {
            // In order of creation, each once, as without the index.
            let hints = values.iter().filter_map(|value| self.hints.get(&value.to_lowercase()));
            hints.flatten().copied().collect::<BTreeSet<usize>>().into_iter().collect()
        } else {
            (0..self.users.len()).collect()
        };
        places
            .into_iter()
            .filter_map(|place| self.users[place].indexed(now, self.lag))
            .filter(|user| query.finds(user))
            .collect()
    }
}

/// A user's `user_id`.
pub(super) fn user_id(user: &Value) -> &str {
    user["user_id"].as_str().unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ids(found: Vec<&Arc<Value>>) -> Vec<&str> {
        found.into_iter().map(|user| user_id(user)).collect()
    }

    #[test]
    fn exact_lookup_is_current_and_search_lags() {
        let s = Duration::from_secs;
        let mut accounts = Accounts::new(s(5));
        accounts.insert(json!({ "user_id": "a", "email": "Ann@x.org" }), s(0));
        accounts.insert(json!({ "user_id": "b", "email": "ann@x.org" }), s(0));
        let query = Query::parse(r#"email:"ANN@X.ORG""#).unwrap();
        assert_eq!(ids(accounts.with_email("ann@x.org").collect()), ["b"]);
        assert!(accounts.search(&query, s(4)).is_empty());
        assert_eq!(ids(accounts.search(&query, s(5))), ["a", "b"]);
        accounts.change("a", s(10), |user| {
            user.insert("email".into(), json!("anna@x.org"));
        });
        assert_eq!(accounts.with_email("Ann@x.org").count(), 0);
        assert_eq!(accounts.with_email("anna@x.org").count(), 1);
        assert_eq!(ids(accounts.search(&query, s(11))), ["a", "b"], "the index still knows the old address");
        assert_eq!(ids(accounts.search(&query, s(15))), ["b"]);
        accounts.remove("b", s(20));
        assert!(accounts.get("b").is_none());
        assert_eq!(accounts.with_email("ann@x.org").count(), 0);
    }
}
