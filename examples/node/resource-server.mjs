// A resource server that accepts Portcullis' access tokens, in Node with jose.
//
//     npm install
//     portcullis rs add notes --audience http://localhost:9000/notes
//     CLIENT_ID=c_… CLIENT_SECRET=cs_… node resource-server.mjs \
//         --issuer http://localhost:8080 --audience http://localhost:9000/notes --port 9000
//
// Without CLIENT_ID it looks at signature and expiry alone (`portcullis rs add … --expiry-only`): a revoked token then
// works until it expires.
//
// `Tokens` is the part to take along; what is below it is a small server that shows how to answer.

import { createServer } from 'node:http';
import { parseArgs } from 'node:util';
import { createRemoteJWKSet, errors, jwtVerify } from 'jose';

const LEEWAY = 60; // seconds by which clocks may differ
const KEYS_KEPT = 300_000; // milliseconds: the max-age of the key set
const COOLDOWN = 30_000; // milliseconds between two looks for a key that is not there
const REMEMBERED = 5_000; // milliseconds for which an answer to a question may be used again, for reading
const LONGEST = 8192; // bytes
const REQUIRED = ['iss', 'sub', 'aud', 'exp', 'iat', 'jti', 'client_id'];

/** The token is not good. Its holder is told no more than that. */
class Refused extends Error {}

/** It could not be found out whether the token is good: refuse, and say that trying again may help. */
class Unavailable extends Error {}

async function fetchJson(url, options) {
  try {
    const response = await fetch(url, { ...options, redirect: 'error', signal: AbortSignal.timeout(5000) });
    if (!response.ok) throw new Error(`status ${response.status}`);
    return await response.json();
  } catch (error) {
    throw new Unavailable(error.message, { cause: error });
  }
}

/** Tells whether an access token is good for this resource server, and what may be done with it. */
class Tokens {
  static async of(issuer, audience, { clientId, clientSecret } = {}) {
    // RFC 8414: the issuer's own document says where everything is, and must say that it is the issuer's.
    const metadata = await fetchJson(`${issuer}/.well-known/oauth-authorization-server`);
    if (metadata.issuer !== issuer) throw new Error("the metadata is another issuer's");
    const tokens = new Tokens();
    Object.assign(tokens, { issuer, audience, answers: new Map() });
    // Kept for as long as the issuer allows. A key that is not there is looked for every 30 seconds at most: a new
    // one is published a day before it signs, and strangers must not have the issuer asked as often as they like.
    tokens.keys = createRemoteJWKSet(new URL(metadata.jwks_uri), {
      cacheMaxAge: KEYS_KEPT,
      cooldownDuration: COOLDOWN,
      timeoutDuration: 5000,
    });
    tokens.introspection = clientId && metadata.introspection_endpoint;
    tokens.credentials = `Basic ${Buffer.from(`${clientId}:${clientSecret}`).toString('base64')}`;
    return tokens;
  }

  /** The token's claims. `scope` in them is what counts at this moment. */
  async check(token, writes) {
    const claims = await this.#verify(token);
    if (!this.introspection) return claims;
    const answer = await this.#ask(token, claims.jti, writes);
    if (answer.active !== true) throw new Refused('revoked');
    return { ...claims, ...answer };
  }

  /** Signature and claims (RFC 9068 §4). Nothing is asked of the network but, now and then, the keys. */
  async #verify(token) {
    if (token.length > LONGEST) throw new Refused('too long');
    let claims;
    try {
      // The key is chosen by `kid` and is good for its own algorithm alone.
      const verified = await jwtVerify(token, this.keys, {
        issuer: this.issuer,
        audience: this.audience,
        typ: 'at+jwt', // other kinds of tokens are signed with the same keys
        algorithms: ['ES256', 'RS256', 'EdDSA'],
        clockTolerance: LEEWAY,
        requiredClaims: REQUIRED,
      });
      claims = verified.payload;
    } catch (error) {
      // What is wrong with the token says so by its class; everything else is about reaching the keys.
      const aboutKeys = ['ERR_JWKS_TIMEOUT', 'ERR_JWKS_INVALID', 'ERR_JOSE_GENERIC'].includes(error.code);
      if (error instanceof errors.JOSEError && !aboutKeys) throw new Refused(error.message, { cause: error });
      throw new Unavailable(error.message, { cause: error });
    }
    if ([claims.aud].flat().length !== 1) throw new Refused('for others as well');
    return claims;
  }

  /** Introspection (RFC 7662). What writes is asked about every time, reading may use an answer again. */
  async #ask(token, jti, writes) {
    const now = performance.now();
    const known = this.answers.get(jti);
    if (known && !writes && now < known.at + REMEMBERED) return known.answer;
    const answer = await fetchJson(this.introspection, {
      method: 'POST',
      headers: { authorization: this.credentials },
      body: new URLSearchParams({ token }),
    });
    for (const [key, { at }] of this.answers) if (now >= at + REMEMBERED) this.answers.delete(key);
    this.answers.set(jti, { at: now, answer });
    return answer;
  }
}

const { values } = parseArgs({
  options: { issuer: { type: 'string' }, audience: { type: 'string' }, port: { type: 'string', default: '9000' } },
});
const tokens = await Tokens.of(values.issuer, values.audience, {
  clientId: process.env.CLIENT_ID,
  clientSecret: process.env.CLIENT_SECRET,
});
const resource = new URL(values.audience);
const metadataPath = `/.well-known/oauth-protected-resource${resource.pathname}`;
const challenge = `Bearer resource_metadata="${resource.origin}${metadataPath}", scope="docs.read"`;
const NEEDS = { GET: 'docs.read', POST: 'docs.read' };

/** `GET /notes` reads, `POST /notes` writes. */
async function answer(request) {
  if (request.method === 'GET' && request.url === metadataPath) {
    // RFC 9728: how clients find out whom to ask for a token.
    const body = {
      resource: values.audience,
      authorization_servers: [values.issuer],
      scopes_supported: ['docs.read'],
      bearer_methods_supported: ['header'],
    };
    return { status: 200, body };
  }
  if (!Object.hasOwn(NEEDS, request.method)) return { status: 405, headers: { allow: 'GET, POST' }, body: {} };
  const writes = request.method === 'POST';
  const bearer = /^bearer +(.*)$/i.exec(request.headers.authorization ?? '');
  if (!bearer) return { status: 401, headers: { 'www-authenticate': challenge }, body: { error: 'unauthenticated' } };
  let claims;
  try {
    claims = await tokens.check(bearer[1].trim(), writes);
  } catch (error) {
    if (error instanceof Refused) {
      const headers = { 'www-authenticate': `${challenge}, error="invalid_token"` };
      return { status: 401, headers, body: { error: 'invalid_token' } };
    }
    if (error instanceof Unavailable) {
      return { status: 503, headers: { 'retry-after': '5' }, body: { error: 'temporarily_unavailable' } };
    }
    throw error;
  }
  if (!claims.scope.split(' ').includes(NEEDS[request.method])) {
    const headers = { 'www-authenticate': `${challenge}, error="insufficient_scope"` };
    return { status: 403, headers, body: { error: 'insufficient_scope' } };
  }
  return { status: 200, body: { sub: claims.sub, client_id: claims.client_id, wrote: writes } };
}

const server = createServer(async (request, response) => {
  request.resume();
  let result;
  try {
    result = await answer(request);
  } catch (error) {
    console.error(error);
    result = { status: 500, body: { error: 'server_error' } };
  }
  const headers = { 'content-type': 'application/json', 'cache-control': 'no-store', ...result.headers };
  response.writeHead(result.status, headers).end(JSON.stringify(result.body));
});
server.listen(Number(values.port), '127.0.0.1', () => console.log(JSON.stringify({ port: server.address().port })));
