// A command line program that is an MCP client, driven line by line (lines.mjs).
//
//   command.mjs --home DIR -- PROGRAM [ARGUMENT]...
//
// It lives in DIR and finds of our environment nothing but PATH, with a desktop (desktop.mjs) and a proxy that listens
// in (wire.mjs). A page that it opens is said as {"event":"authorize","url":…} while its operation is under way.

import { spawn } from 'node:child_process';
import { mkdirSync } from 'node:fs';
import { parseArgs } from 'node:util';
import { openDesktop } from './desktop.mjs';
import { say, serve } from './lines.mjs';
import { openModel } from './model.mjs';
import { openWire } from './wire.mjs';

const PATIENCE = 60_000;

const { values: given, positionals } = parseArgs({ allowPositionals: true, options: { home: { type: 'string' } } });
if (!given.home || positionals.length === 0) throw new Error('--home and a program are needed');
mkdirSync(given.home, { recursive: true });

const desktop = await openDesktop(given.home, (url) => say({ event: 'authorize', url }));
const wire = await openWire();
const environment = { ...desktop.environment, ...wire.environment, HOME: given.home, TMPDIR: given.home };
let model = null;
let running = null;

const quoted = (word) => `'${word.replaceAll("'", `'\\''`)}'`;

/** Runs it to its end. With a terminal, stdout is what the terminal shows, both streams in one. */
async function run({ arguments: more = [], env = {}, terminal = false }) {
  let command = [...positionals, ...more];
  if (terminal) command = ['script', '-qec', command.map(quoted).join(' '), '/dev/null'];
  running = spawn(command[0], command.slice(1), {
    cwd: given.home,
    env: { ...environment, ...model?.environment, ...env },
    stdio: [terminal ? 'pipe' : 'ignore', 'pipe', 'pipe'], // nobody types, but the keyboard is there
  });
  const output = { stdout: '', stderr: '' };
  for (const name of ['stdout', 'stderr']) {
    running[name].setEncoding('utf8').on('data', (chunk) => {
      output[name] += chunk;
      console.error(`[${name}]`, chunk);
    });
  }
  let late = false;
  const timer = setTimeout(() => {
    late = true;
    running.kill('SIGKILL');
  }, PATIENCE);
  try {
    const code = await new Promise((resolve, reject) => {
      running.once('error', reject);
      running.once('close', resolve);
    });
    if (late) throw new Error(`it did not end within ${PATIENCE / 1000} s, having said ${JSON.stringify(output)}`);
    return { code, ...output };
  } finally {
    clearTimeout(timer);
    running = null;
  }
}

const operations = {
  /** {arguments, env?, terminal?}: {code, stdout, stderr}. */
  run,

  /** {tool, input}: from now on there is a language model that calls this tool (model.mjs). */
  model: async (request) => {
    model = await openModel(request);
    return {};
  },

  /** {exchanges, refused}, see wire.mjs. */
  http: () => wire.heard(),

  /** Lets the access tokens used so far run out, see wire.mjs. */
  expire: () => wire.expire(),
};

await serve(operations, async () => {
  running?.kill('SIGKILL');
  model?.close();
  desktop.close();
  wire.close();
});
