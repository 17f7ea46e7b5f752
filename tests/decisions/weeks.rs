//! Histories of weeks, in which everything goes wrong at once: refusals of every kind, answers that are lost, cut or never
//! end, cursors that are refused, remotes that are gone for days, tokens and roles that are taken away, a machine whose
//! clock is wrong, kills in the middle of a call, other configurations, and all the commands of a person.
//!
//! Nothing here waits: time passes by being set. What is refused is refused by the stand-ins, whose end of a connection is
//! as near as a loopback comes to a network that is down.

use std::time::Duration;

use jiff::SignedDuration;
use okta_auth0_sync::domain::{OktaUserId, Status, clock};
use okta_auth0_sync::engine::reconciler::Scope;
use okta_auth0_sync::store::Who;
use okta_auth0_sync_sandbox::{Auth0Options, Effect, Fault, Faults, Matcher, RateLimited};
use serde_json::json;
use tokio_util::sync::CancellationToken;

use super::history::History;
use super::world::{DAY, HOUR, MINUTE, SECOND};

/// A history does not get older: who has no account is looked for again for 90 days.
const LIFE: Duration = Duration::from_secs(50 * 86_400);
const CONNECTION: &str = "acme-saml";

impl History {
    pub(crate) async fn long_step(&mut self) {
        match self.rng.u8(..100) {
            0..=34 => self.step().await,
            35..=49 => self.days().await,
            50..=62 => self.weather(),
            63..=65 => self.outage(),
            66..=70 => {
                self.say("all faults end".to_owned());
                self.world.okta().faults().clear();
                self.world.auth0().faults().clear();
            }
            71..=73 => self.die().await,
            74..=75 => self.stall().await,
            76..=78 => self.set_the_clock(),
            79..=82 => self.rights(),
            83..=84 => self.hide_or_show(),
            85..=87 => self.accounts_come_and_go(),
            88 => self.hire(),
            89..=93 => self.command().await,
            94..=95 => self.forget().await,
            _ => self.configure().await,
        }
    }

    /// The daemon goes on for a while: seldom compared with a real one, but at every kind of moment.
    async fn days(&mut self) {
        let span = *self.rng.choice(&[6 * HOUR, DAY, 2 * DAY, 7 * DAY]).unwrap();
        if self.lived + span > LIFE {
            return;
        }
        self.lived += span;
        let wakes = self.rng.u32(2..9);
        self.say(format!("{span:?} pass, {wakes} times awake"));
        for _ in 0..wakes {
            self.world.passes(span / wakes);
            self.poll().await;
            self.look_at_all().await;
            if self.rng.u8(..4) == 0 {
                let since = clock::sub(self.world.now(), 90 * DAY);
                self.compare(Scope::Since(since)).await;
                self.look_at_all().await;
            }
        }
    }

    async fn look_at_all(&mut self) {
        for user in self.world.store().due(self.world.now(), 100).await.unwrap() {
            self.world.engine().look_at(&[user.id]).await.unwrap();
        }
    }

    fn faults(&self, of_okta: bool) -> &Faults {
        if of_okta { self.world.okta().faults() } else { self.world.auth0().faults() }
    }

    fn endpoint(&mut self) -> (bool, &'static str, &'static str) {
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

    fn trouble(&mut self) -> Effect {
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

    fn weather(&mut self) {
        let (of_okta, method, path) = self.endpoint();
        let (effect, times, skip) = (self.trouble(), self.rng.u32(1..12), self.rng.u32(..3));
        self.say(format!("{method} {path}, after {skip}, {times} times: {effect:?}"));
        self.faults(of_okta).add(Fault::new(method, path, effect).skip(skip).times(times));
    }

    /// Until the faults end.
    fn outage(&mut self) {
        let of_okta = self.rng.bool();
        let effect = match self.rng.u8(..4) {
            0 => Effect::Status { code: 503, body: json!({}), headers: Vec::new() },
            1 => Effect::AfterEffect(Box::new(Effect::Drop)),
            _ => Effect::Drop,
        };
        self.say(format!("{} is down: {effect:?}", if of_okta { "Okta" } else { "Auth0" }));
        self.faults(of_okta).add(Fault::everywhere(effect));
    }

    /// The process is killed when a remote has done what it was asked for and nobody has heard of it yet.
    async fn die(&mut self) {
        let (of_okta, method, path) = self.endpoint();
        let hold = self.faults(of_okta).hold_answer(Matcher::new(method, path));
        let due = self.world.store().due(self.world.now(), 1).await.unwrap();
        let (engine, polls) = (self.world.engine().clone(), due.is_empty() || path.ends_with("logs"));
        let mut work = tokio::spawn(async move {
            if polls {
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
        self.say(format!("killed, {} {method} {path}", if reached { "behind" } else { "without a" }));
        self.world.restart(|_| ()).await;
        hold.release();
    }

    /// An answer begins and does not end.
    async fn stall(&mut self) {
        let (of_okta, method, path) = self.endpoint();
        self.say(format!("the answer to {method} {path} stalls"));
        let fault = self.faults(of_okta).add(Fault::new(method, path, Effect::StallBody).times(1));
        let due = self.world.store().due(self.world.now(), 1).await.unwrap();
        let (engine, polls) = (self.world.engine().clone(), due.is_empty() || path.ends_with("logs"));
        let journal = if of_okta { self.world.okta().journal() } else { self.world.auth0().journal() };
        let before = journal.total();
        let mut work = tokio::spawn(async move {
            if polls {
                let _ = engine.poll(&CancellationToken::new()).await;
            } else {
                engine.look_at(&[due[0].id.clone()]).await.unwrap();
            }
        });
        let struck = journal.wait_for(|requests| {
            requests.iter().any(|request| {
                request.number >= before
                    && request.method == method
                    && request.path.starts_with(path)
                    && request.status.is_some()
            })
        });
        let stalls = tokio::select! {
            () = struck => true,
            ended = &mut work => {
                ended.unwrap();
                false
            }
        };
        if stalls {
            // Longer than any answer may take, without anybody's waiting.
            tokio::time::pause();
            tokio::time::advance(46 * SECOND).await;
            tokio::time::resume();
            work.await.unwrap();
        }
        self.faults(of_okta).remove(fault);
    }

    /// Somebody, or NTP, sets the machine's clock.
    fn set_the_clock(&mut self) {
        let span = *self.rng.choice(&[Duration::ZERO, MINUTE, HOUR, 3 * HOUR, DAY, 12 * DAY]).unwrap();
        let ahead = SignedDuration::try_from(span).unwrap();
        let ahead = if self.rng.bool() { ahead } else { -ahead };
        self.world.host.set_ahead(ahead);
        self.say(format!("the machine's clock is set {ahead:#} ahead"));
    }

    /// Tokens and rights are taken away and given back.
    fn rights(&mut self) {
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
                "Okta's token and role are whole"
            }
            4 => {
                okta.set_role(self.rng.bool(), self.rng.bool());
                "the role in Okta is narrowed"
            }
            5 => {
                auth0.set_granted_scope("read:users");
                "Auth0 lets us read only"
            }
            6 => {
                auth0.set_has_session_api(false);
                "Auth0's plan has no sessions"
            }
            _ => {
                auth0.set_granted_scope(&Auth0Options::default().granted_scope);
                auth0.set_has_session_api(true);
                "Auth0 lets us do everything"
            }
        };
        self.say(what.to_owned());
    }

    /// Somebody leaves what our role reaches, and comes back into it: Okta answers as if they had been deleted. Not who
    /// shares an address: whom we cannot see we cannot spare a colleague's account for.
    fn hide_or_show(&mut self) {
        let Some((id, email)) = self.rng.choice(&self.people).cloned() else { return };
        if self.people.iter().any(|(other, address)| *other != id && address.eq_ignore_ascii_case(&email)) {
            return;
        }
        if self.hidden.remove(&id) {
            self.show(&id);
            self.say(format!("{id} can be seen again"));
        } else if self.world.okta().user(&id).is_some() {
            self.world.okta().hide(&id);
            self.hidden.insert(id.clone());
            self.say(format!("{id} cannot be seen"));
        }
    }

    fn show(&self, id: &OktaUserId) {
        // They may have been deleted meanwhile.
        if self.world.okta().user(id).is_some() {
            self.world.okta().show(id);
        }
    }

    fn accounts_come_and_go(&mut self) {
        if self.rng.bool() {
            let Some((account, _)) = self.rng.choice(&self.accounts).cloned() else { return };
            self.world.auth0().delete_user(&account);
            self.say(format!("the account {account} is deleted"));
        } else {
            let (_, email) = self.rng.choice(&self.people).cloned().unwrap();
            let email = email.to_lowercase();
            let account = self.world.auth0().create_user(json!({ "connection": CONNECTION, "email": email }));
            self.say(format!("{email} signs up: {account}"));
            self.accounts.push((account, email));
        }
    }

    fn hire(&mut self) {
        let (colleague, email) = self.rng.choice(&self.people).cloned().unwrap();
        if self.hidden.contains(&colleague) {
            return;
        }
        let login = format!("login{}", self.people.len());
        let id = self.world.person_called(&login, &email);
        self.say(format!("{id} is new, and {email} as well"));
        self.unread.insert(id.clone());
        self.people.push((id, email));
    }

    async fn command(&mut self) {
        let now = self.world.now();
        let (id, _) = self.rng.choice(&self.people).cloned().unwrap();
        let what = match self.rng.u8(..5) {
            0 => {
                self.world.store().request_look(Who::Failed, now).await.unwrap();
                "retry --failed".to_owned()
            }
            1 => {
                self.world.store().approve(Who::User(&id), now).await.unwrap();
                format!("approve {id}")
            }
            2 => {
                self.compare(Scope::Since(clock::sub(now, 90 * DAY))).await;
                "reconcile".to_owned()
            }
            _ => {
                self.world.store().request_look(Who::User(&id), now).await.unwrap();
                self.world.engine().look_at(std::slice::from_ref(&id)).await.unwrap();
                format!("user {id} --sync")
            }
        };
        self.say(what);
    }

    async fn forget(&mut self) {
        let (id, _) = self.rng.choice(&self.people).cloned().unwrap();
        let policy = self.world.options.rules.policy.fingerprint();
        if self.world.store().forget(&id, "a history", &policy, self.world.now()).await.is_ok() {
            self.say(format!("forget {id}"));
            self.forgotten.insert(id);
        }
    }

    /// The program is started again with another configuration.
    async fn configure(&mut self) {
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
        let what = ["enforcement", "blocking", "denial of the suspended"][usize::from(choice)];
        self.say(format!("{what} is {}", if on { "on" } else { "off" }));
    }

    /// All that a person has to mend is mended.
    pub(crate) async fn mend(&mut self) {
        let (okta, auth0) = (self.world.okta(), self.world.auth0());
        okta.restore_token();
        okta.set_role(true, true);
        auth0.set_granted_scope(&Auth0Options::default().granted_scope);
        auth0.set_has_session_api(true);
        for id in std::mem::take(&mut self.hidden) {
            self.show(&id);
        }
        // The machine's clock may stay wrong: that has to do no harm.
        if self.rng.bool() {
            self.world.host.set_ahead(SignedDuration::ZERO);
        }
        self.world.restart(|options| options.enforce = true).await;
    }

    /// Before the program is removed: no mark is left, no block of ours, and everybody else's.
    pub(crate) async fn check_that_a_purge_leaves_nothing(&mut self) {
        self.say("purge".to_owned());
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
            // What was lifted for somebody who was forgotten since is in no state, and denies nobody.
            let lifted_for_nobody_known =
                self.forgotten.iter().any(|id| mark["okta_user_id"] == id.as_str()) && mark["deactivated"] == "false";
            assert!(mark.is_null() || lifted_for_nobody_known, "{is:#}");
            let lifted = was["app_metadata"]["okta_sync"]["blocked"] == true;
            assert_eq!(is["blocked"] == true, was["blocked"] == true && !lifted, "{was:#}\n{is:#}");
        }
    }
}
