//! The initial users of a sandbox: as many as an experiment needs, in both tenants, with addresses that are hard to
//! match.

use serde_json::json;

use super::{Auth0Tenant, NewUser, OktaTenant, UserId};

/// The initial users of a sandbox. Each has the same address in both tenants.
///
/// Of each hundred, one has an account whose connection stores the address in upper case, and one shares the address of
/// an active user: the first is matched only by ignoring case, and the account of the second must not be denied.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Population {
    /// Active users, without events in the log.
    pub users: usize,
    /// How many of them are deactivated immediately, each with its event.
    pub leavers: usize,
    /// The number of earlier events in the log, all about active users.
    pub history: usize,
}

impl Population {
    pub(super) fn settle(self, okta: &OktaTenant, auth0: &Auth0Tenant) {
        let users: Vec<UserId> = (0..self.users)
            .map(|number| {
                let address = format!("person{number}@example.com");
                let account = match number % 100 {
                    10 => json!({ "email": address.to_uppercase(), "connection": "acme-saml" }),
                    _ => json!({ "email": address, "email_verified": true }),
                };
                auth0.create_user(account);
                if number % 100 == 60 {
                    okta.create_preexisting_user(&NewUser::new(&format!("second{number}@example.com"), &address));
                }
                okta.create_preexisting_user(&NewUser::new(&address, &address))
            })
            .collect();
        let (leavers, stayers) = users.split_at(self.leavers.min(users.len()));
        for id in stayers.iter().cycle().take(self.history) {
            okta.remember_activation(id);
        }
        for id in leavers {
            okta.deactivate(id);
        }
    }
}
