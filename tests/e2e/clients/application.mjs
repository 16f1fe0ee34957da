// An application around an official TypeScript SDK: all that the SDK leaves to whoever uses it, driven line by line
// (lines.mjs). typescript-1.mjs and typescript-2.mjs say what the two SDKs call things.
//
//   typescript-N.mjs --url http://localhost:8080/mcp --state FILE.json [--protocol NAME] [--scope SCOPES]
//
// It keeps all it is given in FILE.json, so that a second process with the same file is the same client, restarted.
// Without --protocol the SDK's own default decides. When a person has to authorize, it says {"event":"authorize",
// "url":…} and waits for the callback; whatever operation was under way then goes on.

import { randomBytes } from 'node:crypto';
import { readFileSync, renameSync, writeFileSync } from 'node:fs';
import { createServer } from 'node:http';
import { parseArgs } from 'node:util';
import { say, serve } from './lines.mjs';
import { note } from './wire.mjs';

const CALLBACK_PATIENCE = 60_000;

/** What outlives the process. Every assignment to a member is on disk before it returns. */
function openState(path) {
  let kept = {};
  try {
    kept = JSON.parse(readFileSync(path, 'utf8'));
  } catch (error) {
    if (error.code !== 'ENOENT') throw error;
  }
  const save = () => {
    writeFileSync(`${path}.new`, JSON.stringify(kept, null, 2), { mode: 0o600 });
    renameSync(`${path}.new`, path);
    return true;
  };
  return new Proxy(kept, {
    set: (target, name, value) => Reflect.set(target, name, value) && save(),
    deleteProperty: (target, name) => Reflect.deleteProperty(target, name) && save(),
  });
}

/** The loopback listener the browser comes back to. It takes its old port again if that is free. */
async function openCallback(state) {
  const waiting = [];
  const server = createServer((request, response) => {
    const url = new URL(request.url, 'http://localhost');
    if (url.pathname !== '/callback') {
      response.writeHead(404).end();
      return;
    }
    response.writeHead(200, { 'content-type': 'text/html; charset=utf-8' });
    response.end('<!doctype html><title>Signed in</title><p>You can close this window and go back to the client.');
    const arrived = { headers: request.headers, query: Object.fromEntries(url.searchParams), url: request.url };
    listener.last = arrived;
    waiting.shift()?.(url.searchParams);
  });
  const listen = (port) =>
    new Promise((resolve, reject) => {
      server.once('error', reject);
      server.listen(port, '127.0.0.1', () => {
        server.off('error', reject);
        resolve();
      });
    });
  await listen(state.callback_port ?? 0).catch((error) => {
    if (error.code !== 'EADDRINUSE') throw error;
    return listen(0); // RFC 8252 §7.3: the port of a loopback redirect is free to change
  });
  state.callback_port = server.address().port;

  const listener = {
    last: null,
    redirect: `http://localhost:${state.callback_port}/callback`,
    arrival: () =>
      new Promise((resolve, reject) => {
        const timer = setTimeout(() => {
          waiting.length = 0;
          reject(new Error(`nobody came back to ${listener.redirect} within ${CALLBACK_PATIENCE / 1000} s`));
        }, CALLBACK_PATIENCE);
        waiting.push((query) => {
          clearTimeout(timer);
          resolve(query);
        });
      }),
    close: () => {
      server.close();
      server.closeAllConnections();
    },
  };
  return listener;
}

/** The claims of a JWT, unverified; null for a token of another kind. */
function claims(token) {
  try {
    return JSON.parse(Buffer.from(token.split('.')[1], 'base64url'));
  } catch {
    return null;
  }
}

/** Adds to an error what a test may want to match: OAuth's error code, JSON-RPC's code, the HTTP status. */
function explained(operation) {
  return async (request) => {
    try {
      return await operation(request);
    } catch (error) {
      error.answer = {
        name: error.name,
        code: error.code ?? error.errorCode ?? null,
        status: error.data?.status ?? null,
      };
      throw error;
    }
  };
}

/**
 * Serves one SDK:
 *
 * - `title`: what a person reads on the consent page;
 * - `protocols`: what --protocol may name, and what the SDK calls it;
 * - `make(url, protocol, options)`: a `client` and a `transport`, not connected yet;
 * - `protocolVersion(client, transport)`: what the two agreed on;
 * - `list(client)`: the tools, not from a cache;
 * - `finish(transport, query)`: takes the callback's query to the SDK;
 * - `refreshAuthorization`, `UnauthorizedError`: the SDK's own.
 */
export async function application(sdk) {
  const { values: given } = parseArgs({
    options: { url: { type: 'string' }, state: { type: 'string' }, protocol: { type: 'string' }, scope: { type: 'string' } },
  });
  if (!given.url || !given.state) throw new Error('--url and --state are needed');
  if (given.protocol !== undefined && !Object.hasOwn(sdk.protocols, given.protocol)) {
    throw new Error(`--protocol is one of ${Object.keys(sdk.protocols).join(', ')}`);
  }
  const state = openState(given.state);
  const callback = await openCallback(state);

  /** What this process did so far; `connect` compares before and after. */
  const did = { registrations: 0, authorizations: 0 };
  /** Whether somebody is there who can be sent to a browser. */
  let attended = true;
  const authorizationUrls = [];

  const provider = {
    get redirectUrl() {
      return callback.redirect;
    },
    get clientMetadata() {
      return {
        client_name: `Portcullis test client (${sdk.title})`,
        redirect_uris: [callback.redirect],
        grant_types: ['authorization_code', 'refresh_token'],
        response_types: ['code'],
        token_endpoint_auth_method: 'none',
        ...(given.scope === undefined ? {} : { scope: given.scope }),
      };
    },
    state() {
      state.oauth_state = randomBytes(16).toString('base64url');
      return state.oauth_state;
    },
    clientInformation: () => state.client,
    saveClientInformation(client) {
      if (state.client?.client_id !== client.client_id) did.registrations += 1;
      state.client = client;
    },
    tokens: () => state.tokens,
    saveTokens(tokens) {
      state.tokens = tokens;
    },
    redirectToAuthorization(url) {
      authorizationUrls.push(url);
    },
    codeVerifier: () => state.code_verifier,
    saveCodeVerifier(verifier) {
      state.code_verifier = verifier;
    },
    discoveryState: () => state.discovery,
    saveDiscoveryState(discovery) {
      state.discovery = discovery;
    },
    invalidateCredentials(scope) {
      if (scope === 'all' || scope === 'client') delete state.client;
      if (scope === 'all' || scope === 'tokens') delete state.tokens;
      if (scope === 'all' || scope === 'verifier') delete state.code_verifier;
      if (scope === 'all' || scope === 'discovery') delete state.discovery;
    },
  };

  /** Every exchange the SDK makes, in order. */
  const exchanges = [];

  /** The first event stream of a connection, as it came over the wire: when it spoke, and when and how it ended. */
  const eventStream = () => ({ opened: Promise.withResolvers(), ended: Promise.withResolvers() });
  let stream = eventStream();

  /** The same bytes, watched. */
  async function* watched(body, { opened, ended }) {
    try {
      for await (const bytes of body) {
        opened.resolve();
        yield bytes;
      }
      ended.resolve({ at: Date.now(), how: 'closed' });
    } finally {
      ended.resolve({ at: Date.now(), how: 'broken' }); // or the SDK needs it no more
    }
  }

  async function recordingFetch(input, init) {
    const request = new Request(input, init);
    const exchange = note(exchanges, {
      method: request.method,
      url: request.url,
      headers: Object.fromEntries(request.headers),
      body: init?.body?.toString(),
    });
    try {
      const response = await fetch(input, init);
      exchange.status = response.status;
      exchange.www_authenticate = response.headers.get('www-authenticate');
      exchange.content_type = response.headers.get('content-type');
      if (request.method !== 'GET' || !exchange.content_type?.startsWith('text/event-stream')) return response;
      return new Response(ReadableStream.from(watched(response.body, stream)), response);
    } catch (error) {
      exchange.error = String(error.cause ?? error);
      throw error;
    }
  }

  let client = null;
  let transport = null;

  async function connectOnce() {
    await client?.close();
    const protocol = given.protocol === undefined ? undefined : sdk.protocols[given.protocol];
    const options = { authProvider: provider, fetch: recordingFetch };
    stream = eventStream();
    ({ client, transport } = sdk.make(new URL(given.url), protocol, options));
    client.onerror = (error) => console.error('[client]', error.message);
    await client.connect(transport);
  }

  /** Does it; if the SDK wants the person first, sends for them, takes the answer to the SDK and does it again. */
  async function authorized(attempt) {
    authorizationUrls.length = 0;
    try {
      return await attempt();
    } catch (error) {
      const url = authorizationUrls.shift();
      if (!attended || !(error instanceof sdk.UnauthorizedError) || url === undefined) throw error;
      const arrival = callback.arrival();
      say({ event: 'authorize', url: url.href });
      await finishAuthorization(await arrival);
      did.authorizations += 1;
      return attempt();
    }
  }

  async function finishAuthorization(query) {
    if (query.get('state') !== state.oauth_state) throw new Error('the callback has another state than we sent');
    delete state.oauth_state;
    // RFC 9207: SDK 2 compares `iss`, but lets it be absent where the metadata does not promise it; SDK 1 never
    // sees it. We insist.
    const issuer = state.discovery?.authorizationServerMetadata?.issuer;
    if (query.get('iss') !== issuer) {
      throw new Error(`the callback's iss is ${JSON.stringify(query.get('iss'))}, not ${JSON.stringify(issuer)}`);
    }
    await sdk.finish(transport, query);
  }

  async function connect() {
    const before = { ...did };
    await authorized(connectOnce);
    return {
      protocol_version: sdk.protocolVersion(client, transport),
      server: client.getServerVersion(),
      registered: did.registrations > before.registrations,
      authorized: did.authorizations > before.authorizations,
    };
  }

  /** Runs an operation of a connected client, and tells whether a person had to step up for it. */
  async function connected(attempt) {
    if (client === null) throw new Error('not connected');
    const before = did.authorizations;
    return { ...(await authorized(attempt)), authorized: did.authorizations > before };
  }

  /** Refreshes as the SDK does on a 401, save that a refusal is answered and does not start a new authorization. */
  async function refresh() {
    const old = state.tokens;
    if (!old?.refresh_token) throw new Error('there is no refresh token');
    const { authorizationServerUrl, authorizationServerMetadata, resourceMetadata } = state.discovery;
    const fresh = await sdk.refreshAuthorization(authorizationServerUrl, {
      metadata: authorizationServerMetadata,
      clientInformation: state.client,
      refreshToken: old.refresh_token,
      resource: resourceMetadata?.resource,
      fetchFn: recordingFetch,
    });
    state.tokens = { ...fresh, issuer: old.issuer };
    return {
      access_token_changed: fresh.access_token !== old.access_token,
      refresh_token_changed: fresh.refresh_token !== old.refresh_token,
    };
  }

  const operations = {
    /** Connects, anew if it was connected; {protocol_version, server, registered, authorized}. */
    connect,

    /** {names, tools, authorized}. */
    list: () =>
      connected(async () => {
        const { tools } = await sdk.list(client);
        return { names: tools.map(({ name }) => name), tools };
      }),

    /** {name, arguments}: {result, authorized}. */
    call: (request) =>
      connected(async () => ({
        result: await client.callTool({ name: request.name, arguments: request.arguments ?? {} }),
      })),

    /** {access_token_changed, refresh_token_changed}. */
    refresh,

    /** {access_token, refresh_token, scope, expires_in, token_type, claims, client_id}. */
    tokens: () => ({
      ...state.tokens,
      claims: claims(state.tokens?.access_token),
      client_id: state.client?.client_id ?? null,
    }),

    /** Puts rubbish in the access token's place; the refresh token stays. */
    forget_access: () => {
      state.tokens = { ...state.tokens, access_token: 'rubbish' };
      return {};
    },

    /** From now on nobody comes when the SDK wants a person: whatever needs one fails. */
    leave_alone: () => {
      attended = false;
      return {};
    },

    /** Waits until the server has opened the connection's event stream, and said something on it. */
    stream_opened: () => stream.opened.promise.then(() => ({})),

    /** Waits until it is over: {at, how: closed|broken}. */
    stream_ended: () => stream.ended.promise,

    /** The last request that came to the callback: {callback: {url, query, headers}}, or null. */
    callback: () => ({ callback: callback.last }),

    /** {exchanges: [{method, url, headers, body, status, www_authenticate, content_type, error}]} since the last `http`. */
    http: () => ({ exchanges: exchanges.splice(0) }),
  };

  for (const [name, operation] of Object.entries(operations)) operations[name] = explained(operation);

  await serve(operations, async () => {
    await client?.close();
    callback.close();
  });
}
