//! UserMatch a command is about: from what was typed to one person that the state knows.

use super::{Error, Exit, screen};
use crate::domain::{OktaUserId, OutcomeKind, Timestamp, escape};
use crate::store::{Store, UserRow};

/// Who may be meant.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum UserMatch {
    /// Nobody that the state knows.
    None,
    /// This one.
    One(Box<UserRow>),
    /// One of these: an id has to be named.
    Ambiguous(Vec<UserRow>),
}

impl UserMatch {
    /// Looks for an Okta id, a login, an address ever read, or an Auth0 id. An Okta id names one person, even if it is
    /// somebody else's login.
    pub(crate) async fn find(store: &Store, who: &str) -> Result<Self, Error> {
        let mut people = store.find_users(who).await?;
        if let Some(exact) = people.iter().position(|person| person.okta_user_id == who.trim()) {
            return Ok(Self::One(Box::new(people.swap_remove(exact))));
        }
        Ok(match people.len() {
            0 => Self::None,
            1 => Self::One(Box::new(people.swap_remove(0))),
            _ => Self::Ambiguous(people),
        })
    }
}

/// The id of a person in the state.
///
/// # Errors
/// When it is none: the state was edited.
pub(crate) fn id_of(person: &UserRow) -> Result<OktaUserId, Error> {
    OktaUserId::parse(&person.okta_user_id)
        .ok_or_else(|| Error::Setup(format!("the state holds {:?}, which is no Okta id", person.okta_user_id)))
}

/// By what a person knows a person.
pub(crate) fn name_of(person: &UserRow) -> &str {
    person.email.as_deref().or(person.login.as_deref()).unwrap_or(&person.okta_user_id)
}

/// Says why a command cannot tell whom it is about.
///
/// # Errors
/// When standard output does not take it.
pub(crate) fn report_no_match(who: &str, matched: &UserMatch, now: Timestamp) -> Result<Exit, Error> {
    match matched {
        UserMatch::Ambiguous(people) => screen::out(&ambiguous(who, people, now)).map_err(Error::Output)?,
        UserMatch::None | UserMatch::One(_) => {
            screen::remark(&format!("{}: {}", screen::paint(screen::BAD, "error"), no_match(who)));
        }
    }
    Ok(Exit::Failed)
}

/// What is said when nobody is meant.
pub(crate) fn no_match(who: &str) -> String {
    format!("nobody with the Okta id, login or address {} is known here", escape(who))
}

/// The people that may be meant, and what to do about it.
pub(crate) fn ambiguous(who: &str, people: &[UserRow], now: Timestamp) -> String {
    let mut text = screen::table(
        ["OKTA ID", "E-MAIL", "LOGIN", "OKTA", "READ", "OUTCOME"],
        people.iter().map(|person| {
            let shown = |value: &Option<String>| value.clone().unwrap_or_else(|| "-".to_owned());
            [
                person.okta_user_id.clone(),
                shown(&person.email),
                shown(&person.login),
                shown(&person.status),
                screen::relative_text(person.status_at.as_deref(), now),
                person.outcome.map_or("-", OutcomeKind::as_str).replace('_', " "),
            ]
        }),
    );
    text.push_str(&screen::paragraph(
        "",
        &format!("{who} may be any of these {}: name one by the Okta id", people.len()),
        screen::terminal_width(),
    ));
    text
}
