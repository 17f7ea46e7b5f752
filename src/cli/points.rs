//! All failpoints at which a test can kill the process.

use crate::failpoint::{self, Phase};
use crate::http::Remote;
use crate::{alert, auth0, okta, store};

/// The names of all failpoints, for `OKTA_AUTH0_SYNC_TEST_DIE_AT`.
pub fn failpoints() -> Vec<String> {
    let mut names = Vec::new();
    for write in store::Write::ALL {
        names.extend(Phase::OF_A_WRITE.iter().map(|phase| failpoint::name(store::COMPONENT, write.as_str(), *phase)));
    }
    for step in store::STEPS {
        names.extend(Phase::OF_A_CALL.iter().map(|phase| failpoint::name(store::COMPONENT, step, *phase)));
    }
    for (remote, endpoints) in
        [(Remote::Okta, okta::endpoints::ALL.as_slice()), (Remote::Auth0, auth0::endpoints::ALL.as_slice())]
    {
        for endpoint in endpoints {
            names.extend(Phase::OF_A_CALL.iter().map(|phase| failpoint::name(remote, endpoint.name, *phase)));
        }
    }
    for whom in alert::TARGETS {
        names.extend(Phase::OF_A_CALL.iter().map(|phase| failpoint::name(alert::COMPONENT, whom, *phase)));
    }
    names
}

/// Arms the failpoint named in the environment, if any.
///
/// # Errors
/// If no failpoint has this name.
pub(super) fn arm() -> Result<(), failpoint::Unknown> {
    match std::env::var("OKTA_AUTH0_SYNC_TEST_DIE_AT") {
        Ok(asked) => failpoint::arm(Some(&asked), &failpoints()),
        Err(_) => failpoint::arm(None, &[]),
    }
}
