// The wire both test drivers speak: one JSON object a line on stdin, one JSON object a line answered on stdout.
// Everything else, console.log included, goes to stderr.

import { createInterface } from 'node:readline';

console.log = console.info = console.debug = console.error;

/** Writes one line: an answer, or an event sent while an operation is still under way. */
export function say(message) {
  if (process.stdout.writable) process.stdout.write(JSON.stringify(message) + '\n');
}

/**
 * Answers each line with the operation its `op` names, one at a time and in order, until `close` or the end of stdin.
 *
 * An operation returns what is to be added to `{"ok":true}`. What it throws is answered as `{"ok":false,"error":…}`,
 * with the members of the error's `answer`, where it has one.
 */
export async function serve(operations, close) {
  const input = createInterface({ input: process.stdin, crlfDelay: Infinity });
  for (const signal of ['SIGINT', 'SIGTERM', 'SIGHUP']) {
    process.once(signal, () => close().finally(() => process.exit(1)));
  }
  process.stdout.on('error', () => {}); // whoever asked is gone; the end of stdin tells us too
  let asked = false;
  for await (const line of input) {
    if (line.trim() === '') continue;
    let op;
    try {
      let request;
      ({ op, ...request } = JSON.parse(line));
      if (op === 'close') {
        asked = true;
        break;
      }
      if (!Object.hasOwn(operations, op)) {
        throw new Error(`no operation ${JSON.stringify(op)}; there are ${Object.keys(operations).join(', ')}, close`);
      }
      say({ ok: true, ...(await operations[op](request)) });
    } catch (error) {
      console.error(op, error);
      say({ ok: false, error: error.message, ...error.answer });
    }
  }
  await close();
  if (asked) say({ ok: true });
  process.exit(0);
}
