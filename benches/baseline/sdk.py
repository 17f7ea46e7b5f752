"""The script that an administrator would write with the official Python SDKs: for each deactivation in the System Log, deny
the same person in Auth0. One run is one pass.

Switches that help it are on: sessions that keep connections open (`async with`), only the fields that are needed, `limit` at
its maximum, enough retries to sit out a rate limit. Frozen: okta 3.4.6, auth0-python 6.8.0.

    sdk.py sandbox.toml state.json
"""

import asyncio
import json
import os
import sys
import tomllib
import urllib.parse
from datetime import UTC, datetime, timedelta

from auth0.authentication import GetToken
from auth0.management import Auth0
from okta.client import Client as OktaClient

os.environ["OKTA_TESTING_TESTINGDISABLEHTTPSCHECK"] = "true"
FILTER = 'eventType eq "user.lifecycle.deactivate"'
PATIENCE = {"max_retries": 10}


def good(answer):
    data, response, error = answer
    if error is not None:
        raise RuntimeError(error)
    return data, response


def cursor_behind(response):
    """The `after` of the next link; the SDK does not follow the log's links by itself."""
    links = {name.lower(): value for name, value in response.headers.items()}.get("link", "")
    for link in links.split(", <"):
        if 'rel="next"' in link:
            query = urllib.parse.urlsplit(link[: link.index(">")].lstrip("<")).query
            return urllib.parse.parse_qs(query).get("after", [None])[0]
    return None


async def deny(okta, auth0, user_id):
    user, _ = good(await okta.get_user(user_id))
    if user.status != "DEPROVISIONED":
        return
    email = user.profile.email
    holders, _ = good(await okta.list_users(search=f"profile.email eq {json.dumps(email)}", fields="id,status"))
    if any(holder.id != user.id and holder.status == "ACTIVE" for holder in holders):
        return
    found = auth0.users.list(
        q=f"email:{json.dumps(email)}", search_engine="v3", fields="user_id,app_metadata", include_fields=True,
        per_page=100, request_options=PATIENCE,
    )
    for account in found:
        mark = (account.app_metadata or {}).get("okta_sync") or {}
        if mark.get("deactivated") != "true":
            auth0.users.update(
                account.user_id,
                app_metadata={"okta_sync": {"deactivated": "true", "okta_user_id": user.id, "status": user.status}},
                user_metadata={"okta": {"deactivated": "true"}}, request_options=PATIENCE,
            )


async def main():
    with open(sys.argv[1], "rb") as file:
        config = tomllib.load(file)
    domain = urllib.parse.urlsplit(config["auth0"]["url"]).netloc
    granted = GetToken(
        domain, config["auth0"]["client_id"], config["auth0"]["client_secret"], protocol="http"
    ).client_credentials(config["auth0"]["audience"])
    auth0 = Auth0(base_url=f"{config['auth0']['url']}/api/v2", token=granted["access_token"])
    try:
        with open(sys.argv[2]) as file:
            after = json.load(file)["after"]
    except FileNotFoundError:
        after = None
    since = (datetime.now(UTC) - timedelta(days=7)).isoformat(timespec="milliseconds").replace("+00:00", "Z")
    settings = {
        "orgUrl": config["okta"]["url"], "token": config["okta"]["api_token"],
        "rateLimit": {"maxRetries": 10},
    }
    async with OktaClient(settings) as okta:
        while True:
            start = {"after": after} if after else {"since": since}
            events, response = good(await okta.list_log_events(filter=FILTER, limit=1000, sort_order="ASCENDING", **start))
            for event in events:
                for target in event.target:
                    if target.type == "User":
                        await deny(okta, auth0, target.id)
            after = cursor_behind(response) or after
            with open(sys.argv[2], "w") as file:
                json.dump({"after": after}, file)
            if len(events) < 1000:
                return


asyncio.run(main())
