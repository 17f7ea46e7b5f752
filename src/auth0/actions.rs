//! Actions: their drafts, builds and deployments, and the post-login flow to which they are bound.
//!
//! Auth0 builds a draft asynchronously, refuses to deploy a draft before it is built, responds to a deployment before
//! it is complete, and replaces the whole flow at each write (Auth0 docs: Management API, Actions;
//! auth0/auth0-deploy-cli issues 385, 395, 524). Each function here is one call; the engine orders the calls and waits
//! between them.

use std::borrow::Cow;

use reqwest::Method;
use serde::{Deserialize, Serialize};
use serde_json::value::to_raw_value;
use url::{Url, form_urlencoded};

use super::endpoints::{ACTION, ACTIONS, BIND, BINDINGS, CREATE_ACTION, DEPLOY_ACTION, TRIGGERS, UPDATE_ACTION};
use super::{Answer, Auth0, Endpoint, Failure};
use crate::http::lenient;

/// The trigger of logins, silent logins, refreshes and token exchanges.
const TRIGGER: &str = "post-login";
/// The page size of a listing; no recorded response has more than 50 entries.
const PER_PAGE: usize = 50;
/// A tenant has at most 100 Actions, a trigger at most 20 of them (Auth0 docs: Entity Limit Policy).
const PAGES_MAX: usize = 10;

/// Maximum number of Actions bound to a trigger (Auth0 docs: Entity Limit Policy).
pub const BOUND_MAX: usize = 20;

/// The progress of a draft's build.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Build {
    /// In progress or being retried; also any unknown word.
    UnderWay,
    /// Built: the draft can be deployed.
    Built,
    /// Failed.
    Failed,
}

/// An Action. The code is public by nature: it holds no secret.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Action {
    /// Its id in Auth0.
    pub id: String,
    /// Its name, unique in the tenant.
    pub name: String,
    /// The draft.
    pub code: String,
    /// The version of Node.js, in Auth0's spelling: `node22`.
    pub runtime: Option<String>,
    /// The version of the trigger that it is written for, e.g. `v3`.
    pub trigger_version: Option<String>,
    /// The build of the draft.
    pub build: Build,
    /// Whether the draft is deployed.
    pub all_changes_deployed: bool,
    /// The deployed version, if there is one.
    pub deployed_code: Option<String>,
}

/// An Action in the flow.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Bound {
    /// The id of the binding.
    pub binding_id: String,
    /// The display name of the binding.
    pub display_name: String,
    /// The bound Action.
    pub action_id: String,
}

/// A binding to write.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Place {
    /// An existing binding, by its id.
    Kept(Bound),
    /// A new binding for this Action.
    New {
        /// The id of the Action.
        action_id: String,
        /// The display name of the binding.
        display_name: String,
    },
}

/// The current version of the trigger, and its runtimes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Trigger {
    /// E.g. `v3`.
    pub version: String,
    /// The runtimes that Auth0 offers for it, e.g. `node22`.
    pub runtimes: Vec<String>,
    /// The runtime to use.
    pub runtime: String,
}

#[derive(Deserialize)]
struct WireAction {
    #[serde(default, deserialize_with = "lenient::text")]
    id: Option<String>,
    #[serde(default, deserialize_with = "lenient::text")]
    name: Option<String>,
    #[serde(default, deserialize_with = "lenient::text")]
    code: Option<String>,
    #[serde(default, deserialize_with = "lenient::text")]
    runtime: Option<String>,
    #[serde(default, deserialize_with = "lenient::text")]
    status: Option<String>,
    #[serde(default, deserialize_with = "lenient::shape")]
    all_changes_deployed: bool,
    deployed_version: Option<WireVersion>,
    #[serde(default, deserialize_with = "lenient::list")]
    supported_triggers: Vec<WireTrigger>,
}

#[derive(Deserialize)]
struct WireVersion {
    #[serde(default, deserialize_with = "lenient::text")]
    code: Option<String>,
}

#[derive(Deserialize)]
struct WireTrigger {
    #[serde(default, deserialize_with = "lenient::text")]
    id: Option<String>,
    #[serde(default, deserialize_with = "lenient::text")]
    version: Option<String>,
    #[serde(default, deserialize_with = "lenient::text")]
    status: Option<String>,
    #[serde(default, deserialize_with = "lenient::list")]
    runtimes: Vec<String>,
    #[serde(default, deserialize_with = "lenient::text")]
    default_runtime: Option<String>,
}

#[derive(Deserialize)]
struct WireBinding {
    #[serde(default, deserialize_with = "lenient::text")]
    id: Option<String>,
    #[serde(default, deserialize_with = "lenient::text")]
    display_name: Option<String>,
    action: Option<WireBoundAction>,
}

#[derive(Deserialize)]
struct WireBoundAction {
    #[serde(default, deserialize_with = "lenient::text")]
    id: Option<String>,
}

#[derive(Deserialize)]
struct Actions {
    actions: Vec<WireAction>,
}

#[derive(Deserialize)]
struct Bindings {
    bindings: Vec<WireBinding>,
}

#[derive(Deserialize)]
struct Triggers {
    triggers: Vec<WireTrigger>,
}

#[derive(Serialize)]
struct Draft<'a> {
    #[serde(skip_serializing_if = "Option::is_none")]
    name: Option<&'a str>,
    code: &'a str,
    runtime: &'a str,
    supported_triggers: [DraftTrigger<'a>; 1],
}

#[derive(Serialize)]
struct DraftTrigger<'a> {
    id: &'static str,
    version: &'a str,
}

#[derive(Serialize)]
struct Flow<'a> {
    bindings: Vec<FlowPlace<'a>>,
}

#[derive(Serialize)]
struct FlowPlace<'a> {
    #[serde(rename = "ref")]
    reference: Reference<'a>,
    display_name: &'a str,
}

#[derive(Serialize)]
struct Reference<'a> {
    #[serde(rename = "type")]
    kind: &'static str,
    value: &'a str,
}

impl WireAction {
    fn read(self) -> Result<Action, String> {
        let id = self.id.filter(|id| !id.is_empty()).ok_or("an Action without an id")?;
        let code = self.code.unwrap_or_default();
        // A response may omit the code of a version that is the same as the draft.
        let deployed_code = self.deployed_version.and_then(|version| version.code);
        let deployed_code = deployed_code.or_else(|| self.all_changes_deployed.then(|| code.clone()));
        let trigger = self.supported_triggers.into_iter().find(|trigger| trigger.id.as_deref() == Some(TRIGGER));
        Ok(Action {
            id,
            name: self.name.unwrap_or_default(),
            runtime: self.runtime,
            trigger_version: trigger.and_then(|trigger| trigger.version),
            build: match self.status.as_deref() {
                Some("built") => Build::Built,
                Some("failed") => Build::Failed,
                _ => Build::UnderWay,
            },
            all_changes_deployed: self.all_changes_deployed,
            deployed_code,
            code,
        })
    }
}

impl Auth0 {
    /// All Actions for `post-login`.
    ///
    /// # Errors
    /// Classified.
    pub async fn actions(&self) -> Result<Vec<Action>, Failure> {
        let mut url = self.address("/api/v2/actions/actions");
        url.query_pairs_mut().append_pair("triggerId", TRIGGER);
        let mut all = Vec::new();
        for page in 0..PAGES_MAX {
            let answer = self.page(ACTIONS, url.clone(), page).await?;
            let listed: Actions = read(&answer, "the body is not a list of Actions")?;
            let count = listed.actions.len();
            for action in listed.actions {
                all.push(action.read().map_err(|why| answer.malformed(why))?);
            }
            if count < PER_PAGE {
                return Ok(all);
            }
        }
        Err(ACTIONS.malformed("the list of Actions does not end"))
    }

    /// The Action with this id.
    ///
    /// # Errors
    /// Classified.
    pub async fn action(&self, id: &str) -> Result<Action, Failure> {
        let url = self.action_address(ACTION, id, "")?;
        self.action_of(self.call(ACTION, Method::GET, url, None).await?)
    }

    /// Creates an Action as a draft and starts its build.
    ///
    /// # Errors
    /// Classified; [`crate::http::Kind::Rejected`] (409) if the name is taken.
    pub async fn create_action(&self, name: &str, code: &str, trigger: &Trigger) -> Result<Action, Failure> {
        let body = draft(CREATE_ACTION, Some(name), code, trigger)?;
        let url = self.address("/api/v2/actions/actions");
        self.action_of(self.call(CREATE_ACTION, Method::POST, url, Some(&body)).await?)
    }

    /// Writes the draft of an Action, which starts a new build. The deployed version does not change.
    ///
    /// # Errors
    /// Classified.
    pub async fn update_action(&self, id: &str, code: &str, trigger: &Trigger) -> Result<Action, Failure> {
        let body = draft(UPDATE_ACTION, None, code, trigger)?;
        let url = self.action_address(UPDATE_ACTION, id, "")?;
        self.action_of(self.call(UPDATE_ACTION, Method::PATCH, url, Some(&body)).await?)
    }

    /// Deploys the draft. The response does not say whether it runs yet: read the Action to find out.
    ///
    /// # Errors
    /// Classified; [`crate::http::Kind::Rejected`] (400) while the draft is not built.
    pub async fn deploy_action(&self, id: &str) -> Result<(), Failure> {
        let url = self.action_address(DEPLOY_ACTION, id, "/deploy")?;
        let answer = self.call(DEPLOY_ACTION, Method::POST, url, None).await?;
        answer.success(self.clock.as_ref()).map(drop)
    }

    /// The post-login flow, in order.
    ///
    /// # Errors
    /// Classified.
    pub async fn flow(&self) -> Result<Vec<Bound>, Failure> {
        let url = self.address("/api/v2/actions/triggers/post-login/bindings");
        let mut all = Vec::new();
        for page in 0..PAGES_MAX {
            let answer = self.page(BINDINGS, url.clone(), page).await?;
            let listed: Bindings = read(&answer, "the body is not a list of bindings")?;
            let count = listed.bindings.len();
            for binding in listed.bindings {
                let id = binding.id.filter(|id| !id.is_empty());
                let action_id = binding.action.and_then(|action| action.id);
                // The next write would unbind an Action that is missing here.
                let (Some(binding_id), Some(action_id)) = (id, action_id) else {
                    return Err(answer.malformed("a binding without an id or an Action"));
                };
                let display_name = binding.display_name.unwrap_or_default();
                all.push(Bound { binding_id, display_name, action_id });
            }
            if count < PER_PAGE {
                return Ok(all);
            }
        }
        Err(BINDINGS.malformed("the list of bindings does not end"))
    }

    /// Replaces the post-login flow: Auth0 unbinds Actions that are not named. Auth0 does not detect concurrent writes,
    /// so read the flow right before and right after.
    ///
    /// # Errors
    /// Classified; [`crate::http::Kind::Rejected`] (400) also for a while after an Action was deployed for the first time.
    pub async fn set_flow(&self, places: &[Place]) -> Result<(), Failure> {
        let bindings = places
            .iter()
            .map(|place| {
                let (kind, value, display_name) = match place {
                    Place::Kept(bound) => ("binding_id", &bound.binding_id, &bound.display_name),
                    Place::New { action_id, display_name } => ("action_id", action_id, display_name),
                };
                FlowPlace { reference: Reference { kind, value }, display_name }
            })
            .collect();
        let body = to_raw_value(&Flow { bindings }).map_err(|error| unwritable(BIND, &error))?;
        let url = self.address("/api/v2/actions/triggers/post-login/bindings");
        let answer = self.call(BIND, Method::PATCH, url, Some(&body)).await?;
        answer.success(self.clock.as_ref()).map(drop)
    }

    /// The version of `post-login` that Auth0 marks as current. If a request names none, Auth0 uses a default that may
    /// be older than the versions it still runs.
    ///
    /// # Errors
    /// Classified.
    pub async fn post_login(&self) -> Result<Trigger, Failure> {
        let url = self.address("/api/v2/actions/triggers");
        let answer = self.call(TRIGGERS, Method::GET, url, None).await?;
        let answer = answer.success(self.clock.as_ref())?;
        let listed: Triggers = read(&answer, "the body is not a list of triggers")?;
        let current = listed.triggers.into_iter().find(|trigger| {
            trigger.id.as_deref() == Some(TRIGGER)
                && trigger.status.as_deref().is_some_and(|status| status.eq_ignore_ascii_case("CURRENT"))
        });
        let current = current.ok_or_else(|| answer.malformed("no current version of post-login"))?;
        let runtimes = current.runtimes;
        let runtime = current.default_runtime.filter(|runtime| runtimes.contains(runtime));
        match (current.version, runtime.or_else(|| runtimes.last().cloned())) {
            (Some(version), Some(runtime)) => Ok(Trigger { version, runtimes, runtime }),
            _ => Err(answer.malformed("post-login without a version or a runtime")),
        }
    }

    async fn page(&self, endpoint: Endpoint, mut url: Url, page: usize) -> Result<Answer, Failure> {
        url.query_pairs_mut().append_pair("page", &page.to_string()).append_pair("per_page", &PER_PAGE.to_string());
        self.call(endpoint, Method::GET, url, None).await?.success(self.clock.as_ref())
    }

    fn action_of(&self, answer: Answer) -> Result<Action, Failure> {
        let answer = answer.success(self.clock.as_ref())?;
        let action: WireAction = read(&answer, "the body is not an Action")?;
        action.read().map_err(|why| answer.malformed(why))
    }

    fn action_address(&self, endpoint: Endpoint, id: &str, below: &str) -> Result<Url, Failure> {
        if matches!(id, "" | "." | "..") {
            return Err(endpoint.rejected("not a valid Action id"));
        }
        let segment: String = form_urlencoded::byte_serialize(id.as_bytes()).collect();
        Ok(self.address(&format!("/api/v2/actions/actions/{}{below}", segment.replace('+', "%20"))))
    }
}

fn draft(
    endpoint: Endpoint,
    name: Option<&str>,
    code: &str,
    trigger: &Trigger,
) -> Result<Box<serde_json::value::RawValue>, Failure> {
    let supported_triggers = [DraftTrigger { id: TRIGGER, version: &trigger.version }];
    to_raw_value(&Draft { name, code, runtime: &trigger.runtime, supported_triggers })
        .map_err(|error| unwritable(endpoint, &error))
}

fn unwritable(endpoint: Endpoint, error: &serde_json::Error) -> Failure {
    endpoint.rejected(error.to_string())
}

fn read<T: for<'a> Deserialize<'a>>(answer: &Answer, otherwise: &'static str) -> Result<T, Failure> {
    let text: Cow<'_, str> = String::from_utf8_lossy(&answer.body);
    serde_json::from_str(&text).map_err(|_| answer.malformed(otherwise))
}
