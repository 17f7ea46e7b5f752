//! The daemon on stand-ins of both tenants: ready after the first poll, and silent while idle.

use okta_auth0_sync::auth0::ACTION_SOURCE;
use okta_auth0_sync_sandbox::{NewUser, Options, Sandbox};
use serde_json::json;

use super::daemon::Service;
use super::monitor::{LISTEN, address_of, get, status};

/// Polls of an empty System Log; each sends a status to systemd.
const PASSES: usize = 8;

#[tokio::test(flavor = "multi_thread")]
async fn idle_daemon_is_ready_and_silent() {
    let sandbox = Sandbox::start(Options::default(), ACTION_SOURCE).await.unwrap();
    let user = sandbox.okta().create_user(&NewUser::new("ann@example.com", "ann@example.com"));
    sandbox.auth0().create_user(json!({
        "email": "ann@example.com", "email_verified": true, "connection": "Username-Password-Authentication",
    }));
    let service = Service::start_on(&sandbox.config_toml(), &[LISTEN]);
    let address = address_of(&service);
    service.wait_for("STATUS=0 denied, 0 pending");
    // Ready once it has polled, checked the Action and compared the clocks.
    while status(&get(address, "/readyz", "localhost")) != "200" {
        service.wait_for("STATUS=0 denied, 0 pending");
    }
    sandbox.okta().deactivate(&user);
    service.logged("applied");
    service.wait_for("STATUS=1 denied, 0 pending");
    let figures = get(address, "/metrics", "localhost");
    let families = super::exposition::parse(figures.split_once("\r\n\r\n").unwrap().1);
    let value = |family: &str, sample: &str| {
        let samples = &families[&format!("okta_auth0_sync_{family}")].samples;
        samples.iter().filter(|((name, _), _)| name.ends_with(sample)).map(|(_, value)| *value).sum::<f64>()
    };
    assert_eq!(value("denied_accounts", "denied_accounts"), 1.0);
    assert_eq!(value("account_writes", "_total"), 1.0);
    assert_eq!(value("denial_lag_seconds", "_count"), 1.0);
    // Drain the lines logged so far.
    while service.log.try_recv().is_ok() {}
    for _ in 0..PASSES {
        service.wait_for("STATUS=1 denied, 0 pending");
    }
    let said: Vec<String> = service.log.try_iter().collect();
    assert_eq!(said, Vec::<String>::new(), "an idle daemon logs nothing");
    sandbox.stop().await;
}
