// An application on openid-client, which knows nothing of MCP, driven line by line (library.mjs).
//
//   openid-client.mjs --issuer http://localhost:8080
//
// All that it knows of the server is the issuer. The person's browser is elsewhere: `begin` says where to send them, `finish`
// takes where they came back to.

import * as client from 'openid-client';
import { authentication, drive, issuer } from './library.mjs';

// Plain HTTP is for this computer alone, and the library wants to hear that it is meant.
const options = { execute: [client.allowInsecureRequests], algorithm: 'oauth2' };
let config;
let waiting;

const configured = async (who) => client.discovery(issuer, who.client_id, {}, await authentication(client, who), options);

const operations = {
  /** {metadata}: registers itself; {client}. */
  register: async ({ metadata }) => {
    const method = metadata.token_endpoint_auth_method;
    const ways = { none: client.None, client_secret_basic: client.ClientSecretBasic, client_secret_post: client.ClientSecretPost };
    const how = ways[method]();
    config = await client.dynamicClientRegistration(issuer, metadata, how, options);
    return { client: config.clientMetadata() };
  },

  /** {client_id, method, client_secret?, private_key?, kid?}: is that client from now on. */
  use: async (who) => {
    config = await configured(who);
    return { metadata: config.serverMetadata() };
  },

  /** {redirect_uri, scope, resource}: {url}. */
  begin: async ({ redirect_uri, scope, resource }) => {
    waiting = { pkceCodeVerifier: client.randomPKCECodeVerifier(), expectedState: client.randomState() };
    const url = client.buildAuthorizationUrl(config, {
      redirect_uri,
      scope,
      resource,
      state: waiting.expectedState,
      code_challenge: await client.calculatePKCECodeChallenge(waiting.pkceCodeVerifier),
      code_challenge_method: 'S256',
    });
    return { url: url.href };
  },

  /** {url}: {tokens}. */
  finish: async ({ url }) => ({ tokens: await client.authorizationCodeGrant(config, new URL(url), waiting) }),

  /** {refresh_token}: {tokens}. */
  refresh: async ({ refresh_token }) => ({ tokens: await client.refreshTokenGrant(config, refresh_token) }),

  /** {scope, resource}: {tokens}. */
  client_credentials: async (parameters) => ({ tokens: await client.clientCredentialsGrant(config, parameters) }),

  /** {scope, resource}: {authorization}, as RFC 8628 §3.2 has it. */
  device: async (parameters) => {
    waiting = await client.initiateDeviceAuthorization(config, parameters);
    return { authorization: waiting };
  },

  /** Asks until the person has decided: {tokens}. */
  poll: async () => ({ tokens: await client.pollDeviceAuthorizationGrant(config, waiting) }),

  /** {token}. */
  revoke: async ({ token }) => {
    await client.tokenRevocation(config, token);
    return {};
  },

  /** {token, as}: what the server says of a token to the client `as`; {introspection}. */
  introspect: async ({ token, as }) => ({ introspection: await client.tokenIntrospection(await configured(as), token) }),
};

await drive(operations);
