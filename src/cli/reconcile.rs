//! `reconcile`: compares both tenants and repairs drift.

use std::sync::Arc;

use tokio::sync::mpsc;

use super::args::ReconcileArgs;
use super::sync;
use super::{Error, Exit, screen, signals, wiring};
use crate::config::Config;
use crate::domain::{Clock, clock};
use crate::engine::pass::reconcile;
use crate::engine::reconciler::{Scope, USUAL_SPAN};

/// Compares, then processes every user with drift.
///
/// # Errors
/// If it cannot start, or the state fails.
pub(crate) async fn run(config: Config, arguments: &ReconcileArgs, clock: Arc<dyn Clock>) -> Result<Exit, Error> {
    let (notes, heard) = mpsc::unbounded_channel();
    let (engine, _copy) = if arguments.dry_run {
        let (engine, copy) = wiring::dry_run_engine(&config, &clock).await?;
        (engine, Some(copy))
    } else {
        (wiring::engine(&config, &clock).await?, None)
    };
    let engine = Arc::new(engine.with_notes(notes));
    let now = clock.now();
    let scope = match (arguments.all, arguments.since) {
        (true, _) => Scope::All,
        (false, Some(since)) => Scope::Since(since.resolve(now)),
        (false, None) => Scope::Since(clock::sub(now, USUAL_SPAN)),
    };
    let shown = tokio::spawn(sync::show("comparing users", heard));
    let stop = signals::stop_on_signal()?;
    engine.begin_reconcile(scope, "requested on the command line").await?;
    let result = reconcile(&engine, &stop).await;
    engine.close_notes();
    let reports = shown.await.unwrap_or_default();
    let done = result?;
    let status = engine.store().status().await?;
    engine.store().close().await;
    let text =
        if arguments.dry_run { sync::plan(&reports, &done) } else { sync::summary(&reports, &done, status.as_ref()) };
    screen::out(&text).map_err(Error::Output)?;
    Ok(sync::verdict(&done, status.as_ref(), arguments.dry_run))
}
