//! What must be true of Auth0 when all is quiet, written from the decision table and from nothing of the program.

use std::collections::BTreeSet;

use serde_json::Value;

/// A person, as Okta says at the end.
#[derive(Clone, Debug)]
pub(crate) struct Person {
    pub(crate) id: String,
    pub(crate) email: String,
    /// `DELETED` when they are gone, `FORGOTTEN` when they are gone and were taken out of the state as well.
    pub(crate) status: String,
}

/// What the table says of a status.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Row {
    Deny,
    Allow,
    Leave,
}

/// The decision table's column of verdicts.
pub(crate) fn row(status: &str) -> Row {
    match status {
        "DEPROVISIONED" | "DELETED" | "SUSPENDED, which denies" => Row::Deny,
        "ACTIVE" | "PROVISIONED" | "RECOVERY" | "PASSWORD_EXPIRED" | "LOCKED_OUT" => Row::Allow,
        _ => Row::Leave,
    }
}

/// What is wrong with `account`; empty when nothing is. `held` are the people who wait for somebody to decide: an account
/// that a mark of theirs denies, or that only their denial would deny, is as it was.
pub(crate) fn wrongs(account: &Value, people: &[Person], held: &BTreeSet<String>, foreign_block: bool) -> Vec<String> {
    let mut wrongs = Vec::new();
    let mut wrong = |text: &str| wrongs.push(text.to_owned());
    let email = account["email"].as_str().unwrap_or_default().to_lowercase();
    let of_address = || people.iter().filter(|person| person.email.to_lowercase() == email);
    let mark = &account["app_metadata"]["okta_sync"];
    let marked = mark["deactivated"] == "true";
    let mirrored = account["user_metadata"]["okta"]["deactivated"] == "true";
    let blocked = account["blocked"] == true;
    let ours_blocked = marked && mark["blocked"] == true;
    let somebody = |wanted: Row| of_address().any(|person| row(&person.status) == wanted);

    let waits = of_address().any(|person| held.contains(&person.id));
    if marked {
        let owner = mark["okta_user_id"].as_str().unwrap_or_default();
        match of_address().find(|person| person.id == owner) {
            None => wrong("the mark names nobody of this address"),
            Some(owner) if held.contains(&owner.id) => {}
            Some(owner) => match row(&owner.status) {
                Row::Allow => wrong("the mark names somebody who is to be let in"),
                Row::Deny if somebody(Row::Allow) => wrong("denied, and somebody to let in holds the address"),
                Row::Deny | Row::Leave => {}
            },
        }
        // Nothing is written while a person has to decide, nor for an owner who is to be left alone (suspended, say): the
        // mark itself is in force.
        let owner_has_left = of_address().any(|person| person.id == owner && row(&person.status) == Row::Deny);
        if !mirrored && !waits && owner_has_left {
            wrong("the mirror is missing");
        }
    } else {
        if somebody(Row::Deny) && !somebody(Row::Allow) && !waits {
            wrong("nobody to let in holds the address, somebody left, and it is open");
        }
        // Who is left alone is not looked for: what others removed or left behind stays until there is a verdict again.
        if mirrored && !waits && !somebody(Row::Leave) {
            wrong("a mirror without a mark");
        }
    }
    if foreign_block {
        if !blocked {
            wrong("somebody else's block was lifted");
        }
        if ours_blocked {
            wrong("somebody else's block was claimed");
        }
    } else if blocked != ours_blocked && !waits && !somebody(Row::Leave) {
        // Nor is a block looked after of somebody who is left alone.
        wrong("blocked and the mark's word for it differ");
    }
    wrongs
}
