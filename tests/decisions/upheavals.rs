//! Steps of a history that change what the daemon relies on: accounts that are linked, a restored copy of the state, a cursor
//! that is given up in the middle of a backlog.

use okta_auth0_sync_sandbox::{Effect, Fault};
use serde_json::json;

use super::history::{Copy, History};

impl History {
    /// Links one account into another, which discards its metadata and its block. Only the search finds linked identities.
    pub(crate) fn link_accounts(&mut self) {
        let existing: Vec<String> = self.accounts.iter().map(|(id, _)| id.clone()).collect();
        let (Some(primary), Some(secondary)) = (self.rng.choice(&existing), self.rng.choice(&existing)) else { return };
        let (primary, secondary) = (primary.clone(), secondary.clone());
        if !self.world.options.search || primary == secondary || !self.world.auth0().link(&primary, &secondary) {
            return;
        }
        self.log_step(format!("{secondary} is linked into {primary}"));
        self.blocked_by_others.remove(&secondary);
    }

    /// Copies the state, or puts the last copy in its place.
    pub(crate) async fn copy_or_restore(&mut self) {
        if let Some(copy) = self.copy.take() {
            self.log_step(format!("restore {}", copy.file.display()));
            self.world.restore(&copy.file).await;
            std::fs::remove_file(&copy.file).unwrap();
            // The copy has users that were forgotten since, and lacks those that were read since.
            self.restored = true;
            self.forgotten = copy.forgotten;
            self.unread = copy.unread;
            let later: Vec<_> = self.users[copy.users..].iter().map(|(id, _)| id.clone()).collect();
            self.unread.extend(later);
            let gone: Vec<_> = self.unread.iter().filter(|id| self.world.okta().user(id).is_none()).cloned().collect();
            self.forgotten.extend(gone);
            return;
        }
        let file = self.world.folder.path().join("copy.db");
        self.log_step("copy the state".to_owned());
        self.world.store().backup(&file).await.unwrap();
        let (forgotten, unread) = (self.forgotten.clone(), self.unread.clone());
        self.copy = Some(Copy { file, forgotten, unread, users: self.users.len() });
    }

    /// Okta refuses the cursor behind one of the pages of a backlog.
    pub(crate) async fn give_up_cursor(&mut self) {
        let page = self.rng.usize(1..=3);
        let read = self.rng.u32(1..=3);
        self.log_step(format!("pages of {page}; the cursor is refused after {read}"));
        self.world.okta().set_log_page_max(Some(page));
        let body = json!({ "errorCode": "E0000031" });
        let refused = Effect::Status { code: 400, body, headers: Vec::new() };
        self.world.okta().faults().add(Fault::new("GET", "/api/v1/logs", refused).skip(read).times(1));
        for _ in 0..3 {
            self.poll().await;
        }
        self.world.okta().set_log_page_max(None);
    }
}
