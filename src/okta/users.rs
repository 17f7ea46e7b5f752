//! Reads users: one by id, which is always up to date, or many by search, which lags by about a second.

use reqwest::StatusCode;
use serde::Deserialize;
use serde_json::value::RawValue;

use super::endpoints::{USER, USERS};
use super::{Answer, Failure, Okta};
use crate::domain::{Address, OktaUser, OktaUserId, Status, Timestamp, timestamp_text};
use crate::http::{lenient, link};

/// The largest page size (Okta docs: List all users, with `search`).
pub const USERS_MAX: u16 = 200;
/// Addresses per search. Okta refuses long searches but does not document the limit.
const ADDRESSES_PER_REQUEST: usize = 20;
/// Thousands of users never share an address: with more pages than this, the response is wrong.
const HOLDER_PAGES_MAX: usize = 10;
/// Longer cursors are refused.
const CURSOR_BYTES_MAX: usize = 4 << 10;

/// Which users to list.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum UserQuery {
    /// Users in one of these statuses, optionally only those whose status changed after a given time.
    Status {
        /// The statuses. `DELETED` is not a status of Okta and matches no users.
        statuses: Vec<Status>,
        /// `statusChanged gt`.
        changed_since: Option<Timestamp>,
    },
    /// Users with these ids, at most [`UserQuery::IDS_MAX`].
    Ids(Vec<OktaUserId>),
}

impl UserQuery {
    /// The most ids per request.
    pub const IDS_MAX: usize = 50;

    /// The search expression; `None` if no user can match.
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

/// A page of users.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct UserPage {
    /// The users that could be parsed.
    pub users: Vec<OktaUser>,
    /// The number of users that could not.
    pub unreadable: usize,
    /// The cursor of the next page.
    pub next: Option<String>,
}

/// The users who hold an address.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct HolderList {
    /// The users found so far.
    pub users: Vec<OktaUser>,
    /// Whether there are more users than one search returns.
    pub more: bool,
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

/// Parses a user, which needs an id and a status; all else may be missing.
fn user(json: &str) -> Result<OktaUser, &'static str> {
    let wire: Wire = serde_json::from_str(json).map_err(|_| "not a user")?;
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
    /// Reads the current state of a user. `None` if Okta does not find the user (404 `E0000007`), which also happens if the
    /// credential's role does not cover the user.
    ///
    /// # Errors
    /// Classified; any other 404 is [`crate::http::Kind::NotFound`].
    pub async fn user(&self, id: &OktaUserId) -> Result<Option<OktaUser>, Failure> {
        // Ids need no escaping in a URL: see `OktaUserId::parse`.
        let url = self.url(&format!("/api/v1/users/{id}"));
        let answer = self.get(USER, url).await?;
        if answer.status == StatusCode::NOT_FOUND {
            let failure = answer.failure(self.clock.as_ref());
            return if failure.code.as_deref() == Some("E0000007") { Ok(None) } else { Err(failure) };
        }
        let answer = answer.success(self.clock.as_ref())?;
        let found = user(&text(&answer)).map_err(|why| answer.malformed(why))?;
        // Okta also accepts a login here, and the login of another user could equal this id.
        if found.id != *id {
            return Err(answer.malformed(format!("requested user {id}, got {}", found.id)));
        }
        Ok(Some(found))
    }

    /// The users with one of `addresses` as e-mail or login, ignoring case. Sends a request per 20 addresses and per 200
    /// users, and reads at most 2,000 users for 20 addresses.
    ///
    /// # Errors
    /// Classified; [`crate::http::Kind::Malformed`] if a user cannot be parsed, since that user could be a holder.
    pub async fn holders(&self, addresses: &[Address]) -> Result<HolderList, Failure> {
        let mut holders = HolderList::default();
        for batch in addresses.chunks(ADDRESSES_PER_REQUEST) {
            let terms = batch.iter().flat_map(|address| {
                [equals("profile.email", address.as_str()), equals("profile.login", address.as_str())]
            });
            let Some(search) = any(terms) else { continue };
            let mut cursor = None;
            for _ in 0..HOLDER_PAGES_MAX {
                let page = self.search(&search, cursor.as_deref(), USERS_MAX).await?;
                if page.unreadable > 0 {
                    return Err(USERS.malformed("cannot parse a user with this address"));
                }
                for user in page.users {
                    if holders.users.iter().all(|known| known.id != user.id) {
                        holders.users.push(user);
                    }
                }
                cursor = page.next;
                if cursor.is_none() {
                    break;
                }
            }
            holders.more |= cursor.is_some();
        }
        Ok(holders)
    }

    /// The failure to determine which of the many users with an address hold it now.
    pub fn too_many_holders(&self) -> Failure {
        USERS.malformed("too many users share one address, and no active one was found among the first")
    }

    /// Lists one page of at most `limit` users; `cursor` is the [`UserPage::next`] of the previous page.
    ///
    /// # Errors
    /// Classified; [`crate::http::Kind::Rejected`] for more than [`UserQuery::IDS_MAX`] ids.
    pub async fn list(&self, query: &UserQuery, cursor: Option<&str>, limit: u16) -> Result<UserPage, Failure> {
        if let UserQuery::Ids(ids) = query
            && ids.len() > UserQuery::IDS_MAX
        {
            let message = format!("at most {} ids per request", UserQuery::IDS_MAX);
            return Err(USERS.rejected(message));
        }
        match query.search() {
            Some(search) => self.search(&search, cursor, limit).await,
            None => Ok(UserPage { users: Vec::new(), unreadable: 0, next: None }),
        }
    }

    /// One active user, to check that the credential's role covers any users.
    ///
    /// # Errors
    /// Classified.
    pub async fn any_active_user(&self) -> Result<Option<OktaUser>, Failure> {
        let page = self.search(&equals("status", Status::Active.as_str()), None, 1).await?;
        Ok(page.users.into_iter().next())
    }

    /// Lists one page of at most `limit` of all users except deprovisioned ones, which Okta's plain listing leaves out.
    ///
    /// # Errors
    /// Classified.
    pub async fn directory_page(&self, cursor: Option<&str>, limit: u16) -> Result<UserPage, Failure> {
        self.page(None, cursor, limit).await
    }

    async fn search(&self, search: &str, cursor: Option<&str>, limit: u16) -> Result<UserPage, Failure> {
        self.page(Some(search), cursor, limit).await
    }

    async fn page(&self, search: Option<&str>, cursor: Option<&str>, limit: u16) -> Result<UserPage, Failure> {
        let mut url = self.url("/api/v1/users");
        if let Some(search) = search {
            url.query_pairs_mut().append_pair("search", search);
        }
        url.query_pairs_mut().append_pair("limit", &limit.to_string());
        if let Some(cursor) = cursor {
            url.query_pairs_mut().append_pair("after", cursor);
        }
        let answer = self.get(USERS, url.clone()).await?;
        let answer = answer.success(self.clock.as_ref())?;
        let body = text(&answer);
        let raw: Vec<&RawValue> =
            serde_json::from_str(&body).map_err(|_| answer.malformed("a page of users is not a JSON array"))?;
        let count = raw.len();
        let users: Vec<OktaUser> = raw.into_iter().filter_map(|raw| user(raw.get()).ok()).collect();
        // Only the cursor of the link is used, never its host or path.
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
                    .ok_or_else(|| answer.malformed("refused next link: it does not lead to another page of users"))?,
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

/// Quotes a value as a JSON string (RFC 7644 §3.4.2.2), so that an address cannot change the search expression.
fn quoted(value: &str) -> String {
    serde_json::Value::from(value).to_string()
}
