//! The state on disk: one SQLite file. The only module that uses sqlx.
//!
//! Every public operation is one transaction, named after its purpose: *record a page*, *begin a look*, *finish a look*.
//! Three rules:
//!
//! 1. **A page and its cursor are one transaction** ([`Store::record_page`]). If the cursor moved first, a crash
//!    would lose the page. If the events were stored first, two processes could move the cursor past each other. The
//!    cursor moves by compare-and-swap.
//! 2. **A reason to look is a rising number** (`due_seq`). A look claims the number it saw and settles up to it
//!    ([`Store::finish_look`]). A reason that arrives during the look has a higher number and stays open.
//! 3. **One writer.** Every write transaction is `BEGIN IMMEDIATE` on the single write connection: SQLite cannot upgrade a
//!    deferred transaction once another process has written, whatever the busy timeout. Readers have their own
//!    connections and never block the writer (WAL).

mod account_events;
mod alarms;
mod audit;
mod backup;
mod check;
mod compare;
mod connect;
mod copies;
mod directory;
mod enforcement;
mod error;
mod files;
mod forget;
mod guard;
mod health;
mod intake;
mod lock;
mod looks;
mod mark_keys;
mod migrate;
mod open;
mod purge;
mod reconciles;
mod requests;
mod runs;
mod tombstones;
mod types;
mod views;
mod write;

#[cfg(test)]
mod tests;

pub use account_events::{DueByAccount, StreamPage, StreamPosition, WatcherState, seen_hash};
pub use alarms::{Alarm, AlarmKind, AlarmRow, PendingNotification};
pub use audit::Verified;
pub use check::CheckedState;
pub use compare::Known;
pub use copies::{copies_of, remove_copy};
pub use directory::Directory;
pub use enforcement::Enforcement;
pub use error::{StoreError, name_state};
pub use guard::{GuardActor, GuardReport};
pub use health::{ActionState, Evaluation, ObligationFact};
pub use intake::{Checkpoint, Page, QuarantinedEvent, Recorded};
pub use lock::is_in_use;
pub use looks::{
    AccountChange, Admission, Decision, Denial, DueUser, Finished, GuardWindow, Intent, LookFinish, LookStart,
    NamedAccount,
};
pub use mark_keys::UnmovedMarks;
pub use open::{Access, Binding, Opened, Store};
pub use purge::MarkedByUs;
pub use reconciles::{ReconcileRun, Unchecked};
pub use requests::{Approval, HeldUser, Requested, Who};
pub use runs::{RemoteError, RunCounts, RunKind};
pub use views::{
    AccountRow, DecisionRow, EventRow, EventSelection, KeptDecisions, LeftOpen, Progress, QuarantinedRow, RemoteRow,
    StatusRow, UserRow,
};
pub use write::Write;
#[cfg(feature = "failpoints")]
pub(crate) use write::{COMPONENT, STEPS};

/// A row count as `u64`.
fn count(rows: usize) -> u64 {
    u64::try_from(rows).unwrap_or(u64::MAX)
}

/// A JSON array for `json_each`.
fn json_list<T: Into<serde_json::Value>>(values: impl IntoIterator<Item = T>) -> String {
    serde_json::Value::from(values.into_iter().map(Into::into).collect::<Vec<serde_json::Value>>()).to_string()
}
