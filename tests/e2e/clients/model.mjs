// A language model, as an air-gapped network would have one, with one thought: it calls the tool that it was told to
// call, and then says what came back. It is behind the APIs that the clients speak (model/*.mjs).

import { createServer } from 'node:http';
import { text } from 'node:stream/consumers';
import * as anthropic from './model/anthropic.mjs';
import * as chatCompletions from './model/chat-completions.mjs';
import * as gemini from './model/gemini.mjs';
import * as responses from './model/responses.mjs';

const APIS = [anthropic, chatCompletions, gemini, responses];

export async function openModel(first) {
  let thought = first;
  const offered = new Set();
  const refused = [];
  const server = createServer(async (incoming, outgoing) => {
    const body = await text(incoming);
    const { pathname } = new URL(incoming.url, 'http://model');
    const listed = incoming.method === 'GET' && /\/models$/.test(pathname);
    if (listed) {
      outgoing.writeHead(200, { 'content-type': 'application/json' });
      outgoing.end(JSON.stringify({ object: 'list', data: [{ id: 'one-thought', object: 'model', owned_by: 'test' }] }));
      return;
    }
    const asked = JSON.parse(body || '{}');
    const api = APIS.find(({ path, onlyStreams }) => path.test(pathname) && (asked.stream || !onlyStreams));
    if (incoming.method !== 'POST' || api === undefined) {
      refused.push(`${incoming.method} ${incoming.url}`);
      outgoing.writeHead(404).end();
      return;
    }
    const tools = api.tools(asked);
    for (const tool of tools) offered.add(tool);
    const result = api.result(asked);
    // A question without any tool is about the conversation: its title, say. Of some tools a model is told only later.
    const said = result ?? (tools.length > 0 ? undefined : 'A question about falcons.');
    const turn = said === undefined ? thought : { text: typeof said === 'string' ? said : JSON.stringify(said) };
    const { type, content } = api.write(turn, asked, pathname);
    outgoing.writeHead(200, { 'content-type': type });
    outgoing.end(content);
  });
  await new Promise((resolve) => server.listen(0, '127.0.0.1', resolve));
  const url = `http://127.0.0.1:${server.address().port}`;
  return {
    url,
    environment: { ANTHROPIC_BASE_URL: url, ANTHROPIC_API_KEY: 'placeholder' },
    /** Gives it another thought. */
    think: (next) => {
      thought = next;
    },
    /** The names of all tools that it was offered, and the requests that it did not understand. */
    heard: () => ({ offered: [...offered].sort(), refused }),
    close: () => {
      server.close();
      server.closeAllConnections();
    },
  };
}
