//! `sandbox`: serves both stand-ins on the given ports, for experiments.

use std::sync::Arc;

use super::args::SandboxArgs;
use super::{Error, Exit, screen, signals};
use crate::auth0::{ACTION_NAME, ACTION_SOURCE};
use crate::domain::Clock;
use okta_auth0_sync_sandbox::{Bucket, Effect, Fault, Limits, Options, Population, Sandbox};

/// Serves both tenants until stopped.
///
/// # Errors
/// If a port cannot be bound.
pub(crate) async fn run(arguments: &SandboxArgs, clock: Arc<dyn Clock>) -> Result<Exit, Error> {
    let (users, leavers, history) = (arguments.users, arguments.leavers, arguments.history);
    if leavers > users || (history > 0 && leavers == users) {
        let why =
            "--people must be at least --leavers, and greater with --history: its entries need users who stay active";
        return Err(Error::Setup(why.to_owned()));
    }
    let mut options =
        Options { clock, okta_port: arguments.okta_port, auth0_port: arguments.auth0_port, ..Options::default() };
    if arguments.unlimited {
        options.okta.limits = Limits::unlimited();
        options.auth0.bucket = Bucket::UNLIMITED;
    }
    if let (Some(burst), Some(refill)) = (arguments.auth0_burst, arguments.auth0_per_second) {
        options.auth0.bucket = Bucket { burst, refill_per_second: f64::from(refill) };
    }
    let sandbox = Sandbox::start(options, ACTION_SOURCE)
        .await
        .map_err(|error| Error::Setup(format!("cannot start the sandbox: {error}; choose other ports or omit them")))?;
    if arguments.no_action {
        sandbox.auth0().action().remove(ACTION_NAME);
    }
    sandbox.populate(Population { users, leavers, history });
    if let Some(span) = arguments.latency {
        for faults in [sandbox.okta().faults(), sandbox.auth0().faults()] {
            faults.add(Fault::everywhere(Effect::Delay(span)));
        }
    }
    let text = format!(
        "# An in-memory Okta org and Auth0 tenant on loopback. Paste this into a config.toml (mode 0600):\n\n\
         {}\n[store]\npath = \"state.db\"\n\n\
         # Create a user in both tenants, then deactivate the user in Okta and log in as them:\n\
         #   curl -s {okta}/_sandbox/users -d '{{\"login\":\"ann@example.com\"}}'\n\
         #   curl -s {auth0}/_sandbox/users -d '{{\"email\":\"ann@example.com\",\"email_verified\":true,\"connection\":\"Username-Password-Authentication\"}}'\n\
         #   curl -s -X POST {okta}/_sandbox/users/<id of the first answer>/deactivate\n\
         #   curl -s {auth0}/_sandbox/login -d '{{\"user_id\":\"<user_id of the second answer>\"}}'\n\
         # Faults, the clock, the journal of requests and all else: curl -s {okta}/_sandbox/ and {auth0}/_sandbox/\n",
        sandbox.config_toml(),
        okta = sandbox.okta().url(),
        auth0 = sandbox.auth0().url(),
    );
    screen::out(&text).map_err(Error::Output)?;
    screen::remark("serving; press Ctrl-C to stop");
    signals::stop_on_signal()?.cancelled().await;
    sandbox.stop().await;
    Ok(Exit::Done)
}
