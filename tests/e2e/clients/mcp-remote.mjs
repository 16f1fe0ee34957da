// mcp-remote below an MCP client that knows stdio and nothing of OAuth, driven line by line (lines.mjs).
//
//   mcp-remote.mjs --url http://localhost:8080/mcp --state DIR [OPTION]...
//
// It keeps what it is given in DIR; it gets the options that are not ours. A page that it opens is said as
// {"event":"authorize","url":…}.

import { mkdirSync } from 'node:fs';
import { join } from 'node:path';
import { parseArgs } from 'node:util';
import { Client } from '@modelcontextprotocol/sdk/client/index.js';
import { StdioClientTransport } from '@modelcontextprotocol/sdk/client/stdio.js';
import { openDesktop } from './desktop.mjs';
import { say, serve } from './lines.mjs';
import { openWire } from './wire.mjs';

const { values: given, positionals } = parseArgs({
  allowPositionals: true,
  options: { url: { type: 'string' }, state: { type: 'string' } },
});
if (!given.url || !given.state) throw new Error('--url and --state are needed');
mkdirSync(given.state, { recursive: true });

const desktop = await openDesktop(given.state, (url) => say({ event: 'authorize', url }));
const wire = await openWire();
let client = null;

async function connect() {
  await client?.close();
  client = new Client({ name: 'portcullis-test-mcp-remote', version: '1.0.0' });
  const transport = new StdioClientTransport({
    command: process.execPath,
    args: [join(import.meta.dirname, 'node_modules/mcp-remote/dist/proxy.js'), given.url, ...positionals],
    env: {
      ...desktop.environment,
      ...wire.environment,
      HOME: given.state,
      TMPDIR: given.state,
      MCP_REMOTE_CONFIG_DIR: join(given.state, 'mcp-auth'),
    },
    stderr: 'inherit',
  });
  await client.connect(transport);
  return { server: client.getServerVersion() };
}

const operations = {
  /** Starts it, anew if it runs; {server}. */
  connect,

  /** {names}. */
  list: async () => ({ names: (await client.listTools()).tools.map(({ name }) => name) }),

  /** {name, arguments}: {result}. */
  call: async (request) => ({
    result: await client.callTool({ name: request.name, arguments: request.arguments ?? {} }),
  }),

  /** {exchanges, refused}, see wire.mjs. */
  http: () => wire.heard(),

  /** Lets the access tokens used so far run out, see wire.mjs. */
  expire: () => wire.expire(),
};

await serve(operations, async () => {
  await client?.close();
  desktop.close();
  wire.close();
});
