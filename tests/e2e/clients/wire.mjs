// What passes between a client and the server, seen from outside: a forward proxy that writes it down.
//
// A client that honours HTTP_PROXY needs no other co-operation. Nothing passes that is not for this machine: what a
// client wanted from elsewhere is refused and kept, so that a test can tell whether the client needs a network.

import { createServer, request as ask } from 'node:http';
import { pipeline } from 'node:stream';
import { text } from 'node:stream/consumers';

const LOOPBACK = ['localhost', '127.0.0.1', '[::1]'];

export async function openWire() {
  const exchanges = [];
  const refused = new Set();
  const credentials = { seen: new Set(), expired: new Set() };
  let hasty = false;

  const server = createServer(async (incoming, outgoing) => {
    const url = new URL(incoming.url, `http://${incoming.headers.host}`);
    if (!LOOPBACK.includes(url.hostname)) {
      refused.add(url.host);
      outgoing.writeHead(403).end();
      return;
    }
    const { 'proxy-connection': _, ...headers } = incoming.headers;
    const body = await text(incoming).catch(() => null);
    if (body === null) return; // it went away
    const exchange = note(exchanges, { method: incoming.method, url: url.href, headers, body });
    if (headers.authorization) {
      credentials.seen.add(headers.authorization);
      if (credentials.expired.has(headers.authorization)) headers.authorization = 'Bearer rubbish';
    }
    const forwarded = ask(url, { agent: false, method: incoming.method, headers });
    outgoing.on('close', () => forwarded.destroy());
    forwarded.on('error', (error) => {
      exchange.error = String(error);
      outgoing.destroy();
    });
    forwarded.on('response', (answer) => {
      exchange.status = answer.statusCode;
      exchange.www_authenticate = answer.headers['www-authenticate'] ?? null;
      exchange.content_type = answer.headers['content-type'] ?? null;
      if (hasty && url.pathname === '/token' && answer.statusCode === 200) {
        hasten(answer, outgoing);
        return;
      }
      outgoing.writeHead(answer.statusCode, answer.rawHeaders);
      pipeline(answer, outgoing, () => {}); // either end may go away
    });
    forwarded.end(body);
  });
  // Some clients tunnel plain HTTP, too. What is inside the tunnel then comes to the handler above.
  server.on('connect', (incoming, socket, head) => {
    socket.on('error', () => {});
    if (!LOOPBACK.includes(incoming.url.replace(/:\d+$/, ''))) {
      refused.add(incoming.url);
      socket.end('HTTP/1.1 403 Forbidden\r\n\r\n');
      return;
    }
    socket.write('HTTP/1.1 200 Connection Established\r\n\r\n');
    socket.unshift(head);
    server.emit('connection', socket);
  });
  await new Promise((resolve) => server.listen(0, '127.0.0.1', resolve));
  const url = `http://127.0.0.1:${server.address().port}`;

  return {
    /** For the client's environment. */
    environment: { HTTP_PROXY: url, http_proxy: url, HTTPS_PROXY: url, https_proxy: url, NODE_USE_ENV_PROXY: '1' },
    /** {exchanges, refused} since the last call. */
    heard: () => {
      const elsewhere = [...refused].sort();
      refused.clear();
      return { exchanges: exchanges.splice(0), refused: elsewhere };
    },
    /** From now on the server hears rubbish in the place of every access token used so far, as if it had run out. */
    expire: () => {
      for (const one of credentials.seen) credentials.expired.add(one);
    },
    /** Whether a request with these words in its body was answered with 200 since the last call of `heard`. */
    answered: (words) => exchanges.some(({ status, body }) => status === 200 && body?.includes(words)),
    /** From now on each access token is said to be good for a second. */
    hasten: () => {
      hasty = true;
    },
    close: () => {
      server.close();
      server.closeAllConnections();
    },
  };
}

async function hasten(answer, outgoing) {
  const token = { ...JSON.parse(await text(answer)), expires_in: 1 };
  const { 'content-length': _, ...headers } = answer.headers;
  outgoing.writeHead(200, headers);
  outgoing.end(JSON.stringify(token));
}

/** Adds an exchange that is not answered yet; of a credential the scheme is enough. */
export function note(exchanges, { method, url, headers, body }) {
  const shown = { ...headers };
  if (shown.authorization) shown.authorization = shown.authorization.split(' ')[0];
  const exchange = {
    method,
    url,
    headers: shown,
    body: body || null,
    status: null, // until it is answered: a GET stream may wait for long
    www_authenticate: null,
    content_type: null,
    error: null,
  };
  exchanges.push(exchange);
  return exchange;
}
