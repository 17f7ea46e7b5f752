//! Failpoints: named points at which a test kills the process as SIGKILL would, without unwinding or flushing.
//!
//! Each store transaction and each remote call has a point before and after it.
//! `OKTA_AUTH0_SYNC_TEST_DIE_AT=store::record_page::uncommitted=3` aborts at the third pass of that point.
//! [`crate::cli::failpoints`] lists all names. Without the feature `failpoints`, and so in packages, they are not
//! compiled in.

/// Where a point is, relative to its operation.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Phase {
    /// Not started: no lock is held and no byte has been sent.
    Before,
    /// Every statement of the transaction has run, but it is not committed.
    Uncommitted,
    /// Completed, but the caller has not received the result.
    After,
}

impl Phase {
    /// The phases of a transaction.
    #[cfg(feature = "failpoints")]
    pub(crate) const OF_A_WRITE: &'static [Self] = &[Self::Before, Self::Uncommitted, Self::After];
    /// The phases of a call or another atomic operation.
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

/// Marks that the process passes this point.
#[cfg(not(feature = "failpoints"))]
pub(crate) fn pass(_component: impl std::fmt::Display, _what: &str, _phase: Phase) {}

/// Marks that the loop of this name passes here; a watchdog test can make it hang.
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

    /// The point at which to abort.
    struct Armed {
        name: String,
        /// Passes left, including the last one.
        left: AtomicU64,
    }

    static ARMED: OnceLock<Armed> = OnceLock::new();

    /// The requested point does not exist.
    #[derive(Debug, thiserror::Error)]
    #[error("OKTA_AUTH0_SYNC_TEST_DIE_AT: {0:?} is not NAME or NAME=COUNT of a known point")]
    pub(crate) struct Unknown(String);

    /// The name of a point.
    pub(crate) fn name(component: impl Display, what: &str, phase: Phase) -> String {
        format!("{component}::{what}::{}", phase.as_str())
    }

    /// Arms the point that the environment names, if any.
    ///
    /// # Errors
    /// When the name is not in `known`, so that a typo does not look like a point that is never passed.
    pub(crate) fn arm(asked: Option<&str>, known: &[String]) -> Result<(), Unknown> {
        let Some(asked) = asked else { return Ok(()) };
        let (name, count) = asked.rsplit_once('=').unwrap_or((asked, "1"));
        let count = count.parse().ok().filter(|count| *count > 0);
        match count.filter(|_| known.iter().any(|point| point == name)) {
            // The first call wins; a process runs one command.
            Some(left) => {
                ARMED.get_or_init(|| Armed { name: name.to_owned(), left: AtomicU64::new(left) });
                Ok(())
            }
            None => Err(Unknown(asked.to_owned())),
        }
    }

    /// Marks that the process passes this point, and aborts if it is the armed one.
    pub(crate) fn pass(component: impl Display, what: &str, phase: Phase) {
        let Some(armed) = ARMED.get() else { return };
        if armed.name == name(component, what, phase) && armed.left.fetch_sub(1, Ordering::SeqCst) == 1 {
            std::process::abort();
        }
    }

    #[cfg(test)]
    mod tests {
        use super::*;

        #[test]
        fn unknown_points_are_rejected() {
            let known = [name("store", "record_page", Phase::After)];
            assert_eq!(known, ["store::record_page::after"]);
            for typo in ["", "store::record_page", "store::record_page::after=0", "store::record_page::after=x", "=1"] {
                assert!(arm(Some(typo), &known).is_err(), "{typo}");
            }
            arm(None, &known).unwrap();
        }
    }
}
