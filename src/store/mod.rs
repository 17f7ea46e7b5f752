//! The state on disk: one SQLite file. The only room that names sqlx.
//!
//! Its public operations are whole transactions, in the words of the program: *record a page*, *begin a look*, *finish a
//! look*. There is no half of one. Three rules hold them together:
//!
//! 1. **A page and its cursor are one transaction** ([`Store::record_page`]). Were the cursor moved first, a crash would
//!    lose the page; were the events stored first, a crash would only have them asked for again, but two processes could
//!    move the cursor past each other. So it is one, and the cursor moves by compare-and-swap.
//! 2. **A reason to look is a number that rises** (`due_seq`). A look claims the number it saw and settles up to it
//!    ([`Store::finish_look`]); a reason that arrived meanwhile has a higher number and stays.
//! 3. **One writer.** Every write transaction is `BEGIN IMMEDIATE` on the one write connection: a deferred one that reads
//!    first cannot be upgraded once another process has written, whatever the busy time-out. Readers have their own
//!    connections and never block it (WAL).

mod alarms;
mod audit;
mod backup;
mod compare;
mod connect;
mod enforcement;
mod error;
mod files;
mod forget;
mod intake;
mod looks;
mod migrate;
mod open;
mod purge;
mod reconciles;
mod reports;
mod requests;
mod runs;
mod types;
mod write;

#[cfg(test)]
mod tests;

pub use alarms::{Alarm, AlarmKind, AlarmRow, PendingNotification};
pub use audit::Verified;
pub use compare::Known;
pub use enforcement::Enforcement;
pub use error::{StoreError, name_state};
pub use files::is_in_use;
pub use intake::{Checkpoint, Page, QuarantinedEvent, Recorded};
pub use looks::{
    AccountChange, Admission, Decision, Denial, DueUser, Finished, GuardWindow, Intent, LookFinish, LookStart,
};
pub use open::{Access, Binding, Opened, Store};
pub use purge::MarkedByUs;
pub use reconciles::ReconcileRun;
pub use reports::{
    AccountRow, DecisionRow, EventRow, EventSelection, KeptDecisions, Progress, QuarantinedRow, RemoteRow, StatusRow,
    UserRow,
};
pub use requests::{Requested, Who};
pub use runs::{RemoteError, RunCounts, RunKind};
pub use write::Write;
#[cfg(feature = "failpoints")]
pub(crate) use write::{COMPONENT, STEPS};

/// A number of rows, as it is reported.
fn count(rows: usize) -> u64 {
    u64::try_from(rows).unwrap_or(u64::MAX)
}

/// A list for `json_each`.
fn json_list<T: Into<serde_json::Value>>(values: impl IntoIterator<Item = T>) -> String {
    serde_json::Value::from(values.into_iter().map(Into::into).collect::<Vec<serde_json::Value>>()).to_string()
}
