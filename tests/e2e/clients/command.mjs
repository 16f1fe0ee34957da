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

const PATIENCE = 120_000;

const { values: given, positionals } = parseArgs({ allowPositionals: true, options: { home: { type: 'string' } } });
if (!given.home || positionals.length === 0) throw new Error('--home and a program are needed');
mkdirSync(given.home, { recursive: true });

const desktop = await openDesktop(given.home, (url) => {
  if (!desktop.told(url)) say({ event: 'authorize', url });
});
const wire = await openWire();
const environment = { ...desktop.environment, ...wire.environment, HOME: given.home, TMPDIR: given.home };
let model = null;
let running = null;

/** What a terminal shows of this, roughly: without what moves the cursor and colours. */
const readable = (text) => text.replace(/\x1b(\[[0-?]*[ -/]*[@-~]|\][^\x07\x1b]*(\x07|\x1b\\)|[@-_])/g, '');

const quoted = (word) => `'${word.replaceAll("'", `'\\''`)}'`;

/**
 * Runs it to its end. With a terminal, stdout is what the terminal shows, both streams in one. `typed` is what somebody
 * types at the terminal, each once these words are on the screen and the server has answered such a request:
 * [{after, answered?, keys}].
 */
async function run({ arguments: more = [], env = {}, terminal = false, typed = [] }) {
  let command = [...positionals, ...more];
  if (terminal) command = ['script', '-qec', `stty rows 50 cols 200; ${command.map(quoted).join(' ')}`, '/dev/null'];
  const ahead = [...typed];
  let seen = 0;
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
  function type() {
    if (ahead.length === 0) return;
    const [{ after, answered, keys }] = ahead;
    if (!readable(output.stdout.slice(seen)).includes(after) || (answered && !wire.answered(answered))) return;
    seen = output.stdout.length;
    running.stdin.write(keys);
    ahead.shift();
  }
  const typist = setInterval(type, 100);
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
    if (late) throw new Error(`it did not end within ${PATIENCE / 1000} s, having said ${JSON.stringify(readable(output.stdout) + output.stderr)}`);
    return { code, ...output };
  } finally {
    clearTimeout(timer);
    clearInterval(typist);
    running = null;
  }
}

/** Starts it and leaves it running, once it has opened a page, which is answered, or once there is an answer at `url`. */
async function start({ arguments: more = [], env = {}, url }) {
  const opened = url === undefined ? desktop.next() : answers(url);
  running = spawn(positionals[0], [...positionals.slice(1), ...more], {
    cwd: given.home,
    env: { ...environment, ...model?.environment, ...env },
    stdio: ['ignore', 'pipe', 'pipe'],
  });
  let said = '';
  for (const name of ['stdout', 'stderr']) {
    running[name].setEncoding('utf8').on('data', (chunk) => {
      said = (said + chunk).slice(-4000);
      console.error(`[${name}]`, chunk);
    });
  }
  const ended = new Promise((_, reject) => {
    running.once('error', reject);
    running.once('close', () => reject(new Error(`it ended, having said ${JSON.stringify(said)}`)));
  });
  ended.catch(() => {}); // it may end when it likes from then on
  return { url: await Promise.race([opened, ended]) };
}

async function answers(url) {
  for (;;) {
    const answer = await fetch(url).catch(() => null);
    if (answer?.ok) return url;
    await new Promise((resolve) => setTimeout(resolve, 200));
  }
}

const operations = {
  /** {arguments, env?, terminal?}: {code, stdout, stderr}. */
  run,

  /** {arguments, env?, url?}: {url}; it runs until the end. */
  start,

  /** {tool, input}: from now on there is a language model that calls this tool (model.mjs); where it is: {url}. */
  model: async (request) => {
    if (model) model.think(request);
    else model = await openModel(request);
    return { url: model.url };
  },

  /** What the model heard: {offered, refused}, see model.mjs. */
  heard: () => model.heard(),

  /** {exchanges, refused}, see wire.mjs. */
  http: () => wire.heard(),

  /** Lets the access tokens used so far run out, see wire.mjs. */
  expire: () => wire.expire(),

  /** Has the access tokens that are issued from now on last for a second, as far as the client is told. */
  hasten: () => wire.hasten(),
};

await serve(operations, async () => {
  running?.kill('SIGKILL');
  model?.close();
  desktop.close();
  wire.close();
});
