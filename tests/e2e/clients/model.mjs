// A language model behind Anthropic's Messages API, as an air-gapped network would have one, with one thought: it calls
// the tool it was told to call, and then says what came back.

import { createServer } from 'node:http';
import { text } from 'node:stream/consumers';

export async function openModel({ tool, input }) {
  const server = createServer(async (incoming, outgoing) => {
    const asked = JSON.parse((await text(incoming)) || '{}');
    if (incoming.method !== 'POST' || !incoming.url.startsWith('/v1/messages?') || !asked.stream) {
      outgoing.writeHead(404).end();
      return;
    }
    const said = asked.messages.flatMap(({ content }) => content);
    const result = said.findLast(({ type }) => type === 'tool_result');
    outgoing.writeHead(200, { 'content-type': 'text/event-stream' });
    for (const event of result ? answer(asked.model, result) : call(asked.model, tool, input)) {
      outgoing.write(`event: ${event.type}\ndata: ${JSON.stringify(event)}\n\n`);
    }
    outgoing.end();
  });
  await new Promise((resolve) => server.listen(0, '127.0.0.1', resolve));
  return {
    environment: { ANTHROPIC_BASE_URL: `http://127.0.0.1:${server.address().port}`, ANTHROPIC_API_KEY: 'placeholder' },
    close: () => {
      server.close();
      server.closeAllConnections();
    },
  };
}

const call = (model, name, input) =>
  message(model, 'tool_use', { type: 'tool_use', id: 'toolu_1', name, input: {} }, [
    { type: 'input_json_delta', partial_json: JSON.stringify(input) },
  ]);

const answer = (model, { content }) =>
  message(model, 'end_turn', { type: 'text', text: '' }, [{ type: 'text_delta', text: JSON.stringify(content) }]);

function message(model, stop_reason, content_block, deltas) {
  const usage = { input_tokens: 1, output_tokens: 1 };
  const empty = { id: 'msg_1', type: 'message', role: 'assistant', model, content: [], stop_reason: null, stop_sequence: null };
  return [
    { type: 'message_start', message: { ...empty, usage } },
    { type: 'content_block_start', index: 0, content_block },
    ...deltas.map((delta) => ({ type: 'content_block_delta', index: 0, delta })),
    { type: 'content_block_stop', index: 0 },
    { type: 'message_delta', delta: { stop_reason, stop_sequence: null }, usage },
    { type: 'message_stop' },
  ];
}
