//! `sandbox`: both stand-ins on chosen ports, for anyone's experiments.

use std::sync::Arc;

use super::args::SandboxArgs;
use super::{Error, Exit, screen, sync};
use crate::domain::Clock;
use crate::sandbox::{Options, Sandbox};

/// Serves both tenants until told to stop.
///
/// # Errors
/// When a port cannot be had.
pub(crate) async fn run(arguments: &SandboxArgs, clock: Arc<dyn Clock>) -> Result<Exit, Error> {
    let options =
        Options { clock, okta_port: arguments.okta_port, auth0_port: arguments.auth0_port, ..Options::default() };
    let sandbox = Sandbox::start(options).await.map_err(|error| {
        Error::Setup(format!("the sandbox cannot be served: {error}; choose other ports, or leave them out"))
    })?;
    let text = format!(
        "# An Okta org and an Auth0 tenant that live in memory, on loopback. Paste this into a config.toml (mode 0600):\n\n\
         {}\n[store]\npath = \"state.db\"\n\n\
         # Create a person in both, and deactivate them in Okta:\n\
         #   curl -s -H 'Authorization: SSWS {token}' -H 'Content-Type: application/json' \\\n\
         #     '{okta}/api/v1/users?activate=true' \\\n\
         #     -d '{{\"profile\":{{\"login\":\"ann@example.com\",\"email\":\"ann@example.com\",\"firstName\":\"Ann\",\"lastName\":\"E\"}}}}'\n\
         #   curl -s -X POST -H 'Authorization: SSWS {token}' '{okta}/api/v1/users/<id>/lifecycle/deactivate'\n\
         # Faults, logins, the clock and the journal of requests are under /_sandbox/ on each port.\n",
        sandbox.config_toml(),
        token = sandbox.okta().api_token(),
        okta = sandbox.okta().url(),
    );
    screen::out(&text).map_err(Error::Output)?;
    screen::remark("serving; Ctrl-C ends it");
    sync::stop_on_signal()?.cancelled().await;
    sandbox.stop().await;
    Ok(Exit::Done)
}
