//! Resolves what the operator typed to one user in the state.

use super::{Error, Exit, screen};
use crate::domain::{OktaUserId, OutcomeKind, Timestamp, escape};
use crate::store::{Store, UserRow};

/// The result of a user search.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum UserMatch {
    /// No user in the state matches.
    None,
    /// Exactly one match.
    One(Box<UserRow>),
    /// Several matches; the operator has to name an Okta id.
    Ambiguous(Vec<UserRow>),
}

impl UserMatch {
    /// Searches by Okta id, login, any address ever read, and Auth0 id. An exact Okta id wins, even if it is also
    /// another user's login.
    pub(crate) async fn find(store: &Store, who: &str) -> Result<Self, Error> {
        let mut users = store.find_users(who).await?;
        if let Some(exact) = users.iter().position(|user| user.okta_user_id == who.trim()) {
            return Ok(Self::One(Box::new(users.swap_remove(exact))));
        }
        Ok(match users.len() {
            0 => Self::None,
            1 => Self::One(Box::new(users.swap_remove(0))),
            _ => Self::Ambiguous(users),
        })
    }
}

/// The Okta id of a stored user.
///
/// # Errors
/// If the stored id is not a valid Okta id, which means that the state was edited.
pub(crate) fn id_of(user: &UserRow) -> Result<OktaUserId, Error> {
    OktaUserId::parse(&user.okta_user_id)
        .ok_or_else(|| Error::Setup(format!("the state contains {:?}, which is not an Okta id", user.okta_user_id)))
}

/// The name that an operator knows the user by.
pub(crate) fn name_of(user: &UserRow) -> &str {
    user.email.as_deref().or(user.login.as_deref()).unwrap_or(&user.okta_user_id)
}

/// Prints why the command cannot pick a user.
///
/// # Errors
/// If standard output cannot be written.
pub(crate) fn report_no_match(who: &str, matched: &UserMatch, now: Timestamp) -> Result<Exit, Error> {
    match matched {
        UserMatch::Ambiguous(users) => screen::out(&ambiguous(who, users, now)).map_err(Error::Output)?,
        UserMatch::None | UserMatch::One(_) => {
            screen::remark(&format!("{}: {}", screen::paint(screen::BAD, "error"), no_match(who)));
        }
    }
    Ok(Exit::Failed)
}

/// The message for a search without a match.
pub(crate) fn no_match(who: &str) -> String {
    format!("no user in the state has the Okta id, login or address {}", escape(who))
}

/// The matching users, and how to pick one.
pub(crate) fn ambiguous(who: &str, users: &[UserRow], now: Timestamp) -> String {
    let mut text = screen::table(
        ["OKTA ID", "E-MAIL", "LOGIN", "OKTA", "READ", "OUTCOME"],
        users.iter().map(|user| {
            let shown = |value: &Option<String>| value.clone().unwrap_or_else(|| "-".to_owned());
            [
                user.okta_user_id.clone(),
                shown(&user.email),
                shown(&user.login),
                shown(&user.status),
                screen::relative_text(user.status_at.as_deref(), now),
                user.outcome.map_or("-", OutcomeKind::as_str).replace('_', " "),
            ]
        }),
    );
    text.push_str(&screen::paragraph(
        "",
        &format!("{who} matches {} users; name one by its Okta id", users.len()),
        screen::terminal_width(),
    ));
    text
}
