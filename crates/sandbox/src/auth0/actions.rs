//! `/api/v2/actions/…`: Actions, their builds and deployments, and the flow of the post-login trigger.
//!
//! Written after recordings of go-auth0, terraform-provider-auth0 and auth0-deploy-cli.

use std::collections::BTreeMap;

use serde_json::{Value, json};

use crate::identifiers::Identifiers;
use crate::message::{Inbound, Reply};
use okta_auth0_sync_clock::{Timestamp, timestamp_text};

use super::login;
use super::problem::Problem;

/// The name of the Action whose code [`Sandbox::start`](crate::Sandbox::start) takes.
pub(super) const ACTION_NAME: &str = "okta-auth0-sync";
/// The most Actions of a trigger. Auth0 docs: "Entity limit policy".
const BOUND_MAX: usize = 20;
const PER_PAGE_DEFAULT: usize = 20;
const TRIGGER: &str = "post-login";

/// The progress of a build. Each request for it advances it by one step.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Build {
    Pending,
    Building,
    Built,
    Retrying,
    Failed,
}

impl Build {
    fn name(self) -> &'static str {
        match self {
            Self::Pending => "pending",
            Self::Building => "building",
            Self::Built => "built",
            Self::Retrying => "retrying",
            Self::Failed => "failed",
        }
    }
}

#[derive(Clone, Debug)]
struct Deployed {
    version_id: String,
    number: u32,
    code: String,
    at: Timestamp,
}

#[derive(Clone, Debug)]
struct Action {
    id: String,
    name: String,
    supported_triggers: Value,
    code: String,
    runtime: String,
    dependencies: Value,
    secret_names: Vec<String>,
    build: Build,
    built_at: Option<Timestamp>,
    deploy_when_built: bool,
    deployed: Option<Deployed>,
    created_at: Timestamp,
    updated_at: Timestamp,
}

#[derive(Clone, Debug)]
struct Binding {
    id: String,
    action_id: String,
    display_name: String,
    at: Timestamp,
}

/// The Actions of the tenant and the post-login flow.
#[derive(Debug, Default)]
pub(super) struct Actions {
    /// In order of creation: ids are UUIDs, so the key is a sequence number.
    actions: BTreeMap<u64, Action>,
    created: u64,
    bound: Vec<Binding>,
}

impl Action {
    fn step(&mut self, ids: &mut Identifiers, now: Timestamp) {
        self.build = match self.build {
            Build::Pending => Build::Building,
            Build::Building if login::compiles(&self.code) => {
                self.built_at = Some(now);
                Build::Built
            }
            Build::Building => Build::Retrying,
            Build::Retrying => Build::Failed,
            done => done,
        };
        if self.build == Build::Built && self.deploy_when_built {
            self.deploy_when_built = false;
            self.deploy(ids, now);
        }
    }

    fn deploy(&mut self, ids: &mut Identifiers, now: Timestamp) {
        let number = self.deployed.as_ref().map_or(0, |deployed| deployed.number) + 1;
        self.deployed = Some(Deployed { version_id: ids.uuid(), number, code: self.code.clone(), at: now });
    }

    fn all_changes_deployed(&self) -> bool {
        self.deployed.as_ref().is_some_and(|deployed| deployed.code == self.code)
    }

    fn base(&self) -> Value {
        json!({
            "id": self.id,
            "name": self.name,
            "supported_triggers": self.supported_triggers,
            "created_at": timestamp_text(self.created_at),
            "updated_at": timestamp_text(self.updated_at),
            "all_changes_deployed": self.all_changes_deployed(),
            "installed_integration_id": null,
        })
    }

    fn json(&self) -> Value {
        let secrets: Vec<_> = self.secret_names.iter().map(|name| json!({ "name": name })).collect();
        let mut action = self.base();
        action["code"] = json!(self.code);
        action["dependencies"] = self.dependencies.clone();
        action["runtime"] = json!(self.runtime);
        action["secrets"] = json!(secrets);
        action["status"] = json!(self.build.name());
        if let Some(at) = self.built_at {
            action["built_at"] = json!(timestamp_text(at));
        }
        if let Some(deployed) = &self.deployed {
            action["deployed_version"] = self.version(deployed, true);
        }
        action
    }

    fn version(&self, deployed: &Deployed, is_deployed: bool) -> Value {
        json!({
            "id": deployed.version_id,
            "action_id": self.id,
            "code": deployed.code,
            "dependencies": self.dependencies,
            "deployed": is_deployed,
            "number": deployed.number,
            "runtime": self.runtime,
            "status": "built",
            "secrets": [],
            "errors": [],
            "built_at": timestamp_text(deployed.at),
            "created_at": timestamp_text(deployed.at),
            "updated_at": timestamp_text(deployed.at),
            "supported_triggers": self.supported_triggers,
        })
    }

    /// Applies the attributes of a create or update request.
    fn take(&mut self, body: &Value) -> Result<(), Problem> {
        let text = |name: &str| body[name].as_str().map(str::to_owned);
        let wrong = |what: &str| Err(Problem::invalid_body(format!("'Expected type string' on property {what}.")));
        for name in ["name", "code", "runtime"] {
            if !body[name].is_null() && !body[name].is_string() {
                return wrong(name);
            }
        }
        self.name = text("name").unwrap_or_else(|| self.name.clone());
        self.code = text("code").unwrap_or_else(|| self.code.clone());
        self.runtime = text("runtime").unwrap_or_else(|| self.runtime.clone());
        if body["supported_triggers"].is_array() {
            self.supported_triggers = body["supported_triggers"].clone();
        }
        if body["dependencies"].is_array() {
            self.dependencies = body["dependencies"].clone();
        }
        if let Some(secrets) = body["secrets"].as_array() {
            self.secret_names =
                secrets.iter().filter_map(|secret| secret["name"].as_str()).map(str::to_owned).collect();
        }
        self.deploy_when_built |= body["deploy"] == json!(true);
        (self.build, self.built_at) = (Build::Pending, None);
        Ok(())
    }
}

impl Actions {
    fn get(&mut self, id: &str) -> Result<&mut Action, Problem> {
        let action = self.actions.values_mut().find(|action| action.id == id);
        action.ok_or_else(|| Problem::not_found("The action does not exist."))
    }

    fn is_bound(&self, action_id: &str) -> bool {
        self.bound.iter().any(|binding| binding.action_id == action_id)
    }

    fn create(&mut self, body: &Value, ids: &mut Identifiers, now: Timestamp) -> Result<&mut Action, Problem> {
        let name = body["name"].as_str().filter(|name| !name.is_empty());
        let name = name.ok_or_else(|| Problem::invalid_body("'Missing required property: name'."))?;
        if body["supported_triggers"].as_array().is_none_or(|triggers| triggers.len() != 1) {
            return Err(Problem::invalid_body("'Missing required property: supported_triggers'."));
        }
        if self.actions.values().any(|action| action.name == name) {
            return Err(Problem::new(409, None, format!("An action with the name '{name}' already exists.")));
        }
        let mut action = Action {
            id: ids.uuid(),
            name: String::new(),
            supported_triggers: json!([]),
            code: String::new(),
            runtime: "node22".to_owned(),
            dependencies: json!([]),
            secret_names: Vec::new(),
            build: Build::Pending,
            built_at: None,
            deploy_when_built: false,
            deployed: None,
            created_at: now,
            updated_at: now,
        };
        action.take(body)?;
        self.created += 1;
        Ok(self.actions.entry(self.created).or_insert(action))
    }

    /// Answers a request below `/api/v2/actions/`.
    pub(super) fn answer(
        &mut self,
        path: &[&str],
        request: &Inbound,
        body: &Value,
        ids: &mut Identifiers,
        now: Timestamp,
    ) -> Result<Reply, Problem> {
        Ok(match (request.method.as_str(), path) {
            ("GET", ["actions"]) => {
                for action in self.actions.values_mut() {
                    action.step(ids, now);
                }
                let wanted = |name: &str, value: &str| request.param(name).is_none_or(|wanted| wanted == value);
                let all: Vec<Value> = self
                    .actions
                    .values()
                    .filter(|action| wanted("actionName", &action.name))
                    .filter(|action| {
                        action.supported_triggers[0]["id"].as_str().is_some_and(|id| wanted("triggerId", id))
                    })
                    .filter(|action| wanted("deployed", if action.deployed.is_some() { "true" } else { "false" }))
                    .map(Action::json)
                    .collect();
                paged("actions", all, request)
            }
            ("POST", ["actions"]) => Reply::json(201, &self.create(body, ids, now)?.json()),
            ("GET", ["actions", id]) => {
                let action = self.get(id)?;
                action.step(ids, now);
                Reply::json(200, &action.json())
            }
            ("PATCH", ["actions", id]) => {
                let action = self.get(id)?;
                action.take(body)?;
                action.updated_at = now;
                Reply::json(200, &action.json())
            }
            ("DELETE", ["actions", id]) => {
                self.get(id)?;
                if self.is_bound(id) && request.param("force").as_deref() != Some("true") {
                    return Err(Problem::new(409, None, "Unable to delete an action bound to a trigger."));
                }
                self.bound.retain(|binding| binding.action_id != *id);
                self.actions.retain(|_, action| action.id != *id);
                Reply::empty(204)
            }
            ("POST", ["actions", id, "deploy"]) => {
                let action = self.get(id)?;
                if action.build != Build::Built {
                    let why = "A draft must be in the 'built' state before it can be deployed.";
                    return Err(Problem::new(400, None, why));
                }
                action.deploy(ids, now);
                let deployed = action.deployed.as_ref().ok_or_else(|| Problem::not_found("no version"))?;
                // 202 in the API description, 200 in every recording; the body says that it is not deployed yet.
                let mut version = action.version(deployed, false);
                version["action"] = action.base();
                Reply::json(200, &version)
            }
            ("GET", ["triggers"]) => Reply::json(200, &triggers()),
            ("GET", ["triggers", trigger, "bindings"]) => {
                let bound = if *trigger == TRIGGER { self.bindings() } else { Vec::new() };
                paged("bindings", bound, request)
            }
            ("PATCH", ["triggers", TRIGGER, "bindings"]) => {
                self.bind(body, ids, now)?;
                Reply::json(200, &json!({ "bindings": self.bindings() }))
            }
            _ => return Err(Problem::not_found("Not Found")),
        })
    }

    fn bindings(&self) -> Vec<Value> {
        let action = |id: &str| self.actions.values().find(|action| action.id == id).map_or(Value::Null, Action::base);
        self.bound
            .iter()
            .map(|binding| {
                json!({
                    "id": binding.id, "trigger_id": TRIGGER, "display_name": binding.display_name,
                    "action": action(&binding.action_id), "created_at": timestamp_text(binding.at),
                    "updated_at": timestamp_text(binding.at),
                })
            })
            .collect()
    }

    /// Replaces the whole flow: Actions that are not named are unbound, and the order is that of execution.
    fn bind(&mut self, body: &Value, ids: &mut Identifiers, now: Timestamp) -> Result<(), Problem> {
        let wanted = body["bindings"].as_array().ok_or_else(|| Problem::invalid_body("'bindings' must be a list."))?;
        if wanted.len() > BOUND_MAX {
            return Err(Problem::new(400, None, format!("A trigger can have at most {BOUND_MAX} bindings.")));
        }
        let mut bound = Vec::new();
        for wish in wanted {
            let (kind, value) = (wish["ref"]["type"].as_str(), wish["ref"]["value"].as_str().unwrap_or_default());
            let kept = self.bound.iter().find(|binding| kind == Some("binding_id") && binding.id == value);
            let action = self.actions.values().find(|action| match kind {
                Some("binding_id") => kept.is_some_and(|kept| kept.action_id == action.id),
                Some("action_id") => action.id == value,
                Some("action_name") => action.name == value,
                _ => false,
            });
            let action = action.ok_or_else(|| Problem::new(400, None, format!("There is no such action: {value}")))?;
            if action.deployed.is_none() {
                let why = "Trying to create a binding for an action that has not been deployed.";
                return Err(Problem::new(400, None, why));
            }
            if action.supported_triggers[0]["id"] != TRIGGER {
                return Err(Problem::new(400, None, "The action does not support this trigger."));
            }
            bound.push(Binding {
                id: kept.map_or_else(|| ids.uuid(), |kept| kept.id.clone()),
                action_id: action.id.clone(),
                display_name: wish["display_name"].as_str().unwrap_or(&action.name).to_owned(),
                at: kept.map_or(now, |kept| kept.at),
            });
        }
        self.bound = bound;
        Ok(())
    }

    /// The deployed code of each Action in the flow, in order.
    pub(super) fn flow(&self) -> Vec<String> {
        self.bound
            .iter()
            .filter_map(|binding| self.actions.values().find(|action| action.id == binding.action_id))
            .filter_map(|action| Some(action.deployed.as_ref()?.code.clone()))
            .collect()
    }

    /// The names of the Actions in the flow, in order.
    pub(super) fn flow_names(&self) -> Vec<String> {
        let named = |id: &str| self.actions.values().find(|action| action.id == id).map(|action| action.name.clone());
        self.bound.iter().filter_map(|binding| named(&binding.action_id)).collect()
    }

    /// Creates or replaces an Action and deploys it immediately.
    pub(super) fn install(&mut self, name: &str, code: &str, ids: &mut Identifiers, now: Timestamp) {
        let key = self.actions.iter().find(|(_, action)| action.name == name).map(|(key, _)| *key);
        let key = key.unwrap_or_else(|| {
            let triggers = json!([{ "id": TRIGGER, "version": "v3" }]);
            let created = self.create(&json!({ "name": name, "supported_triggers": triggers }), ids, now).is_ok();
            if created { self.created } else { 0 }
        });
        if let Some(action) = self.actions.get_mut(&key) {
            code.clone_into(&mut action.code);
            (action.build, action.built_at, action.updated_at) = (Build::Built, Some(now), now);
            action.deploy(ids, now);
        }
    }

    /// Deletes an Action, bound or not. Returns whether it existed.
    pub(super) fn remove(&mut self, name: &str) -> bool {
        let Some(key) = self.actions.iter().find(|(_, action)| action.name == name).map(|(key, _)| *key) else {
            return false;
        };
        if let Some(action) = self.actions.remove(&key) {
            self.bound.retain(|binding| binding.action_id != action.id);
        }
        true
    }

    /// Moves an Action to this position of the flow. `None` removes it from the flow.
    pub(super) fn place(&mut self, name: &str, at: Option<usize>, ids: &mut Identifiers, now: Timestamp) {
        let Some(action_id) = self.actions.values().find(|action| action.name == name).map(|action| action.id.clone())
        else {
            return;
        };
        self.bound.retain(|binding| binding.action_id != action_id);
        if let Some(at) = at {
            let binding = Binding { id: ids.uuid(), action_id, display_name: name.to_owned(), at: now };
            self.bound.insert(at.min(self.bound.len()), binding);
        }
    }
}

fn paged(name: &str, all: Vec<Value>, request: &Inbound) -> Reply {
    let number = |parameter: &str| request.param(parameter).and_then(|text| text.parse::<usize>().ok());
    let page = number("page").unwrap_or(0);
    let per_page = number("per_page").unwrap_or(PER_PAGE_DEFAULT);
    let total = all.len();
    let some: Vec<Value> = all.into_iter().skip(page.saturating_mul(per_page)).take(per_page).collect();
    Reply::json(200, &json!({ "total": total, "page": page, "per_page": per_page, name: some }))
}

/// As recorded by auth0-deploy-cli on 2026-08-10, for the only trigger that is used here.
fn triggers() -> Value {
    let version = |version: &str, status: &str, runtimes: &[&str], default: &str| {
        json!({ "id": TRIGGER, "version": version, "status": status, "runtimes": runtimes, "default_runtime": default,
                "binding_policy": "trigger-bound", "compatible_triggers": [] })
    };
    json!({ "triggers": [
        version("v3", "CURRENT", &["node18-actions", "node22"], "node22"),
        version("v2", "DEPRECATED", &["node18"], "node16"),
        version("v1", "DEPRECATED", &["node12"], "node12"),
    ] })
}
