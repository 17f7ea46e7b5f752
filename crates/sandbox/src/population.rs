//! People for a sandbox to begin with: as many as an experiment needs, in both tenants, with what makes them hard to tell
//! apart.

use serde_json::json;

use super::{Auth0Tenant, NewUser, OktaTenant, UserId};

/// Who lives in a sandbox at its start. Everybody has the same address in both tenants.
///
/// Of each hundred, one has an account whose connection keeps the address in capitals, and one shares the address with
/// somebody who stays: the account of the first is found only without regard to case, that of the second must stay open.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Population {
    /// Active people. No entry of the log tells of their coming.
    pub people: usize,
    /// So many of them are deactivated at once, each with its entry.
    pub leavers: usize,
    /// So many entries, all about people who stay, stand in the log before.
    pub history: usize,
}

impl Population {
    pub(super) fn settle(self, okta: &OktaTenant, auth0: &Auth0Tenant) {
        let people: Vec<UserId> = (0..self.people)
            .map(|number| {
                let address = format!("person{number}@example.com");
                let account = match number % 100 {
                    10 => json!({ "email": address.to_uppercase(), "connection": "acme-saml" }),
                    _ => json!({ "email": address, "email_verified": true }),
                };
                auth0.create_user(account);
                if number % 100 == 60 {
                    okta.settle_user(&NewUser::new(&format!("second{number}@example.com"), &address));
                }
                okta.settle_user(&NewUser::new(&address, &address))
            })
            .collect();
        let (leavers, stayers) = people.split_at(self.leavers.min(people.len()));
        for id in stayers.iter().cycle().take(self.history) {
            okta.remember_activation(id);
        }
        for id in leavers {
            okta.deactivate(id);
        }
    }
}
