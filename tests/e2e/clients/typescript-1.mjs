// An MCP client on the TypeScript SDK 1.x, which most published clients still stand on (application.mjs).

import { refreshAuthorization, UnauthorizedError } from '@modelcontextprotocol/sdk/client/auth.js';
import { Client } from '@modelcontextprotocol/sdk/client/index.js';
import { StreamableHTTPClientTransport } from '@modelcontextprotocol/sdk/client/streamableHttp.js';
import { application } from './application.mjs';

await application({
  title: 'TypeScript SDK 1',
  protocols: {}, // it offers its newest and takes what comes
  UnauthorizedError,
  refreshAuthorization,
  make: (url, _, options) => ({
    client: new Client({ name: 'portcullis-test-typescript-1', version: '1.0.0' }),
    transport: new StreamableHTTPClientTransport(url, options),
  }),
  protocolVersion: (_, transport) => transport.protocolVersion,
  list: (client) => client.listTools(),
  finish(transport, query) {
    // It takes the code alone; reading a refusal is left to us.
    if (query.has('error')) {
      throw Object.assign(new Error(query.get('error_description') ?? query.get('error')), { code: query.get('error') });
    }
    return transport.finishAuth(query.get('code'));
  },
});
