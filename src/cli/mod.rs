//! The commands. [`args`] defines the command line, each command has its own file, [`screen`] formats results, and
//! [`exit`] defines the exit codes.

mod action;
mod approve;
pub mod args;
mod ask;
mod audit;
mod backup;
pub mod check;
mod confirm;
#[cfg(feature = "sandbox")]
mod demo;
mod dry_run;
mod events;
pub mod exit;
mod forget;
mod live;
mod manual;
#[cfg(feature = "failpoints")]
mod points;
mod progress;
mod purge;
mod reconcile;
mod retry;
mod run;
#[cfg(feature = "sandbox")]
mod sandbox;
pub mod screen;
mod signals;
pub mod status;
mod story;
mod sync;
mod user;
mod user_match;
mod wiring;

use std::ffi::OsString;
use std::io::IsTerminal;
use std::path::Path;
use std::sync::Arc;

use clap::{CommandFactory, Parser};
use rustix::process::{Resource, Rlimit, setrlimit};

use crate::config::{Config, Environment};
use crate::domain::{Clock, SteadyClock, SystemClock};
use crate::engine::Fatal;
use crate::engine::deploy::DeploymentError;
use crate::http::Failure;
use crate::store::{self, StoreError};
use crate::{config, logging};
use args::{Cli, Command};
pub use exit::Exit;
#[cfg(feature = "failpoints")]
pub use points::failpoints;

/// Parses the arguments and runs the command, including all of its output.
pub fn run(arguments: impl IntoIterator<Item = OsString>) -> Exit {
    forbid_core_dumps();
    screen::choose_color();
    let cli = match Cli::try_parse_from(arguments) {
        Ok(cli) => cli,
        Err(error) => {
            // Help and version go to standard output and are not errors. A failure to print cannot be reported anywhere.
            let _ = error.print();
            return if error.use_stderr() { Exit::Usage } else { Exit::Done };
        }
    };
    let clock: Arc<dyn Clock> = Arc::new(SteadyClock::new(Arc::new(SystemClock::new())));
    #[cfg(feature = "failpoints")]
    if let Err(error) = points::arm() {
        screen::remark(&format!("{}: {error}", screen::paint(screen::BAD, "error")));
        return Exit::Usage;
    }
    match dispatch(cli, &clock) {
        Ok(exit) => exit,
        Err(error) => {
            let lines: Vec<String> = error.to_string().lines().map(crate::domain::escape).collect();
            let told = format!("{}: {}", screen::paint(screen::BAD, "error"), lines.join("\n"));
            screen::remark(&logging::with_journald_priority(&told));
            error.exit()
        }
    }
}

/// A core would contain the secrets. The unit forbids them too, but this process may have been started by hand.
fn forbid_core_dumps() {
    let none = Rlimit { current: Some(0), maximum: Some(0) };
    // Lowering a limit is always allowed, so this fails only where a sandbox forbids the call.
    let _ = setrlimit(Resource::Core, none);
}

fn dispatch(cli: Cli, clock: &Arc<dyn Clock>) -> Result<Exit, Error> {
    let environment = Environment::of_process();
    let file = cli.config.as_deref();
    match cli.command {
        Command::Check(arguments) if arguments.offline => {
            block_on(check::offline(file, &environment, clock.now(), arguments.json))
        }
        Command::Check(arguments) => block_on(check::online::run(file, &environment, clock, arguments.json)),
        Command::Completions(arguments) => {
            let mut text = Vec::new();
            clap_complete::generate(arguments.shell, &mut Cli::command(), "okta-auth0-sync", &mut text);
            screen::out_raw(&text).map(|()| Exit::Done).map_err(Error::Output)
        }
        Command::Man(arguments) => manual::run(arguments.dir.as_deref()).map(|()| Exit::Done).map_err(Error::Output),
        Command::Run => {
            let config = start(file, &environment, clock, true)?;
            block_on(run::run(config, clock.clone()))
        }
        Command::Sync(arguments) => {
            let config = configure(file, &environment, clock)?;
            block_on(sync::run(config, arguments.dry_run, clock.clone()))
        }
        #[cfg(feature = "sandbox")]
        Command::Demo => block_on(demo::run(clock.clone())),
        #[cfg(feature = "sandbox")]
        Command::Sandbox(arguments) => block_on(sandbox::run(&arguments, clock.clone())),
        Command::Reconcile(arguments) => {
            let config = configure(file, &environment, clock)?;
            block_on(reconcile::run(config, &arguments, clock.clone()))
        }
        Command::Status(arguments) => {
            let config = configure(file, &environment, clock)?;
            block_on(status::run(&config, arguments.json, arguments.check, clock.now()))
        }
        Command::Events(arguments) => {
            let config = configure(file, &environment, clock)?;
            block_on(events::run(&config, &arguments, clock.now()))
        }
        Command::Backup(arguments) => {
            let config = configure(file, &environment, clock)?;
            block_on(backup::run(&config, &arguments.file))
        }
        Command::Retry(arguments) => {
            let config = configure(file, &environment, clock)?;
            block_on(retry::run(&config, &arguments, clock))
        }
        Command::Approve(arguments) => {
            let config = configure(file, &environment, clock)?;
            block_on(approve::run(&config, &arguments, clock))
        }
        Command::Forget(arguments) => {
            let config = configure(file, &environment, clock)?;
            block_on(forget::run(&config, &arguments, clock.now()))
        }
        Command::User(arguments) => {
            let config = configure(file, &environment, clock)?;
            block_on(user::run(&config, &arguments, clock))
        }
        Command::Audit { command } => {
            let config = configure(file, &environment, clock)?;
            block_on(audit::run(&config, &command, clock.now()))
        }
        Command::Action { command } => {
            let config = configure(file, &environment, clock)?;
            block_on(action::run(&config, &command, clock))
        }
        Command::Purge(arguments) => {
            let config = configure(file, &environment, clock)?;
            block_on(purge::run(&config, &arguments, clock))
        }
    }
}

/// Runs a command to completion on a new runtime.
fn block_on<T>(work: impl Future<Output = Result<T, Error>>) -> Result<T, Error> {
    tokio::runtime::Builder::new_multi_thread()
        .worker_threads(2)
        .enable_all()
        .build()
        .map_err(|error| Error::Setup(format!("cannot start: {error}")))?
        .block_on(work)
}

/// Loads the configuration and starts logging: the first step of every command that needs either.
///
/// # Errors
/// If the configuration is invalid, or logging has already been started.
pub fn configure(file: Option<&Path>, environment: &Environment, clock: &Arc<dyn Clock>) -> Result<Config, Error> {
    start(file, environment, clock, false)
}

/// Like [`configure`], but for the daemon, whose log is its output. Other commands print results, so on a terminal they
/// log only warnings and errors; in a pipe or under a timer they log as configured.
fn start(
    file: Option<&Path>,
    environment: &Environment,
    clock: &Arc<dyn Clock>,
    is_daemon: bool,
) -> Result<Config, Error> {
    let config = Config::load(file, environment)?;
    store::name_state(&config.store.path);
    let mut log = config.log.clone();
    if !is_daemon && log.filter == "info" && std::io::stderr().is_terminal() {
        "warn".clone_into(&mut log.filter);
    }
    logging::init(&log, clock.clone())?;
    for warning in &config.warnings {
        if !is_daemon && std::io::stderr().is_terminal() {
            let head = screen::paint(screen::WARNING, "warning");
            screen::remark(&format!("{head}: {}", crate::domain::escape(&warning.to_string())));
        } else {
            tracing::warn!("{warning}");
        }
    }
    Ok(config)
}

/// Why a command failed.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The configuration is invalid.
    #[error(transparent)]
    Config(#[from] config::Error),
    /// Logging cannot be started.
    #[error(transparent)]
    Log(#[from] logging::Error),
    /// The result could not be written.
    #[error("cannot write: {0}")]
    Output(#[source] std::io::Error),
    /// The result cannot be serialized.
    #[error("cannot print JSON: {0}")]
    Json(#[from] serde_json::Error),
    /// The state cannot be used.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// A call to a remote failed.
    #[error(transparent)]
    Remote(Box<Failure>),
    /// The Action cannot be deployed.
    #[error(transparent)]
    Deployment(Box<DeploymentError>),
    /// The engine cannot continue.
    #[error(transparent)]
    Fatal(Fatal),
    /// A secret, file or address in the configuration cannot be used.
    #[error("{0}")]
    Setup(String),
}

impl Error {
    /// The exit code for this error.
    pub fn exit(&self) -> Exit {
        match self {
            Self::Config(_) | Self::Setup(_) => Exit::Config,
            Self::Store(StoreError::Busy { .. }) => Exit::InUse,
            Self::Store(error) if error.is_configuration() => Exit::Config,
            Self::Fatal(error) if error.is_configuration() => Exit::Config,
            Self::Store(_) | Self::Fatal(_) => Exit::Failed,
            Self::Log(_) | Self::Output(_) | Self::Json(_) => Exit::Failed,
            Self::Remote(_) | Self::Deployment(_) => Exit::Failed,
        }
    }
}

impl From<Failure> for Error {
    fn from(failure: Failure) -> Self {
        Self::Remote(Box::new(failure))
    }
}

impl From<DeploymentError> for Error {
    fn from(error: DeploymentError) -> Self {
        Self::Deployment(Box::new(error))
    }
}
