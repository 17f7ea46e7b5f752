/**
 * okta-auth0-sync: denies the login of people whom Okta has deactivated.
 *
 * An Auth0 Action for the trigger "post-login" (v3). Bind it FIRST in the flow: an Action before it could redirect the
 * person, enrich their token or fail before this one has spoken.
 *
 * It runs at every login, silent login, token exchange and refresh. It reads two places and writes nothing:
 *   app_metadata.okta_sync.deactivated    the mark of okta-auth0-sync, which users cannot edit
 *   user_metadata.okta.deactivated        the same for installations that mirror it there
 * "true" and true deny; anything else, of any shape, lets the person pass. It must never throw: Auth0 denies everyone
 * whose Action throws.
 */

// What the application receives as error_description, and perhaps shows to the person.
const MESSAGE = "account_deactivated";

// The key of the mark in app_metadata: the setting auth0.metadata_key.
const METADATA_KEY = "okta_sync";

const isTrue = (value) => value === true || value === "true";

exports.onExecutePostLogin = async (event, api) => {
  const mark = event?.user?.app_metadata?.[METADATA_KEY]?.deactivated;
  const mirror = event?.user?.user_metadata?.okta?.deactivated;
  if (isTrue(mark) || isTrue(mirror)) {
    api.access.deny(MESSAGE);
  }
};
