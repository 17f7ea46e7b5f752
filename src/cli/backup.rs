//! `backup`: a verified copy of the state, whether or not a daemon works with it.

use std::path::Path;

use super::{Error, Exit, screen, wiring};
use crate::config::Config;

/// Writes the copy to `target`, which must not exist.
///
/// # Errors
/// When there is no state, or the copy cannot be written or is not proven.
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
