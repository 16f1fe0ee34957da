// OpenAI's Responses API, as Codex speaks it.

import { events } from './sse.mjs';

export const path = /\/responses$/;
export const onlyStreams = true;

/** A tool of a namespace is `namespace/name`. */
export const tools = ({ tools = [] }) =>
  tools.flatMap(({ type, name, tools: inner }) => (type === 'namespace' ? inner.map((one) => `${name}/${one.name}`) : [name ?? type]));

export const result = ({ input }) => input.findLast(({ type }) => type === 'function_call_output')?.output;

export function write({ tool, input, text }) {
  const response = { id: 'resp_1', object: 'response', output: [] };
  const [name, namespace] = (tool ?? '').split('/').reverse();
  const item = tool
    ? { type: 'function_call', id: 'fc_1', call_id: 'call_1', name, arguments: JSON.stringify(input), ...(namespace && { namespace }) }
    : { type: 'message', id: 'msg_1', role: 'assistant', status: 'completed', content: [{ type: 'output_text', text, annotations: [] }] };
  const usage = { input_tokens: 1, output_tokens: 1, total_tokens: 2 };
  return events([
    { type: 'response.created', response: { ...response, status: 'in_progress' } },
    { type: 'response.output_item.done', output_index: 0, item },
    { type: 'response.completed', response: { ...response, status: 'completed', output: [item], usage } },
  ]);
}
