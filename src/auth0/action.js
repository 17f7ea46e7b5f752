/**
 * okta-auth0-sync: denies the login of users whom Okta has deactivated.
 *
 * An Auth0 Action for the trigger "post-login" (v3). Bind it FIRST in the flow: an Action before it could redirect the
 * user, enrich their token or fail before this one has decided.
 *
 * It runs at every login, silent login, token exchange and refresh. It reads two places and writes nothing:
 *   app_metadata.okta_sync.deactivated    the mark of okta-auth0-sync, which users cannot edit
 *   user_metadata.okta.deactivated        the same for installations that mirror it there
 * "true" and true deny; any other value lets the user pass. It must never throw: Auth0 denies every login whose Action
 * throws.
 *
 * It judges the user for whom a token is issued. Of a party that acts for this user (session delegation, the act claim of
 * a token exchange) Auth0 shows at most the id, without metadata, so the mark of that party cannot be read here.
 */

// What the application receives as error_description, and perhaps shows to the user.
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
