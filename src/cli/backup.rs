//! `backup`: writes a verified copy of the state, even while a daemon is running.

use std::path::Path;

use super::{Error, Exit, screen, wiring};
use crate::config::Config;

/// Writes the copy to `target`, which must not exist.
///
/// # Errors
/// If there is no state, or the copy cannot be written or verified.
pub(crate) async fn run(config: &Config, target: &Path) -> Result<Exit, Error> {
    let store = wiring::state(&config.store.path).await?;
    let verified = store.backup(target).await;
    store.close().await;
    let verified = verified?;
    let told = format!(
        "wrote {}, a copy of {}; verified its integrity, its row counts and the chain of {} decisions",
        target.display(),
        config.store.path.display(),
        verified.rows + verified.forgotten
    );
    screen::out(&screen::paragraph("", &told, screen::terminal_width())).map_err(Error::Output)?;
    Ok(Exit::Done)
}
