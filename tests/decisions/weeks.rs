//! Histories of several weeks that combine all faults: error responses of every kind, responses that are lost, truncated
//! or never end, rejected cursors, outages of days, revoked tokens and roles, a wrong machine clock, kills in the middle of
//! a call, configuration changes, and all operator commands.
//!
//! Tests set the manual clock instead of waiting. The stand-ins inject the faults; on loopback, a dropped connection is the
//! closest equivalent of a network outage.

use std::time::Duration;

use jiff::SignedDuration;
use okta_auth0_sync::domain::{OktaUserId, Status, clock};
use okta_auth0_sync::engine::reconciler::Scope;
use okta_auth0_sync::store::Who;
use okta_auth0_sync_sandbox::{Auth0Options, Effect, Fault, Faults, Matcher, RateLimited};
use serde_json::json;
use tokio_util::sync::CancellationToken;

use super::history::History;
use crate::world::{DAY, HOUR, MINUTE, SECOND};

/// Upper limit of a history: users without an account are only rechecked for 90 days.
const MAX_ELAPSED: Duration = Duration::from_secs(50 * 86_400);
const CONNECTION: &str = "acme-saml";

impl History {
    pub(crate) async fn long_step(&mut self) {
        match self.rng.u8(..100) {
            0..=34 => self.step().await,
            35..=49 => self.run_for_days().await,
            50..=62 => self.add_any_fault(),
            63..=65 => self.start_outage(),
            66..=70 => {
                self.log_step("all faults end".to_owned());
                self.world.okta().faults().clear();
                self.world.auth0().faults().clear();
            }
            71..=73 => self.kill_mid_call().await,
            74..=75 => self.stall_response().await,
            76..=78 => self.set_host_clock(),
            79..=82 => self.change_permissions(),
            83..=84 => self.hide_or_show(),
            85..=87 => self.create_or_delete_account(),
            88 => self.add_user(),
            89..=93 => self.command().await,
            94..=95 => self.forget().await,
            _ => self.change_config().await,
        }
    }

    /// Runs the daemon for hours or days: less often than in production, but at varied intervals.
    async fn run_for_days(&mut self) {
        let span = *self.rng.choice(&[6 * HOUR, DAY, 2 * DAY, 7 * DAY]).unwrap();
        if self.elapsed + span > MAX_ELAPSED {
            return;
        }
        self.elapsed += span;
        let passes = self.rng.u32(2..9);
        self.log_step(format!("{span:?} pass, {passes} passes"));
        for _ in 0..passes {
            self.world.passes(span / passes);
            self.poll().await;
            self.look_at_all().await;
            if self.rng.u8(..4) == 0 {
                let since = clock::sub(self.world.now(), 90 * DAY);
                self.reconcile(Scope::Since(since)).await;
                self.look_at_all().await;
            }
        }
    }

    async fn look_at_all(&mut self) {
        for user in self.world.store().due(self.world.now(), 100).await.unwrap() {
            self.world.engine().look_at(&[user.id]).await.unwrap();
        }
    }

    fn faults(&self, in_okta: bool) -> &Faults {
        if in_okta { self.world.okta().faults() } else { self.world.auth0().faults() }
    }

    fn random_endpoint(&mut self) -> (bool, &'static str, &'static str) {
        *self
            .rng
            .choice(&[
                (true, "GET", "/api/v1/users"),
                (true, "GET", "/api/v1/users/00u"),
                (true, "GET", "/api/v1/logs"),
                (false, "GET", "/api/v2/users"),
                (false, "GET", "/api/v2/users-by-email"),
                (false, "PATCH", "/api/v2/users"),
                (false, "PATCH", "/api/v2/users"),
                (false, "DELETE", "/api/v2/users"),
                (false, "POST", "/oauth/token"),
            ])
            .unwrap()
    }

    fn random_effect(&mut self) -> Effect {
        let status = |code, body| Effect::Status { code, body, headers: Vec::new() };
        match self.rng.u8(..17) {
            0 => Effect::RateLimited(RateLimited::Plain),
            1 => Effect::RateLimited(RateLimited::Concurrency),
            2 => Effect::RateLimited(RateLimited::RetryAfter(SECOND * self.rng.u32(1..600))),
            3 => Effect::RateLimited(RateLimited::WithoutHeaders),
            4 => Effect::RateLimited(RateLimited::ResetInThePast),
            5 | 6 => status(*self.rng.choice(&[500, 502, 503, 504]).unwrap(), json!({})),
            7 => status(408, json!({})),
            8 => status(401, json!({ "errorCode": "E0000011" })),
            9 => status(403, json!({ "errorCode": "E0000006" })),
            10 => status(400, json!({ "errorCode": "E0000031" })),
            11 => Effect::CutBody,
            12 => Effect::Drop,
            13 => Effect::Delay(SECOND * self.rng.u32(1..120)),
            14 => Effect::ReplaceBody(b"<html>".to_vec()),
            _ => {
                let then = match self.rng.u8(..4) {
                    0 => status(500, json!({})),
                    1 => Effect::CutBody,
                    _ => Effect::Drop,
                };
                Effect::AfterEffect(Box::new(then))
            }
        }
    }

    fn add_any_fault(&mut self) {
        let (in_okta, method, path) = self.random_endpoint();
        let (effect, times, skip) = (self.random_effect(), self.rng.u32(1..12), self.rng.u32(..3));
        self.log_step(format!("{method} {path}, after {skip}, {times} times: {effect:?}"));
        self.faults(in_okta).add(Fault::new(method, path, effect).skip(skip).times(times));
    }

    /// Takes one remote down until the next step that ends all faults.
    fn start_outage(&mut self) {
        let in_okta = self.rng.bool();
        let effect = match self.rng.u8(..4) {
            0 => Effect::Status { code: 503, body: json!({}), headers: Vec::new() },
            1 => Effect::AfterEffect(Box::new(Effect::Drop)),
            _ => Effect::Drop,
        };
        self.log_step(format!("{} is down: {effect:?}", if in_okta { "Okta" } else { "Auth0" }));
        self.faults(in_okta).add(Fault::everywhere(effect));
    }

    /// Kills the process after a remote has executed a request and before its response arrives.
    async fn kill_mid_call(&mut self) {
        let (in_okta, method, path) = self.random_endpoint();
        let hold = self.faults(in_okta).hold_answer(Matcher::new(method, path));
        let due = self.world.store().due(self.world.now(), 1).await.unwrap();
        let (engine, is_poll) = (self.world.engine().clone(), due.is_empty() || path.ends_with("logs"));
        let mut work = tokio::spawn(async move {
            if is_poll {
                let _ = engine.poll(&CancellationToken::new()).await;
            } else {
                engine.look_at(&[due[0].id.clone()]).await.unwrap();
            }
        });
        let reached = tokio::select! {
            () = hold.arrived() => true,
            ended = &mut work => {
                ended.unwrap();
                false
            }
        };
        if reached {
            work.abort();
            assert!(work.await.unwrap_err().is_cancelled());
        }
        self.log_step(format!("killed {} {method} {path}", if reached { "after" } else { "without a" }));
        self.world.restart(|_| ()).await;
        hold.release();
    }

    /// Sends the start of a response and never the rest.
    async fn stall_response(&mut self) {
        let (in_okta, method, path) = self.random_endpoint();
        self.log_step(format!("the answer to {method} {path} stalls"));
        let fault = self.faults(in_okta).add(Fault::new(method, path, Effect::StallBody).times(1));
        let due = self.world.store().due(self.world.now(), 1).await.unwrap();
        let (engine, is_poll) = (self.world.engine().clone(), due.is_empty() || path.ends_with("logs"));
        let journal = if in_okta { self.world.okta().journal() } else { self.world.auth0().journal() };
        let before = journal.total();
        let mut work = tokio::spawn(async move {
            if is_poll {
                let _ = engine.poll(&CancellationToken::new()).await;
            } else {
                engine.look_at(&[due[0].id.clone()]).await.unwrap();
            }
        });
        let fault_applied = journal.wait_for(|requests| {
            requests.iter().any(|request| {
                request.number >= before
                    && request.method == method
                    && request.path.starts_with(path)
                    && request.status.is_some()
            })
        });
        let stalls = tokio::select! {
            () = fault_applied => true,
            ended = &mut work => {
                ended.unwrap();
                false
            }
        };
        if stalls {
            // Exceeds the response timeout without waiting for it.
            tokio::time::pause();
            tokio::time::advance(46 * SECOND).await;
            tokio::time::resume();
            work.await.unwrap();
        }
        self.faults(in_okta).remove(fault);
    }

    /// Steps the machine's clock, as an operator or NTP would.
    fn set_host_clock(&mut self) {
        let span = *self.rng.choice(&[Duration::ZERO, MINUTE, HOUR, 3 * HOUR, DAY, 12 * DAY]).unwrap();
        let ahead = SignedDuration::try_from(span).unwrap();
        let ahead = if self.rng.bool() { ahead } else { -ahead };
        self.world.host.set_ahead(ahead);
        self.log_step(format!("the machine's clock is set {ahead:#} ahead"));
    }

    /// Revokes or restores tokens and permissions.
    fn change_permissions(&mut self) {
        let (okta, auth0) = (self.world.okta(), self.world.auth0());
        let what = match self.rng.u8(..9) {
            0 => {
                auth0.revoke_tokens();
                "Auth0's tokens are revoked"
            }
            1 => {
                okta.revoke_token();
                "Okta's token is revoked"
            }
            2 | 3 => {
                okta.restore_token();
                okta.set_role(true, true);
                "Okta's token and role are restored"
            }
            4 => {
                okta.set_role(self.rng.bool(), self.rng.bool());
                "the Okta role is narrowed"
            }
            5 => {
                auth0.set_granted_scope("read:users");
                "Auth0 grants read access only"
            }
            6 => {
                auth0.set_has_session_api(false);
                "Auth0's plan lacks the session API"
            }
            _ => {
                auth0.set_granted_scope(&Auth0Options::default().granted_scope);
                auth0.set_has_session_api(true);
                "Auth0 grants all permissions"
            }
        };
        self.log_step(what.to_owned());
    }

    /// Moves a user out of the scope of our role, or back into it. Okta answers 404 for hidden users, as if they were
    /// deleted. Users who share an address are excluded: the daemon can't keep an account open for a user it can't see.
    fn hide_or_show(&mut self) {
        let Some((id, email)) = self.rng.choice(&self.users).cloned() else { return };
        if self.users.iter().any(|(other, address)| *other != id && address.eq_ignore_ascii_case(&email)) {
            return;
        }
        if self.hidden.remove(&id) {
            self.show(&id);
            self.log_step(format!("{id} is visible again"));
        } else if self.world.okta().user(&id).is_some() {
            self.world.okta().hide(&id);
            self.hidden.insert(id.clone());
            self.log_step(format!("{id} is hidden"));
        }
    }

    fn show(&self, id: &OktaUserId) {
        // Another step may have deleted the user.
        if self.world.okta().user(id).is_some() {
            self.world.okta().show(id);
        }
    }

    fn create_or_delete_account(&mut self) {
        if self.rng.bool() {
            let Some((account, _)) = self.rng.choice(&self.accounts).cloned() else { return };
            self.world.auth0().delete_user(&account);
            self.log_step(format!("the account {account} is deleted"));
        } else {
            let (_, email) = self.rng.choice(&self.users).cloned().unwrap();
            let email = email.to_lowercase();
            let account = self.world.auth0().create_user(json!({ "connection": CONNECTION, "email": email }));
            self.log_step(format!("{email} signs up: {account}"));
            self.accounts.push((account, email));
        }
    }

    fn add_user(&mut self) {
        let (sharer, email) = self.rng.choice(&self.users).cloned().unwrap();
        if self.hidden.contains(&sharer) {
            return;
        }
        let login = format!("login{}", self.users.len());
        let id = self.world.user_called(&login, &email);
        self.log_step(format!("{id} is created as {email}"));
        self.unread.insert(id.clone());
        self.users.push((id, email));
    }

    async fn command(&mut self) {
        let now = self.world.now();
        let (id, _) = self.rng.choice(&self.users).cloned().unwrap();
        let what = match self.rng.u8(..5) {
            0 => {
                self.world.store().request_look(Who::Failed, now).await.unwrap();
                "retry --failed".to_owned()
            }
            1 => {
                self.world.approve_without_a_look(Some(&id)).await;
                format!("approve {id}")
            }
            2 => {
                self.reconcile(Scope::Since(clock::sub(now, 90 * DAY))).await;
                "reconcile".to_owned()
            }
            _ => {
                self.world.store().request_look(Who::User(&id), now).await.unwrap();
                self.world.engine().look_at(std::slice::from_ref(&id)).await.unwrap();
                format!("user {id} --sync")
            }
        };
        self.log_step(what);
    }

    async fn forget(&mut self) {
        let (id, _) = self.rng.choice(&self.users).cloned().unwrap();
        let policy = self.world.options.rules.fingerprint();
        if self.world.store().forget(&id, "a history", &policy, self.world.now()).await.is_ok() {
            self.log_step(format!("forget {id}"));
            self.forgotten.insert(id);
        }
    }

    /// Restarts the program with another configuration.
    async fn change_config(&mut self) {
        let (choice, on) = (self.rng.u8(..3), self.rng.bool());
        self.world
            .restart(|options| match choice {
                0 => options.enforce = on,
                1 => options.rules.mark.block = on,
                _ if on => {
                    options.rules.policy.deny_statuses.insert(Status::Suspended);
                }
                _ => {
                    options.rules.policy.deny_statuses.remove(&Status::Suspended);
                }
            })
            .await;
        let what = ["enforcement", "blocking", "denial of suspended users"][usize::from(choice)];
        self.log_step(format!("{what} is {}", if on { "on" } else { "off" }));
    }

    /// Restores everything that only an operator can restore.
    pub(crate) async fn restore_access(&mut self) {
        let (okta, auth0) = (self.world.okta(), self.world.auth0());
        okta.restore_token();
        okta.set_role(true, true);
        auth0.set_granted_scope(&Auth0Options::default().granted_scope);
        auth0.set_has_session_api(true);
        for id in std::mem::take(&mut self.hidden) {
            self.show(&id);
        }
        // The machine's clock may stay wrong; that must be harmless.
        if self.rng.bool() {
            self.world.host.set_ahead(SignedDuration::ZERO);
        }
        self.world.restart(|options| options.enforce = true).await;
    }

    /// Checks that a purge removes all our marks and blocks, and keeps blocks by other tools.
    pub(crate) async fn check_purge(&mut self) {
        self.log_step("purge".to_owned());
        let before = self.world.auth0().users();
        let stop = CancellationToken::new();
        let planned = self.world.engine().purge(true, &stop, |_| ()).await.unwrap();
        assert_eq!(before, self.world.auth0().users(), "a dry run wrote something");
        let purge = self.world.engine().purge(false, &stop, |_| ()).await.unwrap();
        assert_eq!((&purge.left, &purge.incomplete, purge.freed), (&Vec::new(), &None, planned.freed));
        for was in before {
            let id = was["user_id"].as_str().unwrap();
            let is = self.world.auth0().user(id).unwrap();
            let mark = &is["app_metadata"]["okta_sync"];
            // The state no longer has the lifted marks of forgotten users; they deny no login.
            let is_lifted_for_forgotten =
                self.forgotten.iter().any(|id| mark["okta_user_id"] == id.as_str()) && mark["deactivated"] == "false";
            assert!(mark.is_null() || is_lifted_for_forgotten, "{is:#}");
            let blocked_by_us = was["app_metadata"]["okta_sync"]["blocked"] == true;
            assert_eq!(is["blocked"] == true, was["blocked"] == true && !blocked_by_us, "{was:#}\n{is:#}");
        }
    }
}
