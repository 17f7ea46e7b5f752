//! Finds accounts: by id and by e-mail, which are always up to date, and by search, which lags (Auth0 docs: User
//! Search).

use reqwest::{Method, StatusCode};
use serde::Deserialize;
use serde_json::value::RawValue;

use super::endpoints::{ACCOUNT, BY_EMAIL, SEARCH};
use super::record::AccountRecord;
use super::{Answer, Auth0, Failure};
use crate::domain::account::Identifier;
use crate::domain::address::spellings;
use crate::domain::mark::MetadataKeys;
use crate::domain::{AccountId, OktaUserId};

/// The largest page size.
const PER_PAGE: &str = "100";

/// Which part of an account to request. Users and applications can fill the metadata, so there is a smaller request for
/// each one that may be too large. Auth0 selects root attributes only, and refuses an unknown name with 400.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Fields {
    /// Id, address and creation time.
    Id,
    /// Id, address and identities.
    Identities,
    /// Everything that a decision needs except the mark.
    Account,
    /// Also `app_metadata`, which holds the mark.
    Mark,
    /// Also `user_metadata`, which holds the mirror.
    All,
}

impl Fields {
    /// The requests for one account, each smaller than the one before.
    pub const SMALLER: [Self; 3] = [Self::All, Self::Mark, Self::Account];

    const fn names(self) -> &'static str {
        match self {
            Self::Id => "user_id,email,created_at",
            Self::Identities => "user_id,email,identities",
            Self::Account => "user_id,email,email_verified,identities,blocked",
            Self::Mark => "user_id,email,created_at,email_verified,identities,blocked,app_metadata",
            Self::All => "user_id,email,email_verified,identities,blocked,app_metadata,user_metadata",
        }
    }
}

/// A search for accounts. Auth0 returns only the first 1,000 hits.
#[derive(Clone, Debug)]
pub enum AccountQuery<'a> {
    /// Accounts with an identity that has one of these addresses or Okta ids.
    Identities {
        /// The identifiers to search for.
        identifiers: &'a [Identifier],
        /// Connections whose names may prefix an Okta id.
        connections: &'a [&'a str],
    },
    /// Accounts into which this one was linked.
    Linked(&'a AccountId),
    /// Accounts that our mark denies, under the configured keys.
    Marked {
        /// Only accounts that were created at this time or later.
        since: Option<&'a str>,
    },
    /// Accounts with a mark in force under a former metadata key.
    MarkedUnderFormerKeys,
    /// Accounts that the original flow's flag denies, and no mark under a configured key does. Our marks under other keys are
    /// among them, if they were written with the mirror: Auth0 has no search over all keys.
    FlaggedOnly {
        /// Only accounts that were created at this time or later.
        since: Option<&'a str>,
    },
    /// Accounts with our mark for this user, on or off.
    MarkedFor(&'a OktaUserId),
}

impl AccountQuery<'_> {
    /// The query in Auth0's subset of Lucene's syntax. `None` if there is nothing to search for.
    fn text(&self, keys: &MetadataKeys) -> Option<String> {
        let marked = |field: &str, value: &str| {
            let terms: Vec<String> =
                keys.all().map(|key| format!("app_metadata.{key}.{field}:{}", quoted(value))).collect();
            if terms.len() == 1 { terms.concat() } else { format!("({})", terms.join(" OR ")) }
        };
        let created = |query: String, since: &Option<&str>| match since {
            Some(since) => format!("{query} AND created_at:[{since} TO *]"),
            None => query,
        };
        match self {
            Self::Identities { identifiers: [], .. } => None,
            Self::Identities { identifiers, connections } => {
                let terms: Vec<String> =
                    identifiers.iter().flat_map(|identifier| terms(identifier, connections)).collect();
                Some(terms.join(" OR "))
            }
            Self::Linked(account) => {
                let (_, own) = account.as_str().split_once('|')?;
                Some(format!("identities.user_id:{}", quoted(own)))
            }
            Self::Marked { since } => Some(created(marked("deactivated", "true"), since)),
            Self::MarkedUnderFormerKeys => {
                let terms: Vec<String> =
                    keys.former.iter().map(|key| format!("app_metadata.{key}.deactivated:\"true\"")).collect();
                (!terms.is_empty()).then(|| terms.join(" OR "))
            }
            Self::FlaggedOnly { since } => {
                let flagged = "user_metadata.okta.deactivated:\"true\"";
                Some(created(format!("{flagged} AND NOT {}", marked("deactivated", "true")), since))
            }
            Self::MarkedFor(user) => Some(marked("okta_user_id", user.as_str())),
        }
    }
}

/// A page of hits.
#[derive(Clone, Debug)]
pub struct SearchPage {
    /// The accounts as the index has them: read an account by id before writing to it.
    pub accounts: Vec<AccountRecord>,
    /// The number of hits on all pages.
    pub total: u64,
}

#[derive(Deserialize)]
struct Hits<'a> {
    #[serde(borrow)]
    users: Vec<&'a RawValue>,
    total: u64,
}

impl Auth0 {
    /// Every account with exactly this e-mail, including its case: only Auth0's own databases convert addresses to
    /// lower case.
    ///
    /// # Errors
    /// Classified; [`crate::http::Kind::Malformed`] names the account that cannot be read.
    pub async fn accounts_by_email(&self, email: &str, fields: Fields) -> Result<Vec<AccountRecord>, Failure> {
        let mut url = self.address("/api/v2/users-by-email");
        url.query_pairs_mut()
            .append_pair("email", email)
            .append_pair("fields", fields.names())
            .append_pair("include_fields", "true");
        let answer = self.call(BY_EMAIL, Method::GET, url, None).await?;
        let answer = answer.success(self.clock.as_ref())?;
        let text = String::from_utf8_lossy(&answer.body);
        let raw: Vec<&RawValue> =
            serde_json::from_str(&text).map_err(|_| answer.malformed("the body is not a list"))?;
        raw.into_iter().map(|raw| self.record(&answer, raw, fields)).collect()
    }

    /// The account with this id. `None` if Auth0 answers 404.
    ///
    /// # Errors
    /// Classified.
    pub async fn account(&self, id: &AccountId, fields: Fields) -> Result<Option<AccountRecord>, Failure> {
        let mut url = self.account_address(ACCOUNT, id, "")?;
        url.query_pairs_mut().append_pair("fields", fields.names()).append_pair("include_fields", "true");
        let answer = self.call(ACCOUNT, Method::GET, url, None).await?;
        if answer.status == StatusCode::NOT_FOUND {
            return Ok(None);
        }
        let answer = answer.success(self.clock.as_ref())?;
        self.record_of(&answer, id, fields).map(Some)
    }

    /// One page (from 0) of the accounts that match: at most 100, eventually consistent.
    ///
    /// # Errors
    /// Classified; [`crate::http::Kind::Malformed`] names the account that cannot be read.
    pub async fn search(&self, query: &AccountQuery<'_>, page: u32, fields: Fields) -> Result<SearchPage, Failure> {
        let Some(text) = query.text(&self.keys) else {
            return Ok(SearchPage { accounts: Vec::new(), total: 0 });
        };
        let mut url = self.address("/api/v2/users");
        url.query_pairs_mut()
            .append_pair("q", &text)
            .append_pair("search_engine", "v3")
            .append_pair("sort", "created_at:1")
            .append_pair("page", &page.to_string())
            .append_pair("per_page", PER_PAGE)
            .append_pair("include_totals", "true")
            .append_pair("fields", fields.names())
            .append_pair("include_fields", "true");
        let answer = self.call(SEARCH, Method::GET, url, None).await?;
        let answer = answer.success(self.clock.as_ref())?;
        let text = String::from_utf8_lossy(&answer.body);
        let hits: Hits<'_> =
            serde_json::from_str(&text).map_err(|_| answer.malformed("the body is not a search page with totals"))?;
        let accounts = hits.users.into_iter().map(|raw| self.record(&answer, raw, fields)).collect::<Result<_, _>>()?;
        Ok(SearchPage { accounts, total: hits.total })
    }

    fn record(&self, answer: &Answer, raw: &RawValue, fields: Fields) -> Result<AccountRecord, Failure> {
        AccountRecord::read(raw, &self.keys, fields).map_err(|why| answer.malformed(why))
    }

    /// Parses the account of a response, and checks that it is the requested one.
    pub(super) fn record_of(&self, answer: &Answer, id: &AccountId, fields: Fields) -> Result<AccountRecord, Failure> {
        let text = String::from_utf8_lossy(&answer.body);
        let raw: &RawValue = serde_json::from_str(&text).map_err(|_| answer.malformed("the body is not JSON"))?;
        let record = self.record(answer, raw, fields)?;
        if record.account.id == *id {
            Ok(record)
        } else {
            Err(answer.malformed(format!("requested account {id}, got {}", record.account.id)))
        }
    }
}

/// The terms that find an identifier on any identity. `email` is the primary identity's address, and ignores case.
/// Auth0 does not document how it compares the address of a linked identity, so the query has both spellings.
fn terms(identifier: &Identifier, connections: &[&str]) -> Vec<String> {
    match identifier {
        Identifier::Address(address) => {
            let primary = format!("email:{}", quoted(address.as_str()));
            let linked = spellings(std::slice::from_ref(address));
            let linked = linked.iter().map(|spelling| format!("identities.profileData.email:{}", quoted(spelling)));
            std::iter::once(primary).chain(linked).collect()
        }
        Identifier::OktaId(user) => {
            let user = user.as_str();
            let prefixed = connections.iter().map(|connection| format!("{connection}|{user}"));
            let ids = std::iter::once(user.to_owned()).chain(prefixed);
            ids.map(|id| format!("identities.user_id:{}", quoted(&id))).collect()
        }
    }
}

/// Quotes a phrase, so that an address cannot inject query syntax.
fn quoted(text: &str) -> String {
    format!("\"{}\"", text.replace('\\', "\\\\").replace('"', "\\\""))
}
