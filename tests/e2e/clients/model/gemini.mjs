// The API of Google's Gemini models.

import { events, json } from './sse.mjs';

export const path = /:(streamGenerateContent|generateContent|countTokens)$/;

export const tools = ({ tools = [] }) => tools.flatMap(({ functionDeclarations = [] }) => functionDeclarations.map(({ name }) => name));

export const result = ({ contents = [] }) =>
  contents
    .flatMap(({ parts = [] }) => parts)
    .findLast(({ functionResponse }) => functionResponse)?.functionResponse.response;

export function write({ tool, input, text }, _asked, pathname) {
  if (pathname.endsWith(':countTokens')) return json({ totalTokens: 1 });
  const part = tool ? { functionCall: { name: tool, args: input } } : { text };
  const answer = {
    candidates: [{ index: 0, content: { role: 'model', parts: [part] }, finishReason: 'STOP' }],
    usageMetadata: { promptTokenCount: 1, candidatesTokenCount: 1, totalTokenCount: 2 },
  };
  return pathname.endsWith(':streamGenerateContent') ? events([answer]) : json(answer);
}
