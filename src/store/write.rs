//! The one place where something is written: each transaction has a name, and with it its points to die at.

use std::ops::{Deref, DerefMut};

use sqlx::sqlite::{SqliteArguments, SqliteConnection, SqliteQueryResult};
use sqlx::{Sqlite, Transaction};

use super::{Store, StoreError};
use crate::failpoint::{self, Phase};

/// The room's name in those of its points.
pub(crate) const COMPONENT: &str = "store";
/// What is done to the file and is no transaction of ours, each with a point before and behind it.
#[cfg(feature = "failpoints")]
pub(crate) const STEPS: [&str; 3] = [CREATE, MIGRATE, COMPACT];
/// The file is made.
pub(super) const CREATE: &str = "create";
/// The schema is brought up to date.
pub(super) const MIGRATE: &str = "migrate";
/// The file is rewritten.
pub(super) const COMPACT: &str = "compact";

macro_rules! writes {
    ($($(#[$doc:meta])+ $write:ident = $name:literal,)+) => {
        /// Every transaction that writes.
        #[derive(Clone, Copy, Debug, PartialEq, Eq)]
        pub enum Write {
            $($(#[$doc])+ $write,)+
        }

        impl Write {
            /// All of them.
            pub const ALL: &[Self] = &[$(Self::$write),+];

            /// Its name.
            pub const fn as_str(self) -> &'static str {
                match self {
                    $(Self::$write => $name,)+
                }
            }
        }
    };
}

writes! {
    /// A new state is bound, an old one taken up: enforcement that was switched on, runs of dead processes.
    Open = "open",
    /// [`Store::bind_org`].
    BindOrg = "bind_org",
    /// [`Store::record_page`].
    RecordPage = "record_page",
    /// [`Store::reanchor`].
    Reanchor = "reanchor",
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
    /// [`Store::note_enforcement`].
    NoteEnforcement = "note_enforcement",
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

/// A write transaction under way: a connection that has the write lock. Dropped, it leaves nothing behind.
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
    /// A write transaction. It has the write lock from its first moment.
    pub(super) async fn begin(&self, write: Write) -> Result<Tx, StoreError> {
        failpoint::pass(COMPONENT, write.as_str(), Phase::Before);
        // At once: one that began by reading could not get the lock later.
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

    /// A transaction of one statement.
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
