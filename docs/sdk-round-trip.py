"""Proves that the official Python SDKs of Okta and Auth0 work against the sandbox.

    python3 -m venv venv && venv/bin/pip install okta auth0-python
    okta-auth0-sync sandbox > sandbox.toml &       # its configuration: where it listens, and the secrets
    venv/bin/python docs/sdk-round-trip.py sandbox.toml

Last run with okta 3.4.6 and auth0-python 6.8.0, with SSWS and with an OAuth service app using DPoP. Exits with a
traceback at the first response that an SDK cannot use or that is wrong. Needs Python 3.11.
"""

import asyncio
import json
import os
import sys
import time
import tomllib
import urllib.parse
import urllib.request

from auth0.authentication import GetToken
from auth0.management import Auth0
from okta.client import Client as OktaClient
from okta.models import CreateUserRequest, UserProfile

# Without this the SDK refuses an http:// address.
os.environ["OKTA_TESTING_TESTINGDISABLEHTTPSCHECK"] = "true"


def control(base, path, body):
    """Calls a control endpoint, which the real API does not have."""
    request = urllib.request.Request(f"{base}/_sandbox/{path}", json.dumps(body).encode(), method="POST")
    with urllib.request.urlopen(request) as answer:
        text = answer.read()
    return json.loads(text) if text else None


def good(answer):
    """Returns the data of an Okta SDK response. The SDK returns errors instead of raising them."""
    data, response, error = answer
    assert error is None, error
    return data


async def okta_round_trip(config, stamp):
    login = f"ann.{stamp}@example.com"
    client = OktaClient({
        "orgUrl": config["url"], "token": config["api_token"],
    })
    profile = UserProfile(login=login, email=login, first_name="Ann", last_name="Lee")
    created = good(await client.create_user(CreateUserRequest(profile=profile), activate=True))
    assert created.status == "PROVISIONED", created.status

    found = good(await client.list_users(search=f'profile.email eq "{login.upper()}"'))
    assert [user.id for user in found] == [created.id]
    good(await client.deactivate_user(created.id))
    read = good(await client.get_user(created.id))
    assert read.status == "DEPROVISIONED" and read.profile.email == login
    assert created.id not in [user.id for user in good(await client.list_users(limit=200))]

    events = good(await client.list_log_events(filter=f'target.id eq "{created.id}"', limit=100))
    types = [event.event_type for event in events]
    assert types == ["user.lifecycle.activate", "user.lifecycle.create", "user.lifecycle.deactivate"], types
    assert events[2].target[0].alternate_id == login
    good(await client.delete_user(created.id))
    _, _, error = await client.get_user(created.id)
    assert error is not None
    print("okta: create, search, deactivate, read, list, log, delete")
    return login


async def okta_service_app(config, dpop):
    from jwcrypto.jwk import JWK

    key = JWK.generate(kty="RSA", size=2048, kid="k1")
    client_id = "0oaDpop" if dpop else "0oaPlain"
    control(config["url"], "apps", {"client_id": client_id, "key": key.export_public(as_dict=True), "require_dpop": dpop})
    client = OktaClient({
        "orgUrl": config["url"], "authorizationMode": "PrivateKey", "clientId": client_id,
        "scopes": ["okta.users.read", "okta.logs.read"], "privateKey": json.dumps(key.export_private(as_dict=True)),
        "kid": "k1", "dpopEnabled": dpop,
    })
    good(await client.list_log_events(limit=10))
    good(await client.list_users(limit=10))
    print(f"okta: a service app {'with' if dpop else 'without'} DPoP reads log and users")


def auth0_round_trip(config, email):
    domain = urllib.parse.urlsplit(config["url"]).netloc
    granted = GetToken(domain, config["client_id"], config["client_secret"], protocol="http").client_credentials(
        config["audience"]
    )
    client = Auth0(base_url=f"{config['url']}/api/v2", token=granted["access_token"])
    created = client.users.create(
        connection="Username-Password-Authentication", email=email, password="not-a-Secret-1", user_metadata={"lang": "de"}
    )
    found = client.users.list_users_by_email(email=email)
    assert [user.user_id for user in found] == [created.user_id]
    assert control(config["url"], "login", {"user_id": created.user_id})["granted"]

    mark = {"deactivated": "true"}
    updated = client.users.update(created.user_id, app_metadata={"okta_sync": mark}, user_metadata={"okta": mark})
    assert updated.user_metadata == {"lang": "de", "okta": mark}, updated.user_metadata
    denied = control(config["url"], "login", {"user_id": created.user_id})
    assert denied == {"granted": False, "reason": "account_deactivated"}, denied
    updated = client.users.update(created.user_id, app_metadata={"okta_sync": None}, user_metadata={"okta": None})
    assert updated.user_metadata == {"lang": "de"}
    assert control(config["url"], "login", {"user_id": created.user_id})["granted"]

    time.sleep(1.1)  # the search index lags
    query = f'email:"{email.upper()}"'
    assert [user.user_id for user in client.users.list(q=query, search_engine="v3")] == [created.user_id]
    assert list(client.users.sessions.list(created.user_id))
    client.users.sessions.delete(created.user_id)
    client.users.refresh_token.delete(created.user_id)
    bound = list(client.actions.triggers.bindings.list("post-login"))
    assert bound[0].action.name == "okta-auth0-sync", bound
    assert client.actions.get(bound[0].action.id).status == "built"
    client.users.delete(created.user_id)
    assert client.users.list_users_by_email(email=email) == []
    print("auth0: token, create, by e-mail, metadata, search, sessions, actions, delete")


async def main():
    with open(sys.argv[1], "rb") as file:
        config = tomllib.load(file)
    login = await okta_round_trip(config["okta"], int(time.time()))
    await okta_service_app(config["okta"], dpop=False)
    await okta_service_app(config["okta"], dpop=True)
    auth0_round_trip(config["auth0"], login)


asyncio.run(main())
