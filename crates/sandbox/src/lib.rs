//! Stateful stand-ins of an Okta org and an Auth0 tenant, on the loopback interface, over real HTTP.
//!
//! ```no_run
//! # async fn example() -> std::io::Result<()> {
//! use okta_auth0_sync_sandbox::{NewUser, Options, Sandbox};
//!
//! let sandbox = Sandbox::start(Options::default(), "").await?;
//! let ann = sandbox.okta().create_user(&NewUser::new("ann@example.com", "ann@example.com"));
//! sandbox.okta().deactivate(&ann);
//! # sandbox.stop().await;
//! # Ok(())
//! # }
//! ```
//!
//! They serve the `demo`, the integration tests, and experiments with other clients: the official SDKs
//! work against them. They follow the OpenAPI descriptions that Okta and Auth0 publish and recordings in
//! public repositories; the code names the source of each fact.
//!
//! - [`Faults`] make them fail or wait for chosen requests; [`Journal`] lists the received requests.
//! - Everything that Rust code can do is also possible over HTTP under `/_sandbox/` (see `control.rs` and
//!   `okta/control.rs`, `auth0/control.rs`).
//! - Time comes from a [`Clock`], ids from a seed: the same requests get the same responses.

#![cfg_attr(test, allow(clippy::unwrap_used, clippy::expect_used))]

mod auth0;
mod control;
mod expression;
mod faults;
mod front;
mod identifiers;
mod inbox;
mod jose;
mod journal;
mod lagged;
mod message;
mod okta;
mod population;
mod tenant;
#[cfg(test)]
mod tests;
mod wire;

use std::io;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tokio_util::sync::CancellationToken;

use okta_auth0_sync_clock::{Clock, ManualClock, SystemClock};

use front::Served;
use inbox::Inbox;
use tenant::TenantContext;
use wire::Loopback;

pub use auth0::{
    ActionEffects, Auth0Options, Auth0Tenant, Bucket, Connection, EventOptions, EventStream, Flow, Login, LoginKind,
    ProfileLimit, run_action,
};
pub use faults::{Effect, Fault, FaultId, Faults, Hold, Matcher, PathMatch, RateLimited};
pub use journal::{Journal, Recorded};
pub use okta::{DeleteOrder, Limit, Limits, NewUser, OktaOptions, OktaTenant, PageOrder, ServiceApp, UserId};
pub use population::Population;

/// The options of a sandbox.
#[derive(Clone, Debug)]
pub struct Options {
    /// The time of both tenants.
    pub clock: Arc<dyn Clock>,
    /// The same clock, if `/_sandbox/clock` may move it.
    pub manual_clock: Option<Arc<ManualClock>>,
    /// The port of the Okta org; 0 is any free port.
    pub okta_port: u16,
    /// The port of the Auth0 tenant; 0 is any free port.
    pub auth0_port: u16,
    /// The Okta org.
    pub okta: OktaOptions,
    /// The Auth0 tenant.
    pub auth0: Auth0Options,
}

impl Default for Options {
    fn default() -> Self {
        Self {
            clock: Arc::new(SystemClock::new()),
            manual_clock: None,
            okta_port: 0,
            auth0_port: 0,
            okta: OktaOptions::default(),
            auth0: Auth0Options::default(),
        }
    }
}

impl Options {
    /// With a clock that the caller (and `/_sandbox/clock`) moves.
    pub fn with_manual_clock(clock: Arc<ManualClock>) -> Self {
        Self { clock: clock.clone(), manual_clock: Some(clock), ..Self::default() }
    }
}

/// Both running tenants. Dropping it stops them without waiting for the connections to end.
#[derive(Debug)]
pub struct Sandbox {
    okta: OktaTenant,
    auth0: Auth0Tenant,
    served: [Served; 2],
}

impl Sandbox {
    /// Starts both tenants on the loopback interface. The Auth0 tenant has an Action called `okta-auth0-sync` of this code,
    /// bound unless the options say otherwise.
    ///
    /// # Errors
    /// If a port is not available.
    pub async fn start(options: Options, action_code: &str) -> io::Result<Self> {
        let stop = CancellationToken::new();
        let context = || TenantContext {
            clock: options.clock.clone(),
            manual_clock: options.manual_clock.clone(),
            faults: Faults::default(),
            journal: Journal::new(),
            inbox: Inbox::default(),
        };
        let okta_listener = Loopback::bind(options.okta_port, stop.clone()).await?;
        let auth0_listener = Loopback::bind(options.auth0_port, stop.clone()).await?;
        let okta = OktaTenant::new(okta_listener.url()?, options.okta, context());
        let auth0 = Auth0Tenant::new(auth0_listener.url()?, options.auth0, action_code, context());
        let served = [
            Served::start(okta_listener, stop.clone(), Arc::new(okta.clone()), okta.context().clone()),
            Served::start(auth0_listener, stop, Arc::new(auth0.clone()), auth0.context().clone()),
        ];
        Ok(Self { okta, auth0, served })
    }

    /// The Okta org.
    pub fn okta(&self) -> &OktaTenant {
        &self.okta
    }

    /// The Auth0 tenant.
    pub fn auth0(&self) -> &Auth0Tenant {
        &self.auth0
    }

    /// The sections `[okta]` and `[auth0]` of a configuration that points at them, secrets included.
    pub fn config_toml(&self) -> String {
        let text = |value: &str| toml::Value::String(value.to_owned()).to_string();
        format!(
            "[okta]\nurl = {}\napi_token = {}\n\n[auth0]\nurl = {}\naudience = {}\nclient_id = {}\nclient_secret = {}\n",
            text(self.okta.url()),
            text(&self.okta.api_token()),
            text(self.auth0.url()),
            text(&self.auth0.audience()),
            text(&self.auth0.client_id()),
            text(&self.auth0.client_secret()),
        )
    }

    /// Creates users in both tenants.
    ///
    /// # Panics
    /// If one of the logins or user ids is taken.
    pub fn populate(&self, population: Population) {
        population.settle(&self.okta, &self.auth0);
    }

    /// Stops both tenants and ends every connection. Cloned handles keep their state.
    pub async fn stop(self) {
        for served in self.served {
            served.stop().await;
        }
    }
}

/// Locks a mutex. Poisoning is ignored: no panic leaves the data half changed.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
