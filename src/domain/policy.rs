//! The policy: from a user's status in Okta to a verdict on their accounts in Auth0. Pure.

use std::collections::BTreeSet;

use super::account::Identifier;
use super::mark::MarkOptions;
use super::{Account, Address, OktaUser, OktaUserId, Signal, Status};

/// The target state of a user's accounts.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Verdict {
    /// The accounts are marked, so that Auth0 refuses their logins.
    Deny,
    /// No account carries a mark for them.
    Allow,
    /// Nothing is written, in either direction.
    Leave,
}

impl Verdict {
    /// The word used in the store and on screens.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Deny => "deny",
            Self::Allow => "allow",
            Self::Leave => "leave",
        }
    }
}

/// How an account is matched to a user.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct MatchBy {
    /// By the address of one of its identities.
    pub email: bool,
    /// By the Okta id in one of its identities.
    pub okta_id: bool,
}

impl Default for MatchBy {
    fn default() -> Self {
        Self { email: true, okta_id: true }
    }
}

/// Which users are denied, and which never are.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Policy {
    /// The statuses that deny: `DEPROVISIONED` and `DELETED` by default.
    pub deny_statuses: BTreeSet<Status>,
    /// Only users with an address in one of these domains (lower case) are denied. Empty: all users.
    pub email_domains: BTreeSet<String>,
    /// Address keys and Okta ids of users who are never denied.
    pub exempt: BTreeSet<String>,
    /// How an account is matched to a user.
    pub match_by: MatchBy,
}

impl Default for Policy {
    fn default() -> Self {
        Self {
            deny_statuses: [Status::Deprovisioned, Status::Deleted].into(),
            email_domains: BTreeSet::new(),
            exempt: BTreeSet::new(),
            match_by: MatchBy::default(),
        }
    }
}

impl Policy {
    /// The verdict on a status.
    ///
    /// | status | verdict |
    /// |---|---|
    /// | one of `deny_statuses` | `Deny` |
    /// | `ACTIVE`, `PROVISIONED`, `RECOVERY`, `PASSWORD_EXPIRED`, `LOCKED_OUT`, `ACTIVATING` | `Allow` |
    /// | `STAGED`; `SUSPENDED`, `DEPROVISIONED` and `DELETED` unless configured; every unknown status | `Leave` |
    pub fn verdict(&self, status: &Status) -> Verdict {
        if self.deny_statuses.contains(status) {
            return Verdict::Deny;
        }
        match status {
            Status::Active
            | Status::Provisioned
            | Status::Recovery
            | Status::PasswordExpired
            | Status::LockedOut
            | Status::Activating => Verdict::Allow,
            Status::Staged | Status::Suspended | Status::Deprovisioned | Status::Deleted | Status::Unknown(_) => {
                Verdict::Leave
            }
        }
    }

    /// Whether an event with this signal contradicts `verdict`. If so, Okta's response may be older than the log.
    pub fn contradicts(&self, signal: Signal, verdict: Verdict) -> bool {
        match signal {
            Signal::Left => verdict == Verdict::Allow,
            Signal::Suspended => self.deny_statuses.contains(&Status::Suspended) && verdict == Verdict::Allow,
            Signal::Returned => verdict == Verdict::Deny,
            Signal::Changed | Signal::Updated | Signal::Irrelevant => false,
        }
    }

    /// Whether the user is never denied: by their Okta id, or an address that is theirs today.
    pub fn is_exempt(&self, id: &OktaUserId, addresses: &[Address]) -> bool {
        !self.exempt.is_empty()
            && (self.exempt.contains(id.as_str())
                || addresses.iter().any(|address| self.exempt.contains(&address.key())))
    }

    /// The addresses in one of the `email_domains`.
    pub fn in_scope<'a>(&self, addresses: &'a [Address]) -> Vec<&'a Address> {
        addresses
            .iter()
            .filter(|address| self.email_domains.is_empty() || self.email_domains.contains(&address.domain()))
            .collect()
    }

    /// The identifiers that match accounts to a user with these addresses. Empty if the user is out of scope. A user
    /// without any known address is in scope only if no domains are configured.
    pub fn identifiers(&self, id: &OktaUserId, addresses: &[Address]) -> Vec<Identifier> {
        let in_scope = self.in_scope(addresses);
        let is_in_scope = !in_scope.is_empty() || (addresses.is_empty() && self.email_domains.is_empty());
        // An exempt address is another user's by now: this user is not exempt. Its accounts are never denied.
        let is_match = |address: &&Address| self.match_by.email && !self.exempt.contains(&address.key());
        let by_address = in_scope.into_iter().filter(is_match).cloned().map(Identifier::Address);
        let by_id = (is_in_scope && self.match_by.okta_id).then(|| Identifier::OktaId(id.clone()));
        by_address.chain(by_id).collect()
    }

    /// Whether `other` holds `address` now and has the verdict `Allow`. If so, no former holder is denied by this address.
    pub fn is_shared_with(&self, address: &Address, other: &OktaUser) -> bool {
        self.verdict(&other.status) == Verdict::Allow && other.holds(address)
    }

    /// One line that identifies the policy. The store keeps it, so that a change is noticed and starts a reconcile. It is part
    /// of every decision, so it has only the number of exempt users and one digest of them.
    pub fn fingerprint(&self) -> String {
        let list = |items: Vec<&str>| items.join(",");
        let exempt = match self.exempt.len() {
            0 => "none".to_owned(),
            count => {
                let text = self.exempt.iter().map(String::as_str).collect::<Vec<_>>().join("\n");
                let digest = aws_lc_rs::digest::digest(&aws_lc_rs::digest::SHA256, text.as_bytes());
                let hex: String = digest.as_ref().iter().take(12).map(|byte| format!("{byte:02x}")).collect();
                format!("{count}:{hex}")
            }
        };
        format!(
            "deny={} domains={} exempt={exempt}",
            list(self.deny_statuses.iter().map(Status::as_str).collect()),
            list(self.email_domains.iter().map(String::as_str).collect()),
        )
    }
}

/// The part of the configuration on which decisions depend.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Rules {
    /// Which users are denied.
    pub policy: Policy,
    /// The optional parts of a mark.
    pub mark: MarkOptions,
    /// Only accounts with an identity in one of these connections are denied. Empty: all.
    pub connections: Vec<String>,
    /// Only accounts whose address Auth0 has verified are denied.
    pub require_verified_email: bool,
    /// The address of an account with an identity in one of these connections counts as verified.
    pub trusted_connections: Vec<String>,
    /// End sessions and refresh tokens of denied accounts.
    pub end_sessions: bool,
}

/// Why the configuration leaves an account alone.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum OutOfScope {
    /// None of its identities is in a configured connection.
    Connection,
    /// Auth0 has not verified its address.
    Unverified,
}

impl OutOfScope {
    /// The reason that decisions show.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Connection => "connection_out_of_scope",
            Self::Unverified => "email_not_verified",
        }
    }
}

impl Rules {
    /// One line that identifies everything that determines which accounts are denied and what a mark contains. A change
    /// starts a full reconcile.
    pub fn fingerprint(&self) -> String {
        let Self { policy, mark, connections, require_verified_email, trusted_connections, end_sessions: _ } = self;
        let list = |names: &[String]| {
            let mut names: Vec<&str> = names.iter().map(String::as_str).collect();
            names.sort_unstable();
            names.join(",")
        };
        format!(
            "{} match={} connections={} verified={require_verified_email} trusted={} mirror={} block={}",
            policy.fingerprint(),
            [(policy.match_by.email, "email"), (policy.match_by.okta_id, "okta_id")]
                .into_iter()
                .filter(|(on, _)| *on)
                .map(|(_, name)| name)
                .collect::<Vec<_>>()
                .join(","),
            list(connections),
            list(trusted_connections),
            mark.mirror,
            mark.block,
        )
    }

    /// Whether this account may be denied, if it is not denied already.
    ///
    /// # Errors
    /// The reason why it is out of scope.
    pub fn accepts(&self, account: &Account, identifiers: &[Identifier]) -> Result<(), OutOfScope> {
        let has_one_of =
            |list: &[String]| account.connections().any(|connection| list.iter().any(|one| one == connection));
        if !self.connections.is_empty() && !has_one_of(&self.connections) {
            return Err(OutOfScope::Connection);
        }
        if self.require_verified_email && !self.is_verified(account, identifiers) {
            return Err(OutOfScope::Unverified);
        }
        Ok(())
    }

    /// Whether an identity that one of these identifies is verified. An Okta id needs no verification: Okta issued it.
    fn is_verified(&self, account: &Account, identifiers: &[Identifier]) -> bool {
        let is_trusted = |connection: &str| self.trusted_connections.iter().any(|trusted| trusted == connection);
        identifiers.iter().any(|identifier| match identifier {
            Identifier::OktaId(user) => account.identities.iter().any(|identity| identity.carries(user)),
            Identifier::Address(address) => {
                let is_at = |own: &Option<Address>| own.as_ref().is_some_and(|own| address.same(own.as_str()));
                let primary =
                    is_at(&account.email) && (account.email_verified || account.connections().any(is_trusted));
                primary
                    || account.identities.iter().any(|identity| {
                        is_at(&identity.email)
                            && (identity.email_verified || identity.connection.as_deref().is_some_and(is_trusted))
                    })
            }
        })
    }

    /// The configured connections. Where Auth0 stores an identity's id behind its connection's name, a search has to name it.
    pub fn named_connections(&self) -> Vec<&str> {
        let mut names: Vec<&str> =
            self.connections.iter().chain(&self.trusted_connections).map(String::as_str).collect();
        names.sort_unstable();
        names.dedup();
        names
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_table() {
        let policy = Policy::default();
        for (status, verdict) in [
            ("DEPROVISIONED", Verdict::Deny),
            ("DELETED", Verdict::Deny),
            ("ACTIVE", Verdict::Allow),
            ("PROVISIONED", Verdict::Allow),
            ("RECOVERY", Verdict::Allow),
            ("PASSWORD_EXPIRED", Verdict::Allow),
            ("LOCKED_OUT", Verdict::Allow),
            ("ACTIVATING", Verdict::Allow),
            ("STAGED", Verdict::Leave),
            ("SUSPENDED", Verdict::Leave),
            ("HIBERNATING", Verdict::Leave),
        ] {
            assert_eq!(policy.verdict(&Status::parse(status)), verdict, "{status}");
        }
    }

    #[test]
    fn only_configured_statuses_deny() {
        let policy = Policy { deny_statuses: [Status::Suspended].into(), ..Policy::default() };
        assert_eq!(policy.verdict(&Status::Suspended), Verdict::Deny);
        assert_eq!(policy.verdict(&Status::Deprovisioned), Verdict::Leave);
        assert_eq!(policy.verdict(&Status::Deleted), Verdict::Leave);
    }

    #[test]
    fn exempt_by_id_or_address_in_any_case() {
        let policy = Policy { exempt: ["00u1".to_owned(), "ann@example.com".to_owned()].into(), ..Policy::default() };
        let id = |text| OktaUserId::parse(text).unwrap();
        let ann = Address::parse("ANN@Example.com").unwrap();
        assert!(policy.is_exempt(&id("00u1"), &[]));
        assert!(policy.is_exempt(&id("00u2"), &[ann]));
        assert!(!policy.is_exempt(&id("00u2"), &[]));
    }

    #[test]
    fn fingerprints_differ_and_hide_addresses() {
        let policy = |exempt: &[&str]| Policy {
            exempt: exempt.iter().map(|&one| one.to_owned()).collect(),
            ..Policy::default()
        };
        let prints: BTreeSet<String> = [&[][..], &["ann@x.org"], &["bob@x.org"], &["ann@x.org", "bob@x.org"]]
            .into_iter()
            .map(|exempt| policy(exempt).fingerprint())
            .collect();
        assert_eq!(prints.len(), 4);
        assert!(prints.iter().all(|print| !print.contains('@')), "{prints:?}");
    }

    #[test]
    fn shared_only_with_allowed_current_holder() {
        let policy = Policy::default();
        let address = Address::parse("Team@example.com").unwrap();
        let holder = |email: &str, status| OktaUser {
            id: OktaUserId::parse("00u2").unwrap(),
            login: "bob".to_owned(),
            email: Address::parse(email),
            status,
            transitional: false,
        };
        assert!(policy.is_shared_with(&address, &holder("team@example.com", Status::Active)));
        assert!(!policy.is_shared_with(&address, &holder("bob@example.com", Status::Active)));
        assert!(!policy.is_shared_with(&address, &holder("team@example.com", Status::Deprovisioned)));
        assert!(!policy.is_shared_with(&address, &holder("team@example.com", Status::Suspended)));
    }

    #[test]
    fn only_opposites_contradict() {
        let policy = Policy::default();
        assert!(policy.contradicts(Signal::Left, Verdict::Allow));
        assert!(policy.contradicts(Signal::Returned, Verdict::Deny));
        assert!(!policy.contradicts(Signal::Left, Verdict::Leave));
        assert!(!policy.contradicts(Signal::Suspended, Verdict::Allow), "SUSPENDED is not configured to deny");
        let strict = Policy { deny_statuses: [Status::Suspended].into(), ..policy };
        assert!(strict.contradicts(Signal::Suspended, Verdict::Allow));
    }
}
