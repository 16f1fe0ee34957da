// A person with a browser and a passkey: headless Chromium and a virtual authenticator, driven line by line (lines.mjs).
//
// The operations stand in `operations` below. Elements are found by their data-testid and nothing else, but for `use`,
// which is for the pages of other people.

import { accessSync, constants, mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { delimiter, join } from 'node:path';
import { chromium } from 'playwright-core';
import { inspect, tabTo } from './accessibility.mjs';
import { serve } from './lines.mjs';

const PATIENCE = 20_000;

const scratch = mkdtempSync(join(tmpdir(), 'portcullis-browser-'));
const context = await chromium.launchPersistentContext(join(scratch, 'profile'), {
  artifactsDir: join(scratch, 'artifacts'),
  executablePath: process.env.CHROMIUM || onPath('chromium', 'chromium-browser', 'google-chrome'),
  chromiumSandbox: false, // tests run as root, too
  handleSIGHUP: false, // lines.mjs closes on signals
  handleSIGINT: false,
  handleSIGTERM: false,
  args: [
    '--headless',
    '--no-sandbox',
    '--disable-gpu',
    '--disable-quic',
    '--no-first-run',
    '--disable-background-networking',
    '--disable-component-update',
    '--disable-sync',
  ],
});
context.setDefaultTimeout(PATIENCE);

function onPath(...names) {
  for (const name of names) {
    for (const folder of (process.env.PATH ?? '').split(delimiter)) {
      try {
        accessSync(join(folder, name), constants.X_OK);
        return join(folder, name);
      } catch {
        // look further
      }
    }
  }
  throw new Error(`no browser: none of ${names.join(', ')} is on PATH, and CHROMIUM is not set`);
}

/**
 * The authenticators this person owns, and which of them is at hand.
 *
 * DevTools ties a virtual authenticator to one page. Ours outlive pages: each keeps its credentials here while no
 * page has it. One is at hand at a time, as it would be for a person; two that both answer would race.
 */
const drawer = {
  owned: [{ transport: 'internal', credentials: [] }],
  atHand: 0,
  /** Set while a page has the authenticator at hand: the page's DevTools session and the authenticator's id there. */
  plugged: null,

  get current() {
    return this.owned[this.atHand];
  },

  async plug(devtools) {
    const { authenticatorId } = await devtools.send('WebAuthn.addVirtualAuthenticator', {
      options: {
        protocol: 'ctap2',
        transport: this.current.transport,
        hasResidentKey: true,
        hasUserVerification: true,
        isUserVerified: true,
        automaticPresenceSimulation: true,
        ...this.current.options,
      },
    });
    for (const credential of this.current.credentials) {
      await devtools.send('WebAuthn.addCredential', { authenticatorId, credential });
    }
    this.plugged = { devtools, authenticatorId };
  },

  /** Brings `credentials` up to date with what happened in the page, signature counters included. */
  async read() {
    if (this.plugged === null) return;
    const { devtools, authenticatorId } = this.plugged;
    const { credentials } = await devtools.send('WebAuthn.getCredentials', { authenticatorId });
    this.current.credentials = credentials;
  },

  async unplug() {
    if (this.plugged === null) return;
    await this.read();
    const { devtools, authenticatorId } = this.plugged;
    await devtools.send('WebAuthn.removeVirtualAuthenticator', { authenticatorId });
    this.plugged = null;
  },

  async change(index) {
    if (this.owned[index] === undefined) throw new Error(`there is no authenticator ${index}`);
    const devtools = this.plugged?.devtools;
    await this.unplug();
    this.atHand = index;
    if (devtools !== undefined) await this.plug(devtools);
  },
};

let page = null;
/** The errors on the page's console: a blocked form or script says so nowhere else. */
let complaints = [];

/** Opens a fresh page with the authenticator at hand plugged in, and closes the one before. */
async function freshPage() {
  await drawer.unplug();
  const previous = context.pages();
  page = await context.newPage();
  const heard = (complaints = []);
  page.on('console', (message) => {
    console.error(`[page ${message.type()}]`, message.text());
    if (message.type() === 'error') heard.push(message.text());
  });
  page.on('pageerror', (error) => {
    console.error('[page error]', error.message);
    heard.push(error.message);
  });
  for (const one of previous) await one.close();
  const devtools = await context.newCDPSession(page);
  await devtools.send('WebAuthn.enable', { enableUI: false });
  await drawer.plug(devtools);
}

async function visit(url) {
  await freshPage();
  return go(url);
}

async function go(url) {
  try {
    const response = await page.goto(url, { waitUntil: 'load', timeout: PATIENCE });
    return response?.status() ?? null;
  } catch (cause) {
    throw new Error(cause.message.split('\n')[0], { cause });
  }
}

function currentPage() {
  if (page === null) throw new Error('no page is open yet');
  return page;
}

const selector = (testid) => `[data-testid="${testid}"]:visible`;
const element = (testid) => page.locator(selector(testid)).first();
const isThere = (testid) => element(testid).isVisible();

/**
 * Waits until one of the named elements is visible and answers which; the first named wins.
 *
 * An `error` element ends the wait with its text. So does patience, saying where we are and what the page says.
 */
async function oneOf(...testids) {
  const any = [...testids, 'error'].map(selector).join(', ');
  try {
    await page.locator(any).first().waitFor({ timeout: PATIENCE });
  } catch (cause) {
    throw await lost(`waited for ${testids.join(' or ')}`, cause);
  }
  if (await isThere('error')) throw await refused();
  for (const testid of testids) {
    if (await isThere(testid)) return testid;
  }
  return oneOf(...testids); // it went away between the two looks
}

async function refused() {
  const text = await element('error').innerText();
  return Object.assign(new Error(text), { answer: { page_error: true, url: page.url() } });
}

async function lost(what, cause) {
  const said = await visibleText().catch(() => '');
  const text = [`${what} in vain at ${page.url()}, where the page says: ${JSON.stringify(said.slice(0, 1500))}`];
  if (complaints.length > 0) text.push(`and the console: ${JSON.stringify(complaints.slice(0, 5))}`);
  return new Error(text.join(', '), { cause });
}

const visibleText = () => page.locator('body').innerText({ timeout: 2_000 });

async function click(testid) {
  try {
    await element(testid).click({ timeout: PATIENCE }); // waits until it is enabled
  } catch (cause) {
    throw await lost(`tried to click ${testid}`, cause);
  }
}

const where = async () => ({ url: page.url(), title: await page.title() });

/** Resolves with the first top-level navigation whose origin is not `origin`, once it is answered or has failed. */
function leaving(origin) {
  return new Promise((resolve) => {
    const look = async (request) => {
      if (!request.isNavigationRequest() || request.frame() !== page.mainFrame()) return;
      if (new URL(request.url()).origin === origin) return;
      page.off('request', look);
      await request.response().catch(() => null); // a callback nobody listens at is still where we were sent
      resolve(request.url());
    };
    page.on('request', look);
  });
}

async function authorize({ url, decision }) {
  if (decision !== 'approve' && decision !== 'deny') throw new Error('decision is "approve" or "deny"');
  await freshPage();
  const gone = leaving(new URL(url).origin);
  const left = gone.then(() => 'left');
  const firstOf = (...testids) => {
    const seen = oneOf(...testids);
    seen.catch(() => {}); // it loses its page's elements once we have left
    return Promise.race([left, seen]);
  };
  // A remembered consent redirects at once, to a place that may not answer: that is for `gone` to tell.
  const opened = go(url);
  opened.catch(() => {});
  await Promise.race([left, opened]);

  let seen = await firstOf('consent-approve', 'consent-deny', 'passkey-login');
  if (seen === 'passkey-login') {
    await click('passkey-login');
    seen = await firstOf('consent-approve', 'consent-deny');
  }
  let clientName = null;
  let consentText = null;
  if (seen !== 'left') {
    clientName = (await element('client-name').innerText()).trim();
    consentText = await visibleText();
    await click(`consent-${decision}`);
  }
  const redirectedTo = await Promise.race([gone, oneOf('the redirect')]); // the second only throws
  return { client_name: clientName, redirected_to: redirectedTo, consent_text: consentText };
}

/**
 * Presses `passkey-add`, which asks for an assertion and then makes a passkey that must not live beside the first.
 *
 * The page excludes the credentials it knows, so the authenticator that holds one may not be there when it calls
 * `create`; and the new one, holding none, may not be there when it calls `get`. We change them between the two, as
 * a person would, by holding `create` back until it is done.
 */
async function addPasskey({ options }) {
  currentPage();
  if (await isThere('passkey-added')) await go(page.url()); // of the one before
  await holdBackCreate();
  const before = drawer.atHand;
  const added = drawer.owned.push({ transport: 'usb', credentials: [], options }) - 1;
  takenForCreate = added;
  try {
    await oneOf('passkey-add');
    await click('passkey-add');
    await oneOf('passkey-added');
    await drawer.read();
    if (drawer.owned[added].credentials.length === 0) throw new Error('the page says it is added, yet no passkey was made');
  } finally {
    takenForCreate = null;
    await drawer.change(before);
    if (drawer.owned[added].credentials.length === 0) drawer.owned.pop();
  }
  return { authenticator: added, ...(await where()) };
}

/** The authenticator to take to hand before `navigator.credentials.create` goes on. */
let takenForCreate = null;
const heldBack = new WeakSet();

async function holdBackCreate() {
  if (heldBack.has(page)) return;
  heldBack.add(page);
  await page.exposeFunction('takeAuthenticator', async () => {
    if (takenForCreate !== null) await drawer.change(takenForCreate);
  });
  const holdBack = () => {
    const create = navigator.credentials.create.bind(navigator.credentials);
    navigator.credentials.create = async (options) => {
      await window.takeAuthenticator();
      return create(options);
    };
  };
  await page.addInitScript(holdBack); // should the page load anew in between
  await page.evaluate(holdBack);
}

async function setup({ url, name }) {
  await visit(url);
  await oneOf('passkey-register');
  if (await isThere('user-name')) await element('user-name').fill(name);
  await click('passkey-register');
  await oneOf('connect-client');
  return where();
}

/** Runs in the page, before anything of its own. */
function askForLess() {
  const create = navigator.credentials?.create.bind(navigator.credentials);
  if (create === undefined) return; // no page of ours
  const less = { residentKey: 'discouraged', requireResidentKey: false, userVerification: 'discouraged' };
  const extensions = { credProps: true }; // no protection is asked for, which some authenticators do not have
  navigator.credentials.create = ({ publicKey }) => create({ publicKey: { ...publicKey, authenticatorSelection: less, extensions } });
}

/** Runs in the page, before anything of its own. */
function notice(testid) {
  const noticed = (window.noticed = []);
  let asleep = null;
  const look = () => {
    const element = document.querySelector(`[data-testid="${testid}"]`);
    if (element === null || element.disabled === asleep) return;
    asleep = element.disabled;
    noticed.push([performance.now(), asleep]);
  };
  new MutationObserver(look).observe(document, { subtree: true, childList: true, attributeFilter: ['disabled'] });
}

async function screenshot({ path, width, dark }) {
  const { height } = currentPage().viewportSize();
  const before = page.viewportSize();
  await page.emulateMedia({ colorScheme: dark ? 'dark' : 'light' });
  if (width !== undefined) await page.setViewportSize({ width, height });
  await page.screenshot({ path, fullPage: true, animations: 'disabled' });
  await page.setViewportSize(before);
  await page.emulateMedia({ colorScheme: null });
  return { path };
}

const operations = {
  /** {url}: opens a page; answers {status, url, title}. */
  open: async ({ url }) => ({ status: await visit(url), ...(await where()) }),

  /** {url, name}: opens a setup link and registers a passkey; answers {url, title}. */
  setup,

  /** {url, decision}: signs in where asked, decides, follows the redirect; {client_name, redirected_to, consent_text}. */
  authorize,

  /** {options?}: adds a second passkey from the current page, on an authenticator of its own, as `own` makes one;
   *  {authenticator, url, title}. */
  add_passkey: addPasskey,

  /** {authenticator}: takes this one to hand from now on. */
  use_authenticator: async ({ authenticator }) => {
    await drawer.change(authenticator);
    return { authenticator };
  },

  /** {options}: takes a new authenticator to hand, which differs in these of DevTools' options; {authenticator}. */
  own: async ({ options }) => {
    const authenticator = drawer.owned.push({ transport: 'usb', credentials: [], options }) - 1;
    await drawer.change(authenticator);
    return { authenticator };
  },

  /** Pages opened from now on ask authenticators for less than they were told to, as a careless browser does. */
  ask_for_less: async () => {
    await context.addInitScript(askForLess);
    return {};
  },

  /** What the authenticators hold. */
  credentials: async () => {
    await drawer.read();
    const list = drawer.owned.flatMap(({ credentials }, authenticator) =>
      credentials.map(({ privateKey, ...credential }) => ({ authenticator, ...credential })),
    );
    return { credentials: list };
  },

  /** {selector}: the visible text of the first match on the current page, waited for. */
  text: async ({ selector }) => {
    try {
      return { text: await currentPage().locator(selector).first().innerText() };
    } catch (cause) {
      throw page === null ? cause : await lost(`waited for ${selector}`, cause);
    }
  },

  /** {testid}: clicks it on the current page; answers {url, title}, at once. */
  click: async ({ testid }) => {
    currentPage();
    await click(testid);
    return where();
  },

  /** {testid, text?, key?}: Tab until it has the focus, types the text, presses the key; answers {url, title}, at once. */
  keyboard: async ({ testid, text, key }) => {
    currentPage();
    await oneOf(testid);
    await page.locator(`${selector(testid)}:enabled`).first().waitFor({ timeout: PATIENCE });
    await tabTo(page, testid);
    if (text) await page.keyboard.type(text);
    if (key) await page.keyboard.press(key);
    return where();
  },

  /** {key}: presses it where the focus is. */
  press: async ({ key }) => {
    await currentPage().keyboard.press(key);
    return where();
  },

  /** Reloads the current page. */
  reload: async () => {
    await currentPage().reload({ waitUntil: 'load', timeout: PATIENCE });
    return where();
  },

  /**
   * {role, name, text?, force?}: clicks what a screen reader would call that, whatever lies over it if forced, or fills it
   * with the text; {url, title}, at once.
   */
  use: async ({ role, name, text, force = role === 'switch' }) => { // its label is over a switch
    const named = role === 'text' ? currentPage().getByText(name, { exact: true }) : currentPage().getByRole(role, { name });
    const found = named.first();
    try {
      await (text === undefined ? found.click({ force }) : found.fill(text));
    } catch (cause) {
      throw await lost(`looked for the ${role} ${name}`, cause);
    }
    return where();
  },

  /** Signs in where asked and allows what is asked, on the current page; answers {redirected_to}. */
  allow: async () => {
    const origin = new URL(currentPage().url()).origin;
    if ((await oneOf('consent-approve', 'passkey-login')) === 'passkey-login') {
      await click('passkey-login');
      await oneOf('consent-approve');
    }
    const gone = leaving(origin);
    await click('consent-approve');
    return { redirected_to: await Promise.race([gone, oneOf('the redirect')]) }; // the second only throws
  },

  /** {testid}: clicks it on the current page and follows to another origin; answers {redirected_to}. */
  leave: async ({ testid }) => {
    const gone = leaving(new URL(currentPage().url()).origin);
    await click(testid);
    return { redirected_to: await Promise.race([gone, oneOf('the redirect')]) }; // the second only throws
  },

  /** {scope, ticked}: ticks a scope of the consent page, or unticks it. */
  tick: async ({ scope, ticked }) => {
    await currentPage().locator(`input[name="scope"][value="${scope}"]`).setChecked(ticked);
    return where();
  },

  /** {present}: whether the owner of the authenticator at hand confirms what they are asked. */
  owner: async ({ present }) => {
    currentPage();
    const { devtools, authenticatorId } = drawer.plugged;
    await devtools.send('WebAuthn.setUserVerified', { authenticatorId, isUserVerified: present });
    return { present };
  },

  /** {copyable}: what the passkeys at hand say of themselves from now on: that they can be copied, and have been, or not. */
  vault: async ({ copyable }) => {
    currentPage();
    const { devtools, authenticatorId } = drawer.plugged;
    await drawer.read();
    for (const { credentialId } of drawer.current.credentials) {
      const flags = { backupEligibility: copyable, backupState: copyable };
      await devtools.send('WebAuthn.setCredentialProperties', { authenticatorId, credentialId, ...flags });
    }
    return { copyable };
  },

  /** {expression}: what the current page answers to it: {value}. */
  evaluate: async ({ expression }) => ({ value: (await currentPage().evaluate(expression)) ?? null }),

  /** {testid}: pages opened from now on keep in `window.noticed` when it was disabled and when not, in milliseconds. */
  notice: async ({ testid }) => {
    await currentPage().addInitScript(notice, testid);
    return where();
  },

  /** The addresses of the current page and of the frames in it: {frames}. */
  frames: async () => ({ frames: currentPage().frames().map((frame) => frame.url()) }),

  /** What is wrong with the current page for people who see little or have no mouse: {problems}. */
  inspect: async () => ({ problems: await inspect(currentPage()) }),

  /** {url?}: the context's cookies, or those a request to the URL would carry. */
  cookies: async ({ url }) => ({ cookies: await context.cookies(url) }),

  /** {path, width?, dark?}: the current page, in full, as a PNG. */
  screenshot,
};

await serve(operations, async () => {
  await context.close();
  rmSync(scratch, { recursive: true, force: true, maxRetries: 5 }); // the browser may still be writing
});
