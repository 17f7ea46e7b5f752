//! Named moments at which a test has the process die as by SIGKILL: nothing is unwound, flushed or told.
//!
//! Each transaction of the store and each call of a remote has its points, before and behind; who passes one names it
//! here. `OKTA_AUTH0_SYNC_TEST_DIE_AT=store::record_page::uncommitted=3` dies at the third passing of that one. All names
//! are listed by [`crate::cli::failpoints`]. Without the feature `failpoints`, and so in packages, nothing of it is
//! compiled in.

/// Where a point stands to what it is about.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Phase {
    /// Nothing is begun: no lock is held, no byte is sent.
    Before,
    /// Every statement of the transaction is executed, and it is not committed.
    Uncommitted,
    /// It is done, and whoever asked for it has not heard of it.
    After,
}

impl Phase {
    /// Those of a transaction.
    #[cfg(feature = "failpoints")]
    pub(crate) const OF_A_WRITE: &'static [Self] = &[Self::Before, Self::Uncommitted, Self::After];
    /// Those of a call, and of whatever else cannot be seen half done.
    #[cfg(feature = "failpoints")]
    pub(crate) const OF_A_CALL: &'static [Self] = &[Self::Before, Self::After];

    #[cfg(feature = "failpoints")]
    const fn as_str(self) -> &'static str {
        match self {
            Self::Before => "before",
            Self::Uncommitted => "uncommitted",
            Self::After => "after",
        }
    }
}

/// The process is at this point now.
#[cfg(not(feature = "failpoints"))]
pub(crate) fn pass(_room: impl std::fmt::Display, _what: &str, _moment: Phase) {}

/// The loop of this name is here now: a test of the watchdog may have it hang.
#[cfg(not(feature = "failpoints"))]
pub(crate) async fn hang(_loop: &str) {}

/// Hangs forever if `OKTA_AUTH0_SYNC_TEST_WEDGE` names this loop.
#[cfg(feature = "failpoints")]
pub(crate) async fn hang(name: &str) {
    if std::env::var_os("OKTA_AUTH0_SYNC_TEST_WEDGE").is_some_and(|asked| asked == name) {
        std::future::pending::<()>().await;
    }
}

#[cfg(feature = "failpoints")]
pub(crate) use armed::{Unknown, arm, name, pass};

#[cfg(feature = "failpoints")]
mod armed {
    use std::fmt::Display;
    use std::sync::OnceLock;
    use std::sync::atomic::{AtomicU64, Ordering};

    use super::Phase;

    /// A point to die at.
    struct Armed {
        name: String,
        /// How many passings are left, the last one included.
        left: AtomicU64,
    }

    static ARMED: OnceLock<Armed> = OnceLock::new();

    /// What was asked for is no point.
    #[derive(Debug, thiserror::Error)]
    #[error("OKTA_AUTH0_SYNC_TEST_DIE_AT: {0:?} is not NAME or NAME=COUNT of a known point")]
    pub(crate) struct Unknown(String);

    /// The name of a point.
    pub(crate) fn name(room: impl Display, what: &str, phase: Phase) -> String {
        format!("{room}::{what}::{}", phase.as_str())
    }

    /// Arms the point that the environment names, if it names one.
    ///
    /// # Errors
    /// When it is none of `known`: a slip must not look like a point that is never passed.
    pub(crate) fn arm(asked: Option<&str>, known: &[String]) -> Result<(), Unknown> {
        let Some(asked) = asked else { return Ok(()) };
        let (name, count) = asked.rsplit_once('=').unwrap_or((asked, "1"));
        let count = count.parse().ok().filter(|count| *count > 0);
        match count.filter(|_| known.iter().any(|point| point == name)) {
            // Armed twice in a process, the first holds: there is one command in a process.
            Some(left) => {
                ARMED.get_or_init(|| Armed { name: name.to_owned(), left: AtomicU64::new(left) });
                Ok(())
            }
            None => Err(Unknown(asked.to_owned())),
        }
    }

    /// The process is at this point now: the end, if it is the one that was asked for.
    pub(crate) fn pass(room: impl Display, what: &str, phase: Phase) {
        let Some(armed) = ARMED.get() else { return };
        if armed.name == name(room, what, phase) && armed.left.fetch_sub(1, Ordering::SeqCst) == 1 {
            std::process::abort();
        }
    }

    #[cfg(test)]
    mod tests {
        use super::*;

        #[test]
        fn what_is_no_point_is_refused() {
            let known = [name("store", "record_page", Phase::After)];
            assert_eq!(known, ["store::record_page::after"]);
            for slip in ["", "store::record_page", "store::record_page::after=0", "store::record_page::after=x", "=1"] {
                assert!(arm(Some(slip), &known).is_err(), "{slip}");
            }
            arm(None, &known).unwrap();
        }
    }
}
