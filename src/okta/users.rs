//! Users: one by id, which is always up to date, or many by search, which lags by about a second.

use reqwest::StatusCode;
use serde::Deserialize;
use serde_json::value::RawValue;

use super::endpoints::{USER, USERS};
use super::{Answer, Failure, Okta};
use crate::domain::{Address, OktaUser, OktaUserId, Status, Timestamp, timestamp_text};
use crate::http::{lenient, link};

/// The most users a page (Okta docs: List all users, with `search`).
const PAGE: &str = "200";
/// How many addresses one request asks for. Okta refuses overlong searches without saying how long is too long.
const ADDRESSES_A_REQUEST: usize = 20;
/// Nobody shares an address with thousands: beyond this the answer is wrong.
const HOLDER_PAGES_MAX: usize = 10;
/// The longest cursor followed.
const CURSOR_BYTES_MAX: usize = 4 << 10;

/// Which users to list.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum UserQuery {
    /// Those in one of these statuses, perhaps only those who came into it after a moment.
    Status {
        /// Statuses as Okta spells them; `DELETED` is our word and matches nobody.
        statuses: Vec<Status>,
        /// `statusChanged gt`.
        changed_since: Option<Timestamp>,
    },
    /// Those with these ids, at most [`UserQuery::IDS_MAX`].
    Ids(Vec<OktaUserId>),
}

impl UserQuery {
    /// How many ids one request can ask for.
    pub const IDS_MAX: usize = 50;

    /// The search expression, or `None` if nobody can match.
    fn search(&self) -> Option<String> {
        match self {
            Self::Status { statuses, changed_since } => {
                let statuses = statuses
                    .iter()
                    .filter(|status| **status != Status::Deleted)
                    .map(|status| equals("status", status.as_str()));
                let search = any(statuses)?;
                Some(match changed_since {
                    Some(since) => {
                        format!("({search}) and statusChanged gt {}", quoted(&timestamp_text(*since)))
                    }
                    None => search,
                })
            }
            Self::Ids(ids) => any(ids.iter().map(|id| equals("id", id.as_str()))),
        }
    }
}

/// A page of a listing.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct UserPage {
    /// Those that could be read.
    pub users: Vec<OktaUser>,
    /// How many could not.
    pub unreadable: usize,
    /// The cursor of the next page.
    pub next: Option<String>,
}

#[derive(Deserialize)]
struct Wire {
    #[serde(default, deserialize_with = "lenient::text")]
    id: Option<String>,
    #[serde(default, deserialize_with = "lenient::text")]
    status: Option<String>,
    #[serde(default, rename = "transitioningToStatus", deserialize_with = "lenient::text")]
    transitioning_to_status: Option<String>,
    #[serde(default, deserialize_with = "lenient::shape")]
    profile: Profile,
}

#[derive(Default, Deserialize)]
#[serde(default)]
struct Profile {
    #[serde(deserialize_with = "lenient::text")]
    login: Option<String>,
    #[serde(deserialize_with = "lenient::text")]
    email: Option<String>,
}

/// Needs an id and a status; everything else may be missing.
fn user(json: &str) -> Result<OktaUser, &'static str> {
    let wire: Wire = serde_json::from_str(json).map_err(|_| "this is no user")?;
    let id = wire.id.as_deref().and_then(OktaUserId::parse).ok_or("a user without a valid id")?;
    let target = wire.transitioning_to_status.filter(|status| !status.is_empty());
    let transitional = target.is_some();
    let status = target.or(wire.status).filter(|status| !status.is_empty()).ok_or("a user without a status")?;
    Ok(OktaUser {
        id,
        login: wire.profile.login.unwrap_or_default(),
        email: wire.profile.email.as_deref().and_then(Address::parse),
        status: Status::parse(&status),
        transitional,
    })
}

impl Okta {
    /// The user with this id, as they are now. `None` if Okta says that there is no such user (404 `E0000007`), which a
    /// role that does not show them looks like as well.
    ///
    /// # Errors
    /// Classified, any other 404 as [`crate::http::Kind::NotFound`].
    pub async fn user(&self, id: &OktaUserId) -> Result<Option<OktaUser>, Failure> {
        // An id holds nothing that an address would have to escape: see `OktaUserId::parse`.
        let url = self.address(&format!("/api/v1/users/{id}"));
        let answer = self.get(USER, url).await?;
        if answer.status == StatusCode::NOT_FOUND {
            let failure = answer.failure(self.clock.as_ref());
            return if failure.code.as_deref() == Some("E0000007") { Ok(None) } else { Err(failure) };
        }
        let answer = answer.success(self.clock.as_ref())?;
        let found = user(&text(&answer)).map_err(|why| answer.malformed(why))?;
        // Okta also takes a login here: another user's login could be spelled like this id.
        if found.id != *id {
            return Err(answer.malformed(format!("asked for user {id}, got {}", found.id)));
        }
        Ok(Some(found))
    }

    /// Everybody who has one of `addresses` as e-mail or login, in any case: a request for each 20 addresses and each
    /// 200 users.
    ///
    /// # Errors
    /// Classified; [`crate::http::Kind::Malformed`] if one of them cannot be read, since that one could matter.
    pub async fn holders(&self, addresses: &[Address]) -> Result<Vec<OktaUser>, Failure> {
        let mut holders: Vec<OktaUser> = Vec::new();
        for batch in addresses.chunks(ADDRESSES_A_REQUEST) {
            let terms = batch.iter().flat_map(|address| {
                [equals("profile.email", address.as_str()), equals("profile.login", address.as_str())]
            });
            let Some(search) = any(terms) else { continue };
            let mut cursor = None;
            for _ in 0..HOLDER_PAGES_MAX {
                let page = self.search(&search, cursor.as_deref(), PAGE).await?;
                if page.unreadable > 0 {
                    return Err(USERS.malformed("a user who holds the address cannot be read"));
                }
                for user in page.users {
                    if holders.iter().all(|known| known.id != user.id) {
                        holders.push(user);
                    }
                }
                cursor = page.next;
                if cursor.is_none() {
                    break;
                }
            }
            if cursor.is_some() {
                return Err(USERS.malformed("too many users hold one address"));
            }
        }
        Ok(holders)
    }

    /// One page of a listing; `cursor` is the [`UserPage::next`] of the page before.
    ///
    /// # Errors
    /// Classified; [`crate::http::Kind::Rejected`] for more than [`UserQuery::IDS_MAX`] ids.
    pub async fn list(&self, query: &UserQuery, cursor: Option<&str>) -> Result<UserPage, Failure> {
        if let UserQuery::Ids(ids) = query
            && ids.len() > UserQuery::IDS_MAX
        {
            let message = format!("at most {} ids a request", UserQuery::IDS_MAX);
            return Err(USERS.rejected(message));
        }
        match query.search() {
            Some(search) => self.search(&search, cursor, PAGE).await,
            None => Ok(UserPage { users: Vec::new(), unreadable: 0, next: None }),
        }
    }

    /// Somebody who is active, if our role shows us anybody: to find out whether it does.
    ///
    /// # Errors
    /// Classified.
    pub async fn anybody(&self) -> Result<Option<OktaUser>, Failure> {
        let page = self.search(&equals("status", Status::Active.as_str()), None, "1").await?;
        Ok(page.users.into_iter().next())
    }

    async fn search(&self, search: &str, cursor: Option<&str>, limit: &str) -> Result<UserPage, Failure> {
        let mut url = self.address("/api/v1/users");
        url.query_pairs_mut().append_pair("search", search).append_pair("limit", limit);
        if let Some(cursor) = cursor {
            url.query_pairs_mut().append_pair("after", cursor);
        }
        let answer = self.get(USERS, url.clone()).await?;
        let answer = answer.success(self.clock.as_ref())?;
        let body = text(&answer);
        let raw: Vec<&RawValue> =
            serde_json::from_str(&body).map_err(|_| answer.malformed("a page of users is not a JSON list"))?;
        let count = raw.len();
        let users: Vec<OktaUser> = raw.into_iter().filter_map(|raw| user(raw.get()).ok()).collect();
        // Only the cursor is taken from the link: the address stays ours.
        let next = match link::target(&answer.headers, "next") {
            None => None,
            Some(target) => Some(
                url.join(target)
                    .ok()
                    .filter(|next| next.path() == "/api/v1/users")
                    .and_then(|next| {
                        next.query_pairs().find(|(name, _)| name == "after").map(|(_, after)| after.into_owned())
                    })
                    .filter(|after| {
                        !after.is_empty() && after.len() <= CURSOR_BYTES_MAX && cursor != Some(after.as_str())
                    })
                    .ok_or_else(|| answer.malformed("refused next link: it is no further page of users"))?,
            ),
        };
        Ok(UserPage { unreadable: count - users.len(), users, next })
    }
}

fn text(answer: &Answer) -> std::borrow::Cow<'_, str> {
    String::from_utf8_lossy(&answer.body)
}

fn any(terms: impl Iterator<Item = String>) -> Option<String> {
    let terms: Vec<String> = terms.collect();
    (!terms.is_empty()).then(|| terms.join(" or "))
}

pub(super) fn equals(property: &str, value: &str) -> String {
    format!("{property} eq {}", quoted(value))
}

/// A text in a search: a JSON string (RFC 7644 §3.4.2.2), so that nobody's address becomes a part of the expression.
fn quoted(value: &str) -> String {
    serde_json::Value::from(value).to_string()
}
