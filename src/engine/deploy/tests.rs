//! Deployments to the sandbox's tenant.

use std::sync::Arc;

use serde_json::{Value, json};

use super::*;
use crate::auth0::{ACTION_NAME, ACTION_SOURCE, Auth0Options, Credentials, ShippedAction};
use crate::domain::ManualClock;
use crate::domain::mark::MetadataKeys;
use crate::http::pacing::Shares;
use crate::http::{Http, HttpOptions};
use okta_auth0_sync_sandbox::{Effect, Fault, Options, Sandbox};

const OTHER: &str = "exports.onExecutePostLogin = async () => {};";

struct Stage {
    sandbox: Sandbox,
    clock: Arc<ManualClock>,
    auth0: Auth0,
    pacer: Pacer,
    shipped: ShippedAction,
}

impl Stage {
    /// A tenant in which two other Actions are bound, and ours does not exist.
    async fn new() -> Self {
        let clock = Arc::new(ManualClock::stepping("2026-11-23T10:00:00Z".parse().unwrap()));
        let sandbox = Sandbox::start(Options::with_manual_clock(clock.clone()), ACTION_SOURCE).await.unwrap();
        let tenant = sandbox.auth0();
        let credentials =
            Credentials::Secret { client_id: tenant.client_id(), client_secret: tenant.client_secret().into() };
        let options = Auth0Options {
            url: tenant.url().parse().unwrap(),
            audience: tenant.audience(),
            credentials,
            keys: MetadataKeys::only("okta_sync"),
        };
        let pacer = Pacer::auth0(Shares { ours: 0.8, reconcile: 0.25 });
        let http = Http::new(&HttpOptions { user_agent: "test".to_owned(), ..HttpOptions::default() }).unwrap();
        let auth0 = Auth0::new(options, http, Arc::new(pacer.clone()), clock.clone());
        assert!(tenant.action().remove(ACTION_NAME));
        for name in ["enrich", "welcome"] {
            tenant.action().install(name, OTHER);
            tenant.action().place(name, Some(99));
        }
        Self { sandbox, clock, auth0, pacer, shipped: ShippedAction::new("gone", "okta_sync") }
    }

    fn deployment(&self) -> Deployment<'_> {
        Deployment::new(&self.auth0, &self.pacer, self.clock.as_ref(), &self.shipped)
    }

    async fn deploy(&self) -> Result<Standing, DeploymentError> {
        let deployment = self.deployment();
        let found = deployment.look().await?;
        deployment.carry_out(&found, |_| ()).await
    }

    fn flow(&self) -> Vec<String> {
        self.sandbox.auth0().action().flow()
    }

    /// The number of writing requests.
    fn writes(&self) -> usize {
        let requests = self.sandbox.auth0().journal().requests();
        requests.iter().filter(|request| request.method != "GET" && request.path.contains("/actions/")).count()
    }

    fn login_of_marked(&self) -> okta_auth0_sync_sandbox::Login {
        let tenant = self.sandbox.auth0();
        let user = tenant.create_user(json!({
            "email": "ann@example.com", "app_metadata": { "okta_sync": { "deactivated": "true" } },
        }));
        tenant.login(&user)
    }
}

fn refuse((method, path): (&str, &str), times: u32, code: u16, message: &str) -> Fault {
    let body = json!({ "statusCode": code, "error": "x", "message": message });
    Fault::new(method, path, Effect::Status { code, body, headers: Vec::new() }).times(times)
}

#[tokio::test]
async fn deploys_and_binds_then_changes_nothing() {
    let stage = Stage::new().await;
    assert!(stage.login_of_marked().is_granted());
    let steps = std::sync::Mutex::new(Vec::new());
    let deployment = stage.deployment();
    let found = deployment.look().await.unwrap();
    let now = deployment.carry_out(&found, |step| steps.lock().unwrap().push(step.to_owned())).await.unwrap();
    assert!(now.is_verified() && now.conditions().iter().all(|one| one.holds), "{now:?}");
    assert_eq!(steps.into_inner().unwrap().len(), 3);
    assert_eq!(stage.flow(), [ACTION_NAME, "enrich", "welcome"]);
    let tenant = stage.sandbox.auth0();
    let ann = tenant.create_user(json!({
        "email": "ann2@example.com", "app_metadata": { "okta_sync": { "deactivated": "true" } },
    }));
    assert_eq!(tenant.login(&ann), okta_auth0_sync_sandbox::Login::Denied { reason: "gone".to_owned() });

    let writes = stage.writes();
    let again = stage.deployment().look().await.unwrap();
    assert_eq!(again.steps(), []);
    stage.deploy().await.unwrap();
    assert_eq!(stage.writes(), writes, "a second run writes nothing");
}

#[tokio::test]
async fn other_code_is_replaced_and_moved_first() {
    let stage = Stage::new().await;
    let action = stage.sandbox.auth0().action();
    action.install(ACTION_NAME, OTHER);
    action.place(ACTION_NAME, Some(1));
    assert_eq!(stage.flow(), ["enrich", ACTION_NAME, "welcome"]);
    let before: Vec<Bound> = stage.auth0.flow().await.unwrap();
    assert!(stage.deploy().await.unwrap().is_verified());
    assert_eq!(stage.flow(), [ACTION_NAME, "enrich", "welcome"]);
    let after = stage.auth0.flow().await.unwrap();
    assert_eq!(after, [1, 0, 2].map(|at: usize| before[at].clone()), "the same bindings, in another order");
}

#[tokio::test]
async fn early_late_and_lost_answers_are_waited_out() {
    let stage = Stage::new().await;
    let faults = stage.sandbox.auth0().faults();
    let actions = "/api/v2/actions/actions/";
    faults.add(refuse(("GET", actions), 2, 503, "later"));
    faults.add(refuse(("POST", actions), 2, 400, "A draft must be in the 'built' state before it can be deployed."));
    faults.add(refuse(("POST", actions), 1, 503, "later").skip(2));
    let bindings = ("PATCH", "/api/v2/actions/triggers/");
    faults.add(refuse(bindings, 3, 400, "Trying to create a binding for an action that has not been deployed."));
    assert!(stage.deploy().await.unwrap().is_verified());
    assert_eq!(stage.flow(), [ACTION_NAME, "enrich", "welcome"]);
}

#[tokio::test]
async fn deployment_times_out_and_resumes_later() {
    let stage = Stage::new().await;
    let began = stage.clock.monotonic();
    let deploy = ("POST", "/api/v2/actions/actions/");
    let fault = stage.sandbox.auth0().faults().add(refuse(deploy, 999, 400, "not built"));
    let error = stage.deploy().await.unwrap_err();
    assert!(matches!(error, DeploymentError::TooSlow("the build")), "{error}");
    let took = stage.clock.monotonic() - began;
    assert!(took >= PATIENCE && took < PATIENCE * 2, "{took:?}");
    let asked = stage.sandbox.auth0().journal().count(deploy.0, deploy.1);
    assert!(asked < 40, "{asked} times: the interval grows");
    stage.sandbox.auth0().faults().remove(fault);
    assert!(stage.deploy().await.unwrap().is_verified());
}

#[tokio::test]
async fn late_deployment_is_requested_once() {
    let stage = Stage::new().await;
    let action = stage.deploy().await.unwrap().action.unwrap();
    let before = Action { all_changes_deployed: false, ..action };
    let stale = json!({ "id": before.id, "name": ACTION_NAME, "code": stage.shipped.code, "status": "built" });
    let path = "/api/v2/actions/actions/";
    let fault = Fault::new("GET", path, Effect::ReplaceBody(stale.to_string().into_bytes()));
    for (times, shows) in [(3, true), (999, false)] {
        let fault = stage.sandbox.auth0().faults().add(fault.clone().times(times));
        stage.sandbox.auth0().journal().clear();
        let deployed = stage.deployment().deploy(before.clone()).await;
        assert!(if shows {
            deployed.is_ok()
        } else {
            matches!(deployed, Err(DeploymentError::TooSlow("the deployment")))
        });
        assert_eq!(stage.sandbox.auth0().journal().count("POST", path), 1);
        stage.sandbox.auth0().faults().remove(fault);
    }
}

#[tokio::test]
async fn build_failure_and_taken_name_are_reported() {
    let mut stage = Stage::new().await;
    stage.shipped.code = "not javascript {".to_owned();
    assert!(matches!(stage.deploy().await.unwrap_err(), DeploymentError::BuildFailed));
    assert_eq!(stage.flow(), ["enrich", "welcome"], "the other Actions stay bound");

    let stage = Stage::new().await;
    let taken = refuse(("POST", "/api/v2/actions/actions"), 1, 409, "An action with the name exists");
    stage.sandbox.auth0().faults().add(taken);
    assert!(matches!(stage.deploy().await.unwrap_err(), DeploymentError::NameTaken(_)));
}

#[tokio::test]
async fn full_flow_fails_before_any_write() {
    let stage = Stage::new().await;
    for number in 2..BOUND_MAX {
        let name = format!("more-{number}");
        stage.sandbox.auth0().action().install(&name, OTHER);
        stage.sandbox.auth0().action().place(&name, Some(99));
    }
    assert_eq!(stage.flow().len(), BOUND_MAX);
    assert!(matches!(stage.deploy().await.unwrap_err(), DeploymentError::Full));
    assert_eq!(stage.writes(), 0);
}

#[tokio::test]
async fn last_free_position_of_flow_is_used() {
    let stage = Stage::new().await;
    for number in 2..BOUND_MAX - 1 {
        let name = format!("more-{number}");
        stage.sandbox.auth0().action().install(&name, OTHER);
        stage.sandbox.auth0().action().place(&name, Some(99));
    }
    assert_eq!(stage.flow().len(), BOUND_MAX - 1);
    assert!(stage.deploy().await.unwrap().is_verified());
    assert_eq!(stage.flow().len(), BOUND_MAX);
}

#[tokio::test]
async fn concurrent_flow_write_is_detected() {
    let stage = Stage::new().await;
    let flow = json!({ "bindings": [], "total": 0 }).to_string().into_bytes();
    let bindings = ("GET", "/api/v2/actions/triggers/post-login");
    // The third read, after the write, shows a flow that another tool has emptied.
    stage.sandbox.auth0().faults().add(Fault::new(bindings.0, bindings.1, Effect::ReplaceBody(flow)).skip(2).times(1));
    assert!(matches!(stage.deploy().await.unwrap_err(), DeploymentError::Overwritten));
}

#[tokio::test]
async fn flow_listing_without_id_is_refused() {
    let stage = Stage::new().await;
    let flow: Value = json!({ "bindings": [{ "id": "b1", "display_name": "enrich" }] });
    let bindings = ("GET", "/api/v2/actions/triggers/post-login");
    let fault = Fault::new(bindings.0, bindings.1, Effect::ReplaceBody(flow.to_string().into_bytes()));
    stage.sandbox.auth0().faults().add(fault);
    let failure = stage.deployment().look().await.unwrap_err();
    assert_eq!(failure.kind, Kind::Malformed, "{failure}");
}

#[tokio::test]
async fn lasting_refusal_fails_at_once() {
    let read = ("GET", "/api/v2/actions/actions/");
    for step in [("POST", "/api/v2/actions/actions/"), read, ("PATCH", "/api/v2/actions/triggers/")] {
        let stage = Stage::new().await;
        let faults = stage.sandbox.auth0().faults();
        faults.add(refuse(step, 1_000_000, 403, "Insufficient scope"));
        let error = stage.deploy().await.unwrap_err();
        assert!(matches!(&error, DeploymentError::Failed(failure) if failure.status == Some(403)), "{step:?}: {error}");
        assert_eq!(stage.sandbox.auth0().journal().count(step.0, step.1), 1, "asked once: {step:?}");
        assert!(!stage.flow().contains(&ACTION_NAME.to_owned()));
    }
}

#[test]
fn flow_check_wants_ours_first_and_others_in_order() {
    let bound =
        |id: &str| Bound { binding_id: format!("b-{id}"), display_name: id.to_owned(), action_id: id.to_owned() };
    let flow = |ids: &[&str]| -> Vec<Bound> { ids.iter().map(|id| bound(id)).collect() };
    let ours = Action {
        id: "ours".to_owned(),
        name: ACTION_NAME.to_owned(),
        code: String::new(),
        runtime: None,
        trigger_version: None,
        build: Build::Built,
        all_changes_deployed: true,
        deployed_code: None,
    };
    let before = flow(&["a", "ours", "b"]);
    assert!(is_kept(&before, &flow(&["ours", "a", "b"]), &ours));
    for after in
        [&["a", "ours", "b"][..], &["a", "b"], &["ours", "b", "a"], &["ours", "a"], &["ours", "a", "b", "c"], &[]]
    {
        assert!(!is_kept(&before, &flow(after), &ours), "{after:?}");
    }
}
