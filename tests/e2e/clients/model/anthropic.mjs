// Anthropic's Messages API.

import { events } from './sse.mjs';

export const path = /\/v1\/messages$/;
export const onlyStreams = true;

export const tools = ({ tools = [] }) => tools.map(({ name }) => name);

export const result = ({ messages }) =>
  messages
    .flatMap(({ content }) => content)
    .findLast(({ type }) => type === 'tool_result')?.content;

export const write = ({ tool, input, text }, { model }) =>
  events(
    tool
      ? message(model, 'tool_use', { type: 'tool_use', id: 'toolu_1', name: tool, input: {} }, [
          { type: 'input_json_delta', partial_json: JSON.stringify(input) },
        ])
      : message(model, 'end_turn', { type: 'text', text: '' }, [{ type: 'text_delta', text }]),
  );

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
