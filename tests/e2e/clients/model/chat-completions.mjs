// OpenAI's Chat Completions API, which most servers of local models speak.

import { events, json } from './sse.mjs';

export const path = /\/chat\/completions$/;

export const tools = ({ tools = [] }) => tools.map((tool) => tool.function.name);

export const result = ({ messages }) => {
  const last = messages.findLast(({ role }) => role === 'tool' || role === 'user');
  return last?.role === 'tool' ? last.content : undefined;
};

export function write({ tool, input, text }, { model, stream }) {
  const message = tool
    ? {
        role: 'assistant',
        content: null,
        tool_calls: [{ index: 0, id: 'call_1', type: 'function', function: { name: tool, arguments: JSON.stringify(input) } }],
      }
    : { role: 'assistant', content: text };
  const finish_reason = tool ? 'tool_calls' : 'stop';
  const usage = { prompt_tokens: 1, completion_tokens: 1, total_tokens: 2 };
  const common = { id: 'chatcmpl-1', created: 1, model };
  if (!stream) {
    return json({ ...common, object: 'chat.completion', choices: [{ index: 0, message, finish_reason }], usage });
  }
  const chunk = (choices, more = {}) => ({ ...common, object: 'chat.completion.chunk', choices, ...more });
  return events([
    chunk([{ index: 0, delta: message, finish_reason: null }]),
    chunk([{ index: 0, delta: {}, finish_reason }]),
    chunk([], { usage }),
    '[DONE]',
  ]);
}
