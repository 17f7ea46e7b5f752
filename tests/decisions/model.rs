//! The state that Auth0 must reach once all work is done, derived from the decision table alone and not from the program.

use std::collections::BTreeSet;

use serde_json::Value;

/// A user's final state in Okta.
#[derive(Clone, Debug)]
pub(crate) struct FinalUser {
    pub(crate) id: String,
    pub(crate) email: String,
    /// `DELETED` if Okta deleted the user, `FORGOTTEN` if `forget` also removed the user from the state.
    pub(crate) status: String,
}

/// The decision table's verdict on a status.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Expected {
    Deny,
    Allow,
    Leave,
}

/// What a wiped mark leaves behind.
pub(crate) const LEFTOVERS: [&str; 2] = ["a mirror without a mark", "`blocked` and the mark's `blocked` differ"];

/// Looks up the verdict on a status in the decision table.
pub(crate) fn verdict_on(status: &str) -> Expected {
    match status {
        "DEPROVISIONED" | "DELETED" | "SUSPENDED, which denies" => Expected::Deny,
        "ACTIVE" | "PROVISIONED" | "RECOVERY" | "PASSWORD_EXPIRED" | "LOCKED_OUT" => Expected::Allow,
        _ => Expected::Leave,
    }
}

/// The addresses of all identities of an account, in lower case.
pub(crate) fn addresses_of(account: &Value) -> BTreeSet<String> {
    let linked =
        account["identities"].as_array().into_iter().flatten().map(|identity| &identity["profileData"]["email"]);
    let all = std::iter::once(&account["email"]).chain(linked);
    all.filter_map(Value::as_str).map(str::to_lowercase).collect()
}

/// Returns how `account` differs from the decision table. While a user is in `held`, the accounts that their mark denies
/// or that only their denial would change must stay unchanged.
pub(crate) fn violations(
    account: &Value,
    users: &[FinalUser],
    held: &BTreeSet<String>,
    foreign_block: bool,
) -> Vec<String> {
    let mut violations = Vec::new();
    let mut violation = |text: &str| violations.push(text.to_owned());
    let addresses = addresses_of(account);
    let holders = || users.iter().filter(|user| addresses.contains(&user.email.to_lowercase()));
    let mark = &account["app_metadata"]["okta_sync"];
    let marked = mark["deactivated"] == "true";
    let mirrored = account["user_metadata"]["okta"]["deactivated"] == "true";
    let blocked = account["blocked"] == true;
    let blocked_by_us = marked && mark["blocked"] == true;
    let any_holder = |wanted: Expected| holders().any(|user| verdict_on(&user.status) == wanted);

    let is_held = holders().any(|user| held.contains(&user.id));
    if marked {
        let owner = mark["okta_user_id"].as_str().unwrap_or_default();
        match holders().find(|user| user.id == owner) {
            None => violation("the mark names no user with this address"),
            Some(owner) if held.contains(&owner.id) => {}
            Some(owner) => match verdict_on(&owner.status) {
                Expected::Allow => violation("the mark names a user who must be allowed"),
                Expected::Deny if any_holder(Expected::Allow) => {
                    violation("denied although an allowed user holds the address")
                }
                Expected::Deny | Expected::Leave => {}
            },
        }
        // The mark alone denies login, so a missing mirror is fine while the user is held or has the verdict Leave
        // (suspended, for example): nothing is written then.
        let owner_left = holders().any(|user| user.id == owner && verdict_on(&user.status) == Expected::Deny);
        if !mirrored && !is_held && owner_left {
            violation("the mirror is missing");
        }
    } else {
        if any_holder(Expected::Deny) && !any_holder(Expected::Allow) && !is_held {
            violation("open although a user left and no allowed user holds the address");
        }
        // With the verdict Leave the accounts are not read, so edits by others stay until the verdict changes.
        if mirrored && !is_held && !any_holder(Expected::Leave) {
            violation(LEFTOVERS[0]);
        }
    }
    if foreign_block {
        if !blocked {
            violation("a block by another tool was lifted");
        }
        if blocked_by_us {
            violation("the mark claims a block by another tool");
        }
    } else if blocked != blocked_by_us && !is_held && !any_holder(Expected::Leave) {
        // With the verdict Leave a block is not repaired either.
        violation(LEFTOVERS[1]);
    }
    violations
}
