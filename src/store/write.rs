//! Write transactions. Each has a name, which is also the name of its failpoints.

use std::ops::{Deref, DerefMut};

use sqlx::sqlite::{SqliteArguments, SqliteConnection, SqliteQueryResult};
use sqlx::{Sqlite, Transaction};

use super::{Store, StoreError};
use crate::failpoint::{self, Phase};

/// The component in this module's failpoint names.
pub(crate) const COMPONENT: &str = "store";
/// Changes to the file outside a [`Write`] transaction, each with a failpoint before and after.
#[cfg(feature = "failpoints")]
pub(crate) const STEPS: [&str; 3] = [CREATE, MIGRATE, COMPACT];
/// Creating the file.
pub(super) const CREATE: &str = "create";
/// Migrating the schema.
pub(super) const MIGRATE: &str = "migrate";
/// Rewriting the file.
pub(super) const COMPACT: &str = "compact";

macro_rules! writes {
    ($($(#[$doc:meta])+ $write:ident = $name:literal,)+) => {
        /// Every transaction that writes.
        #[derive(Clone, Copy, Debug, PartialEq, Eq)]
        pub enum Write {
            $($(#[$doc])+ $write,)+
        }

        impl Write {
            /// Every variant.
            pub const ALL: &[Self] = &[$(Self::$write),+];

            /// The name of its failpoints.
            pub const fn as_str(self) -> &'static str {
                match self {
                    $(Self::$write => $name,)+
                }
            }
        }
    };
}

writes! {
    /// Binding the state at start, ending the runs of dead processes.
    Open = "open",
    /// [`Store::bind_org`].
    BindOrg = "bind_org",
    /// [`Store::record_page`].
    RecordPage = "record_page",
    /// [`Store::reanchor`].
    Reanchor = "reanchor",
    /// [`Store::record_account_events`].
    RecordAccountEvents = "record_account_events",
    /// [`Store::resume_by_time`].
    ResumeByTime = "resume_by_time",
    /// [`Store::note_watcher`].
    NoteWatcher = "note_watcher",
    /// [`Store::prepare_denial`].
    PrepareDenial = "prepare_denial",
    /// [`Store::intend_mark`].
    IntendMark = "intend_mark",
    /// [`Store::finish_look`].
    FinishLook = "finish_look",
    /// [`Store::adopt_account`].
    AdoptAccount = "adopt_account",
    /// [`Store::begin_reconcile`].
    BeginReconcile = "begin_sweep",
    /// [`Store::advance_reconcile`].
    AdvanceReconcile = "move_sweep",
    /// [`Store::finish_reconcile`].
    FinishReconcile = "finish_sweep",
    /// [`Store::queue_for_reconcile`].
    QueueForReconcile = "sweep_users",
    /// [`Store::begin_directory`].
    BeginDirectory = "begin_directory",
    /// [`Store::record_directory_page`].
    RecordDirectoryPage = "record_directory_page",
    /// [`Store::request_look`].
    RequestLook = "request_look",
    /// [`Store::approve`].
    Approve = "approve",
    /// [`Store::dismiss_event`].
    DismissEvent = "dismiss_event",
    /// [`Store::enforcement_switched_on`].
    EnforcementSwitchedOn = "enforcement_switched_on",
    /// [`Store::raise_alarm`].
    RaiseAlarm = "raise_alarm",
    /// [`Store::clear_alarm`].
    ClearAlarm = "clear_alarm",
    /// [`Store::clear_alarms`].
    ClearAlarms = "clear_alarms",
    /// [`Store::mark_delivered`].
    MarkDelivered = "told",
    /// [`Store::skip_notification`].
    SkipNotification = "skip_notification",
    /// [`Store::retry_refused`].
    RetryRefused = "retry_refused",
    /// [`Store::note_enforcement`].
    NoteEnforcement = "note_enforcement",
    /// [`Store::note_evaluation`].
    NoteEvaluation = "note_evaluation",
    /// [`Store::note_stopped`].
    NoteStopped = "note_stopped",
    /// [`Store::note_action`].
    NoteAction = "note_action",
    /// [`Store::note_action_key`].
    NoteActionKey = "note_action_key",
    /// [`Store::forget_hidden_listed`].
    ForgetHiddenListed = "forget_hidden_listed",
    /// [`Store::begin_run`].
    BeginRun = "begin_run",
    /// [`Store::finish_run`].
    FinishRun = "finish_run",
    /// [`Store::note_poll`].
    NotePoll = "note_poll",
    /// [`Store::note_remote_error`].
    NoteRemoteError = "note_remote_error",
    /// [`Store::note_remote_ok`].
    NoteRemoteOk = "note_remote_ok",
    /// [`Store::expire`].
    Expire = "expire",
    /// [`Store::forget`].
    Forget = "forget",
    /// [`Store::purged`].
    Purged = "purged",
}

/// A write transaction, which holds the write lock. Dropping it rolls back.
pub(super) struct Tx {
    write: Write,
    inner: Transaction<'static, Sqlite>,
}

impl Deref for Tx {
    type Target = SqliteConnection;

    fn deref(&self) -> &SqliteConnection {
        &self.inner
    }
}

impl DerefMut for Tx {
    fn deref_mut(&mut self) -> &mut SqliteConnection {
        &mut self.inner
    }
}

impl Store {
    /// Begins a write transaction and takes the write lock.
    pub(super) async fn begin(&self, write: Write) -> Result<Tx, StoreError> {
        failpoint::pass(COMPONENT, write.as_str(), Phase::Before);
        // A transaction that begins with a read may fail to get the lock later.
        let inner = self.writer().begin_with("BEGIN IMMEDIATE").await?;
        Ok(Tx { write, inner })
    }

    pub(super) async fn commit(&self, tx: Tx) -> Result<(), StoreError> {
        let Tx { write, inner } = tx;
        failpoint::pass(COMPONENT, write.as_str(), Phase::Uncommitted);
        inner.commit().await?;
        failpoint::pass(COMPONENT, write.as_str(), Phase::After);
        Ok(())
    }

    /// Executes one statement as a transaction.
    pub(super) async fn write(
        &self,
        write: Write,
        statement: sqlx::query::Query<'_, Sqlite, SqliteArguments>,
    ) -> Result<SqliteQueryResult, StoreError> {
        let mut tx = self.begin(write).await?;
        let done = statement.execute(&mut *tx).await?;
        self.commit(tx).await?;
        Ok(done)
    }
}
