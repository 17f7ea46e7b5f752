//! The domain types, and the rules as pure functions: no network, no database, no file.
//!
//! All of it can be read and tested without knowing that Okta and Auth0 are called over HTTP.

pub mod account;
pub mod account_event;
pub mod address;
pub mod backoff;
pub mod decide;
pub mod escape;
pub mod event;
pub mod guard;
pub mod mark;
pub mod outcome;
pub mod policy;
pub mod user;

pub use account::{Account, AccountId, MarkedAccount};
pub use account_event::{AccountEvent, Change, Concerned, WatchMode};
pub use address::Address;
pub use escape::escape;
pub use event::{Event, EventSeen, Signal};
pub use guard::DenialsMax;
pub use mark::{Mark, Patch};
pub use okta_auth0_sync_clock as clock;
pub use okta_auth0_sync_clock::{Clock, ManualClock, SteadyClock, SystemClock, Timestamp, timestamp_text};
pub use outcome::{Cause, DecisionOutcome, Held, Lane, Outcome, OutcomeKind, Skipped, Wake};
pub use policy::{MatchBy, Policy, Rules, Verdict};
pub use user::{KnownUser, OktaUser, OktaUserId, Status, UserRead};
