//! A login up to the result of the post-login Actions, whose JavaScript is executed.

use rquickjs::{Context, Runtime};
use serde_json::{Map, Value, json};

/// The result of a login.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Login {
    /// Tokens were issued.
    Granted,
    /// The application got `access_denied` (or `unauthorized`, for a blocked user) with this description.
    Denied {
        /// `error_description`.
        reason: String,
    },
}

impl Login {
    /// Returns whether the login was granted.
    pub fn is_granted(&self) -> bool {
        *self == Self::Granted
    }

    pub(super) fn denied(reason: impl Into<String>) -> Self {
        Self::Denied { reason: reason.into() }
    }
}

/// The ways to get a token that run the post-login Actions.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum LoginKind {
    /// With the login page.
    #[default]
    Interactive,
    /// The application sends the user's password.
    Password,
    /// The application exchanges a refresh token.
    Refresh,
    /// `prompt=none`, with an existing session.
    Silent,
}

impl LoginKind {
    /// Auth0's `event.transaction.protocol`.
    fn protocol(self) -> &'static str {
        match self {
            Self::Interactive | Self::Silent => "oidc-basic-profile",
            Self::Password => "oauth2-password",
            Self::Refresh => "oauth2-refresh-token",
        }
    }

    /// Parses the name that the control API uses.
    pub(super) fn named(name: &str) -> Option<Self> {
        Some(match name {
            "" | "interactive" => Self::Interactive,
            "password" => Self::Password,
            "refresh" => Self::Refresh,
            "silent" => Self::Silent,
            _ => return None,
        })
    }
}

/// The `event` of post-login v3 (types of auth0/auth0-actions). Both metadata objects are always present.
pub(super) fn event(user: &Value, client_id: &str, kind: LoginKind) -> Value {
    let mut user = user.as_object().cloned().unwrap_or_default();
    for metadata in ["app_metadata", "user_metadata"] {
        user.entry(metadata).or_insert_with(|| json!({}));
    }
    let connection = user.get("identities").map_or(Value::Null, |identities| identities[0]["connection"].clone());
    let logins = user.get("logins_count").cloned().unwrap_or(json!(0));
    let mut event = json!({
        "user": user,
        "client": { "client_id": client_id, "name": "Sandbox application", "metadata": {} },
        "connection": { "name": connection, "metadata": {} },
        "transaction": { "protocol": kind.protocol(), "locale": "en", "requested_scopes": ["openid"] },
        "request": { "ip": "127.0.0.1", "method": "POST", "query": {}, "body": {}, "geoip": {} },
        "stats": { "logins_count": logins },
        "tenant": { "id": "sandbox" },
        "authorization": { "roles": [] },
        "authentication": { "methods": [] },
        "secrets": {},
        "configuration": {},
    });
    match kind {
        LoginKind::Refresh => event["refresh_token"] = json!({ "id": "sandbox", "client_id": client_id }),
        LoginKind::Silent => event["request"]["query"] = json!({ "prompt": "none" }),
        LoginKind::Interactive | LoginKind::Password => {}
    }
    event
}

/// The effects of an Action.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct ActionEffects {
    /// The reason, if it denied.
    pub denied: Option<String>,
    /// `api.user.setAppMetadata`. As in Auth0, these apply even if the Action denies.
    pub app_metadata: Map<String, Value>,
    /// `api.user.setUserMetadata`.
    pub user_metadata: Map<String, Value>,
}

/// The memory limit of an Action.
const MEMORY_BYTES_MAX: usize = 64 * 1024 * 1024;
/// The engine interrupts an Action after this many checks: some seconds of looping.
const INTERRUPTS_MAX: u32 = 20_000;

/// The environment of an Action. Members of `api` that are not listed here can be called and do nothing.
const WORLD: &str = r#"
(() => {
  const spoken = { denied: null, app_metadata: {}, user_metadata: {} };
  const anything = () => new Proxy(function () {}, {
    get: (_, name) => (typeof name === "symbol" || name === "then" ? undefined : anything()),
    apply: () => undefined,
  });
  const orAnything = (known) => new Proxy(known, {
    get: (target, name) => (name in target ? target[name] : anything()),
  });
  const api = orAnything({
    access: orAnything({ deny: (reason) => { spoken.denied ??= String(reason); } }),
    user: orAnything({
      setAppMetadata: (key, value) => { spoken.app_metadata[key] = value ?? null; },
      setUserMetadata: (key, value) => { spoken.user_metadata[key] = value ?? null; },
    }),
  });
  const module = { exports: {} };
  const console = { log() {}, info() {}, warn() {}, error() {}, debug() {} };
  globalThis.outcome = null;
  (async () => {
    try {
      new Function("exports", "module", "console", globalThis.code)(module.exports, module, console);
      await module.exports.onExecutePostLogin(JSON.parse(globalThis.event), api);
      globalThis.outcome = JSON.stringify({ spoken });
    } catch (error) {
      globalThis.outcome = JSON.stringify({ threw: String(error?.message ?? error) });
    }
  })();
})();
"#;

/// Runs an Action of the post-login trigger, as a login does.
///
/// # Errors
/// The error that it threw, or why it did not finish.
pub fn run_action(code: &str, event: &Value) -> Result<ActionEffects, String> {
    let outcome = evaluate(WORLD, code, &event.to_string()).map_err(|error| error.to_string())?;
    let outcome = outcome.ok_or("the Action did not come to an end")?;
    let outcome: Value = serde_json::from_str(&outcome).map_err(|error| error.to_string())?;
    if let Some(threw) = outcome["threw"].as_str() {
        return Err(threw.to_owned());
    }
    let spoken = &outcome["spoken"];
    let metadata = |name: &str| spoken[name].as_object().cloned().unwrap_or_default();
    Ok(ActionEffects {
        denied: spoken["denied"].as_str().map(str::to_owned),
        app_metadata: metadata("app_metadata"),
        user_metadata: metadata("user_metadata"),
    })
}

/// Returns whether this is valid JavaScript, so that it can be built.
pub(super) fn compiles(code: &str) -> bool {
    let check = r#"try { new Function("exports", "module", "console", code); globalThis.outcome = ""; } catch {}"#;
    matches!(evaluate(check, code, "null"), Ok(Some(_)))
}

fn evaluate(script: &str, code: &str, event: &str) -> rquickjs::Result<Option<String>> {
    let runtime = Runtime::new()?;
    runtime.set_memory_limit(MEMORY_BYTES_MAX);
    let mut asked = 0;
    runtime.set_interrupt_handler(Some(Box::new(move || {
        asked += 1;
        asked > INTERRUPTS_MAX
    })));
    let context = Context::full(&runtime)?;
    context.with(|ctx| {
        ctx.globals().set("code", code)?;
        ctx.globals().set("event", event)?;
        ctx.eval::<(), _>(script)
    })?;
    // The Action's own rejections are in its outcome; other rejections do not matter.
    while runtime.is_job_pending() {
        if runtime.execute_pending_job().is_err() {
            break;
        }
    }
    context.with(|ctx| ctx.globals().get("outcome"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn act(body: &str) -> Result<ActionEffects, String> {
        run_action(
            &format!("exports.onExecutePostLogin = async (event, api) => {{ {body} }};"),
            &event(&json!({}), "c", LoginKind::Interactive),
        )
    }

    #[test]
    fn an_action_can_deny_and_write_metadata() {
        let spoken =
            act("await null; api.user.setAppMetadata('a', 1); api.access.deny('no'); api.access.deny('2')").unwrap();
        assert_eq!(spoken.denied.as_deref(), Some("no"));
        assert_eq!(spoken.app_metadata["a"], json!(1));
    }

    #[test]
    fn unlisted_api_members_do_nothing() {
        let all = "api.idToken.setCustomClaim('a', 1); api.session.revoke('x', {}); await api.cache.get('k'); \
                   api.redirect.sendUserTo('https://x'); console.log(event.user.app_metadata.x?.y)";
        assert_eq!(act(all), Ok(ActionEffects::default()));
    }

    #[test]
    fn a_throwing_or_endless_action_is_an_error() {
        assert_eq!(act("throw new Error('oh')"), Err("oh".to_owned()));
        assert!(act("event.user.user_metadata.okta.deactivated").is_err());
        assert!(act("await new Promise(() => {})").is_err());
        assert!(act("for (;;) {}").is_err());
        assert!(run_action("not javascript", &json!({})).is_err());
        assert!(!compiles("exports.x = {"));
        assert!(compiles("exports.x = 1"));
    }
}
