// What the drivers of OAuth libraries share: how a client proves who it is, and what a test may match of a refusal.
//
//   NAME.mjs --issuer http://localhost:8080

import { createPrivateKey } from 'node:crypto';
import { parseArgs } from 'node:util';
import { serve } from './lines.mjs';

/** All that a library is told of the server. */
export const issuer = new URL(parseArgs({ options: { issuer: { type: 'string' } } }).values.issuer);

/** How a client of this description authenticates, in the terms of a library that has these four ways. */
export async function authentication(library, { method, client_secret, private_key, kid }) {
  switch (method) {
    case 'client_secret_basic':
      return library.ClientSecretBasic(client_secret);
    case 'client_secret_post':
      return library.ClientSecretPost(client_secret);
    case 'private_key_jwt': {
      const der = createPrivateKey(private_key).export({ type: 'pkcs8', format: 'der' });
      const algorithm = { name: 'ECDSA', namedCurve: 'P-256' };
      const key = await crypto.subtle.importKey('pkcs8', der, algorithm, false, ['sign']);
      return library.PrivateKeyJwt({ key, kid });
    }
    default:
      return library.None();
  }
}

/** What a test may want to match of a refusal. */
function explained(operation) {
  return async (request) => {
    try {
      return await operation(request);
    } catch (error) {
      error.answer = { code: error.error ?? error.cause?.error ?? error.code ?? null, status: error.status ?? null };
      throw error;
    }
  };
}

/** Answers with these operations until the end. */
export const drive = (operations) =>
  serve(
    Object.fromEntries(Object.entries(operations).map(([name, operation]) => [name, explained(operation)])),
    async () => {},
  );
