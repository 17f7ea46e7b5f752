//! `GET /api/v1/users`: the plain list, `q`, `filter` and `search`, in pages.

use std::sync::Arc;
use std::time::Duration;

use crate::expression::{Expression, Operator};
use crate::message::Inbound;

use super::directory::{CaseSensitive, Directory, User};
use super::problem::Problem;

/// The most users of a page.
const PAGE_MAX: usize = 200;
/// The default page size with `q`.
const PAGE_DEFAULT_Q: usize = 10;

/// The selection of a list request.
#[derive(Debug)]
enum Selection {
    /// All users except deprovisioned ones.
    Everybody,
    /// Users whose names or e-mail have this prefix, except deprovisioned ones.
    Beginning(String),
    /// Case-sensitive. Includes deprovisioned users.
    Filter(Expression),
    /// Profile values ignore case. Includes deprovisioned users.
    Search(Expression),
}

impl Selection {
    fn wants(&self, user: &User) -> bool {
        let deprovisioned = &*user.status == "DEPROVISIONED";
        match self {
            Self::Everybody => !deprovisioned,
            Self::Beginning(text) => {
                let begins = |value: &Option<Box<str>>| {
                    value.as_ref().is_some_and(|value| value.to_lowercase().starts_with(text.as_str()))
                };
                !deprovisioned && [&user.first_name, &user.last_name, &user.email].into_iter().any(begins)
            }
            Self::Filter(expression) => expression.holds(&CaseSensitive(user)),
            Self::Search(expression) => expression.holds(user),
        }
    }

    fn expression(&self) -> Option<&Expression> {
        match self {
            Self::Filter(expression) | Self::Search(expression) => Some(expression),
            _ => None,
        }
    }
}

/// The attributes that `filter` knows, "list users with a filter" of Okta's API description. Only `lastUpdated` can be
/// compared by another operator than `eq`.
const FILTERED: [&str; 7] =
    ["status", "lastUpdated", "id", "profile.login", "profile.email", "profile.firstName", "profile.lastName"];

/// The attributes that `search` knows in addition to `profile.…`.
const SEARCHED: [&str; 6] = ["id", "status", "created", "activated", "statusChanged", "lastUpdated"];

/// A page of users, and the cursor after it if there are more.
pub(super) struct Page {
    pub(super) users: Vec<Arc<User>>,
    pub(super) after: Option<String>,
}

/// Handles a list request. `newest_first` reverses the list; real orgs promise no order.
pub(super) fn page(
    directory: &Directory,
    request: &Inbound,
    newest_first: bool,
    now: Duration,
) -> Result<Page, Problem> {
    let selection = selection(request)?;
    let default = if matches!(selection, Selection::Beginning(_)) { PAGE_DEFAULT_Q } else { PAGE_MAX };
    let limit = match request.param("limit") {
        None => default,
        Some(text) => match text.parse::<usize>() {
            Ok(limit) if limit > 0 => limit.min(PAGE_MAX),
            _ => return Err(Problem::validation("limit", "limit: must be a positive number")),
        },
    };
    let after = match request.param("after") {
        None => None,
        Some(text) => {
            let place = text.strip_prefix("200u").and_then(|place| place.parse::<usize>().ok());
            Some(place.ok_or_else(|| Problem::validation("after", "after: invalid cursor"))?)
        }
    };
    let from = if newest_first { 0 } else { after.map_or(0, |last| last + 1) };
    let found =
        directory.indexed(selection.expression(), from, now).filter(|(_, user)| !user.hidden && selection.wants(user));
    // One more than the page size shows whether there is another page.
    let mut found: Vec<(usize, &Arc<User>)> = if newest_first {
        let mut all: Vec<_> = found.filter(|(place, _)| after.is_none_or(|last| *place < last)).collect();
        all.reverse();
        all.truncate(limit + 1);
        all
    } else {
        found.take(limit + 1).collect()
    };
    let more = found.len() > limit;
    found.truncate(limit);
    let after = found.last().filter(|_| more).map(|(place, _)| format!("200u{place:08}"));
    Ok(Page { users: found.into_iter().map(|(_, user)| user.clone()).collect(), after })
}

fn selection(request: &Inbound) -> Result<Selection, Problem> {
    if let Some(search) = request.param("search") {
        let expression = Expression::parse(&search).map_err(|_| Problem::bad_search())?;
        let known = |attribute: &str| SEARCHED.contains(&attribute) || attribute.starts_with("profile.");
        if !expression.mentions().iter().all(|(attribute, _)| known(attribute)) {
            return Err(Problem::bad_search());
        }
        return Ok(Selection::Search(expression));
    }
    if let Some(filter) = request.param("filter") {
        let refused = || Problem::bad_parameter(format!("Invalid filter '{filter}': An error occurred while parsing."));
        let expression = Expression::parse(&filter).map_err(|_| refused())?;
        let known = |(attribute, operator): &(&str, Option<Operator>)| {
            FILTERED.contains(attribute) && (*operator == Some(Operator::Equal) || *attribute == "lastUpdated")
        };
        if !expression.mentions().iter().all(known) {
            return Err(refused());
        }
        return Ok(Selection::Filter(expression));
    }
    Ok(match request.param("q").filter(|text| !text.is_empty()) {
        Some(text) => Selection::Beginning(text.to_lowercase()),
        None => Selection::Everybody,
    })
}
