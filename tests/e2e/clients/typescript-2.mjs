// An MCP client on the TypeScript SDK 2.x (application.mjs).

import {
  Client,
  refreshAuthorization,
  StreamableHTTPClientTransport,
  UnauthorizedError,
} from '@modelcontextprotocol/client';
import { application } from './application.mjs';

await application({
  title: 'TypeScript SDK 2',
  protocols: { legacy: 'legacy', auto: 'auto', modern: { pin: '2026-07-28' } },
  UnauthorizedError,
  refreshAuthorization,
  make: (url, mode, options) => ({
    client: new Client(
      { name: 'portcullis-test-typescript-2', version: '1.0.0' },
      mode === undefined ? {} : { versionNegotiation: { mode } },
    ),
    transport: new StreamableHTTPClientTransport(url, options),
  }),
  protocolVersion: (client) => client.getNegotiatedProtocolVersion(),
  list: (client) => client.listTools(undefined, { cacheMode: 'refresh' }),
  finish: (transport, query) => transport.finishAuth(query),
});
