//! `check` of the state: what `run` would refuse, and which org it belongs to.

use std::path::Path;

use super::super::wiring;
use super::Report;
use crate::config::Config;
use crate::store::{Store, StoreError, is_in_use, name_state};

const LINE: &str = "state";

/// systemd creates this folder for the service, and one below it for each instance.
const CREATED_BY_UNIT: &str = "/var/lib/okta-auth0-sync";

/// Checks the state. `org` is the Okta org that answered, if it was asked.
pub(super) async fn check(report: &mut Report, config: &Config, org: Option<&str>) {
    let path = &config.store.path;
    let shown = path.display();
    name_state(path);
    let found = match Store::check(path, &wiring::binding(config)).await {
        Ok(found) => found,
        Err(StoreError::Place { .. }) if unit_creates_folder(path) => {
            report.warn(
                LINE,
                format!(
                    "{shown}: no state yet, and no directory {0}; the systemd unit creates it. To run `sync` before that, as root: \
                     install -d -m 0700 {0}",
                    folder(path).display()
                ),
            );
            return;
        }
        Err(error) => {
            report.fail(LINE, error.to_string());
            return;
        }
    };
    if found.group_can_write {
        report.warn(
            LINE,
            format!(
                "{shown}: a group can write its folder; `chmod g-w` it, so that no other user can replace the state"
            ),
        );
    }
    if !found.exists {
        report.pass(LINE, format!("{shown}: does not exist yet; the first run creates it"));
        return;
    }
    if let (Some(org), Some(bound)) = (org, found.org_id.as_deref())
        && org != bound
    {
        report.fail(
            LINE,
            format!("{shown} belongs to the org {bound}, but okta.url is {org}; set store.path to another file"),
        );
        return;
    }
    if let Some((from, to)) = found.migrates {
        report.warn(LINE, format!("{shown} has schema {from}: the next start migrates it to {to}, after copying it"));
    }
    let used = match is_in_use(path) {
        Ok(true) => "in use by a running daemon",
        Ok(false) => "not in use; no daemon is running",
        Err(_) => "cannot determine whether it is in use",
    };
    report.pass(LINE, format!("{shown}: {used}"));
}

fn folder(path: &Path) -> &Path {
    path.parent().unwrap_or(path)
}

fn unit_creates_folder(path: &Path) -> bool {
    let folder = folder(path);
    folder.starts_with(CREATED_BY_UNIT) && !folder.exists()
}
