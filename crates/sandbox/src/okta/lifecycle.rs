//! Lifecycle operations on users and their events.

use std::sync::Arc;
use std::time::Duration;

use serde_json::{Map, Value};

use okta_auth0_sync_clock::sub;
use okta_auth0_sync_clock::{Clock, Timestamp};

use super::directory::User;
use super::entry::{Content, Entry, Facts, Kind};
use super::org::Org;
use super::problem::Problem;

/// The order of the events of a deletion.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum DeleteOrder {
    /// `update_profile`, `deactivate`, `delete.initiated`: 8 of 11 deletions recorded by okta-sdk-java.
    #[default]
    DeactivateFirst,
    /// `update_profile`, `delete.initiated`, `deactivate`: the other 3.
    InitiatedFirst,
}

/// Offsets of `published` before the end of a deletion, as recorded by okta-sdk-java.
const DEACTIVATED_BEFORE: Duration = Duration::from_millis(205);
const INITIATED_BEFORE: Duration = Duration::from_millis(23);

impl Org {
    fn record(&mut self, clock: &dyn Clock, of: &User, kind: Kind, transaction: &Arc<str>, published: Timestamp) {
        let facts = Facts {
            kind,
            uuid: self.ids.entry_uuid(published).into(),
            transaction: transaction.clone(),
            user_id: of.id.clone(),
            login: of.login.clone(),
            name: of.name().into(),
            changed: (kind == Kind::UpdateProfile).then_some("login"),
        };
        self.log.append(Entry { persisted_ms: 0, published, content: Content::Made(Box::new(facts)) }, clock.now());
    }

    fn transaction(&mut self) -> Arc<str> {
        self.ids.base62(27).into()
    }

    /// Creates a user. As recorded, `activate` comes before `create` in the log.
    pub(super) fn create(
        &mut self,
        clock: &dyn Clock,
        profile: &Map<String, Value>,
        activate: bool,
        has_password: bool,
    ) -> Result<Arc<User>, Problem> {
        let user = self.add(clock, profile, activate, has_password)?;
        let transaction = self.transaction();
        let kinds: &[Kind] = if activate { &[Kind::Activate, Kind::Create] } else { &[Kind::Create] };
        for kind in kinds {
            self.record(clock, &user, *kind, &transaction, user.created);
        }
        Ok(user)
    }

    /// Adds a user without an event.
    pub(super) fn add(
        &mut self,
        clock: &dyn Clock,
        profile: &Map<String, Value>,
        activate: bool,
        has_password: bool,
    ) -> Result<Arc<User>, Problem> {
        let login = profile.get("login").and_then(Value::as_str).filter(|login| !login.is_empty());
        let Some(login) = login else {
            return Err(Problem::validation("login", "login: The field cannot be left blank"));
        };
        self.check_login_is_free(login, None)?;
        let now = clock.now();
        let status = match (activate, has_password) {
            (false, _) => "STAGED",
            (true, true) => "ACTIVE",
            (true, false) => "PROVISIONED",
        };
        let mut user = User {
            id: format!("00u{}", self.ids.base62(17)).into(),
            status: status.into(),
            transitioning: None,
            created: now,
            activated: activate.then_some(now),
            status_changed: activate.then_some(now),
            last_updated: now,
            login: Box::default(),
            email: None,
            first_name: None,
            last_name: None,
            more: None,
            has_password,
            hidden: false,
        };
        user.merge_profile(profile);
        self.directory.insert(user.clone(), clock.monotonic());
        Ok(Arc::new(user))
    }

    /// Logs an activation of a user without changing the user.
    pub(super) fn remember_activation(&mut self, clock: &dyn Clock, id: &str) -> Result<(), Problem> {
        let user = self.known(id)?;
        let transaction = self.transaction();
        self.record(clock, &user, Kind::Activate, &transaction, clock.now());
        Ok(())
    }

    fn check_login_is_free(&self, login: &str, own_id: Option<&str>) -> Result<(), Problem> {
        match self.directory.find(login) {
            Some(other) if own_id != Some(&*other.id) => Err(Problem::validation(
                "login",
                "login: An object with this field already exists in the current organization",
            )),
            _ => Ok(()),
        }
    }

    /// The user with this id or login, unless hidden.
    pub(super) fn visible(&self, id_or_login: &str) -> Result<Arc<User>, Problem> {
        match self.directory.find(id_or_login) {
            Some(user) if !user.hidden => Ok(user.clone()),
            _ => Err(Problem::not_found(id_or_login)),
        }
    }

    /// The user with this id or login, hidden or not.
    fn known(&self, id_or_login: &str) -> Result<Arc<User>, Problem> {
        self.directory.find(id_or_login).cloned().ok_or_else(|| Problem::not_found(id_or_login))
    }

    /// Changes the status of a user, and logs the event (if `kind` is one).
    fn enter(&mut self, clock: &dyn Clock, user: &User, status: &str, kinds: &[Kind]) {
        let now = clock.now();
        let transaction = self.transaction();
        let activated = matches!(status, "ACTIVE" | "PROVISIONED") && kinds.contains(&Kind::Activate);
        self.directory.change(&user.id, clock.monotonic(), |user| {
            user.status = status.into();
            user.transitioning = None;
            user.status_changed = Some(now);
            user.last_updated = now;
            if activated {
                user.activated = Some(now);
            }
        });
        for kind in kinds {
            self.record(clock, user, *kind, &transaction, now);
        }
    }

    /// `POST …/lifecycle/activate`. The event is `activate` also after a manual deactivation.
    pub(super) fn activate(&mut self, clock: &dyn Clock, id: &str) -> Result<(), Problem> {
        let user = self.known(id)?;
        match &*user.status {
            "STAGED" | "DEPROVISIONED" => {
                let status = if user.has_password { "ACTIVE" } else { "PROVISIONED" };
                self.enter(clock, &user, status, &[Kind::Activate]);
                Ok(())
            }
            "ACTIVE" => Err(Problem::already_active()),
            _ => Err(Problem::wrong_status()),
        }
    }

    /// Activation by an import: `reactivate`, then `activate`, in one transaction.
    pub(super) fn import_activate(&mut self, clock: &dyn Clock, id: &str) -> Result<(), Problem> {
        let user = self.known(id)?;
        self.enter(clock, &user, "ACTIVE", &[Kind::Reactivate, Kind::Activate]);
        Ok(())
    }

    /// `POST …/lifecycle/deactivate`. No effect if the user is already deactivated.
    pub(super) fn deactivate(&mut self, clock: &dyn Clock, id: &str) -> Result<(), Problem> {
        let user = self.known(id)?;
        if &*user.status != "DEPROVISIONED" {
            self.enter(clock, &user, "DEPROVISIONED", &[Kind::Deactivate]);
        }
        Ok(())
    }

    /// `POST …/lifecycle/suspend`.
    pub(super) fn suspend(&mut self, clock: &dyn Clock, id: &str) -> Result<(), Problem> {
        let user = self.known(id)?;
        if &*user.status != "ACTIVE" {
            return Err(Problem::validation("suspendUser", "Cannot suspend a user that is not active"));
        }
        self.enter(clock, &user, "SUSPENDED", &[Kind::Suspend, Kind::SessionClear]);
        Ok(())
    }

    /// `POST …/lifecycle/unsuspend`.
    pub(super) fn unsuspend(&mut self, clock: &dyn Clock, id: &str) -> Result<(), Problem> {
        let user = self.known(id)?;
        if &*user.status != "SUSPENDED" {
            return Err(Problem::validation("unsuspendUser", "Cannot unsuspend a user that is not suspended"));
        }
        self.enter(clock, &user, "ACTIVE", &[Kind::Unsuspend]);
        Ok(())
    }

    /// `POST …/lifecycle/reactivate`: sends the activation mail again.
    pub(super) fn reactivate(&mut self, clock: &dyn Clock, id: &str) -> Result<(), Problem> {
        let user = self.known(id)?;
        match &*user.status {
            status @ ("PROVISIONED" | "RECOVERY") => {
                self.enter(clock, &user, status, &[Kind::Reactivate]);
                Ok(())
            }
            _ => Err(Problem::wrong_status()),
        }
    }

    /// Updates a profile; `replace` removes attributes that the new one does not have.
    pub(super) fn update_profile(
        &mut self,
        clock: &dyn Clock,
        id: &str,
        profile: &Map<String, Value>,
        replace: bool,
    ) -> Result<Arc<User>, Problem> {
        let user = self.known(id)?;
        if &*user.status == "DEPROVISIONED" {
            return Err(Problem::wrong_status());
        }
        if let Some(login) = profile.get("login").and_then(Value::as_str) {
            self.check_login_is_free(login, Some(&user.id))?;
        }
        let now = clock.now();
        let changed = self.directory.change(&user.id, clock.monotonic(), |user| {
            if replace {
                (user.email, user.first_name, user.last_name, user.more) = (None, None, None, None);
            }
            user.merge_profile(profile);
            user.last_updated = now;
        });
        let changed = changed.ok_or_else(|| Problem::not_found(id))?;
        let transaction = self.transaction();
        self.record(clock, &changed, Kind::UpdateProfile, &transaction, now);
        Ok(changed)
    }

    /// Deletes a user permanently, after deactivating it if necessary. The login is renamed before anything else is
    /// logged: the last events do not contain the address.
    pub(super) fn delete(&mut self, clock: &dyn Clock, id: &str, order: DeleteOrder) -> Result<(), Problem> {
        let user = self.known(id)?;
        let now = clock.now();
        let transaction = self.transaction();
        let mut renamed = (*user).clone();
        renamed.login = format!("{}@deleted.invalid", user.id).into();
        self.record(clock, &renamed, Kind::UpdateProfile, &transaction, now);
        let mut rest = vec![(Kind::DeleteInitiated, sub(now, INITIATED_BEFORE), transaction)];
        if &*user.status != "DEPROVISIONED" {
            let deactivated = (Kind::Deactivate, sub(now, DEACTIVATED_BEFORE), self.transaction());
            rest.insert(usize::from(order == DeleteOrder::InitiatedFirst), deactivated);
        }
        for (kind, published, transaction) in rest {
            self.record(clock, &user, kind, &transaction, published);
        }
        self.directory.remove(&user.id, clock.monotonic());
        Ok(())
    }
}
