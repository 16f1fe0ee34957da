// An application on oauth4webapi, which checks each answer against its RFC and does nothing by itself, driven line by line
// (lines.mjs) with the operations of openid-client.mjs.
//
//   oauth4webapi.mjs --issuer http://localhost:8080

import * as oauth from 'oauth4webapi';
import { authentication, drive, issuer } from './library.mjs';

const options = { [oauth.allowInsecureRequests]: true };
let server;
let self;
let waiting;

async function discovered() {
  const answer = await oauth.discoveryRequest(issuer, { algorithm: 'oauth2', ...options });
  return oauth.processDiscoveryResponse(issuer, answer);
}

const known = async (who) => ({ client: { client_id: who.client_id }, authentication: await authentication(oauth, who) });

const operations = {
  register: async ({ metadata }) => {
    server = await discovered();
    const answer = await oauth.dynamicClientRegistrationRequest(server, metadata, options);
    const client = await oauth.processDynamicClientRegistrationResponse(answer);
    self = await known({ ...client, method: client.token_endpoint_auth_method });
    return { client };
  },

  use: async (who) => {
    server = await discovered();
    self = await known(who);
    return { metadata: server };
  },

  begin: async ({ redirect_uri, scope, resource }) => {
    waiting = { verifier: oauth.generateRandomCodeVerifier(), state: oauth.generateRandomState(), redirect_uri };
    const url = new URL(server.authorization_endpoint);
    const parameters = {
      client_id: self.client.client_id,
      response_type: 'code',
      redirect_uri,
      scope,
      resource,
      state: waiting.state,
      code_challenge: await oauth.calculatePKCECodeChallenge(waiting.verifier),
      code_challenge_method: 'S256',
    };
    for (const [name, value] of Object.entries(parameters)) url.searchParams.set(name, value);
    return { url: url.href };
  },

  finish: async ({ url }) => {
    const callback = oauth.validateAuthResponse(server, self.client, new URL(url), waiting.state);
    const { redirect_uri, verifier } = waiting;
    const answer = await oauth.authorizationCodeGrantRequest(
      server, self.client, self.authentication, callback, redirect_uri, verifier, options,
    );
    return { tokens: await oauth.processAuthorizationCodeResponse(server, self.client, answer) };
  },

  refresh: async ({ refresh_token }) => {
    const answer = await oauth.refreshTokenGrantRequest(server, self.client, self.authentication, refresh_token, options);
    return { tokens: await oauth.processRefreshTokenResponse(server, self.client, answer) };
  },

  client_credentials: async (parameters) => {
    const answer = await oauth.clientCredentialsGrantRequest(server, self.client, self.authentication, parameters, options);
    return { tokens: await oauth.processClientCredentialsResponse(server, self.client, answer) };
  },

  revoke: async ({ token }) => {
    const answer = await oauth.revocationRequest(server, self.client, self.authentication, token, options);
    await oauth.processRevocationResponse(answer);
    return {};
  },

  introspect: async ({ token, as }) => {
    const who = await known(as);
    const answer = await oauth.introspectionRequest(server, who.client, who.authentication, token, options);
    return { introspection: await oauth.processIntrospectionResponse(server, who.client, answer) };
  },
};

await drive(operations);
