// Portcullis in the browser: passkey ceremonies, the consent form's guard, copy buttons.
// Data arrives in data- attributes and JSON only; text is written with textContent (the page's CSP allows nothing else).
"use strict";

(() => {
  const find = (id) => document.querySelector(`[data-testid="${id}"]`);
  const statusLine = find("status");
  const errorLine = document.querySelector('.problem[data-testid="error"]');

  const TOUCH = "Touch your security key, or use your fingerprint, face or screen lock…";

  /** An error whose message is already addressed to the person. */
  class Told extends Error {
    /** @param {string} code the server's word for the refusal, if it was one of the server's */
    constructor(message, code = "") {
      super(message);
      this.code = code;
    }
  }

  const told = (error) =>
    error instanceof Told ? error.message : "Something went wrong in this page. Reload it and try again.";

  function say(text) {
    if (statusLine) statusLine.textContent = text;
  }

  /** Text with commands between backticks, which become code. */
  function pieces(text) {
    return text.split("`").map((piece, at) => {
      if (at % 2 === 0) return piece;
      const code = document.createElement("code");
      code.textContent = piece;
      return code;
    });
  }

  function complain(text) {
    if (!errorLine) return;
    errorLine.replaceChildren(...pieces(text));
    errorLine.hidden = text === "";
  }

  // ---- Bytes and base64url -------------------------------------------------------------------------------------

  function toBytes(text) {
    const binary = atob(text.replace(/-/g, "+").replace(/_/g, "/"));
    return Uint8Array.from(binary, (c) => c.charCodeAt(0));
  }

  function toText(buffer) {
    let binary = "";
    for (const byte of new Uint8Array(buffer)) binary += String.fromCharCode(byte);
    return btoa(binary).replace(/\+/g, "-").replace(/\//g, "_").replace(/=+$/, "");
  }

  // ---- The server ----------------------------------------------------------------------------------------------

  async function post(path, body) {
    let response;
    try {
      response = await fetch(path, {
        method: "POST",
        headers: { "Content-Type": "application/json", Accept: "application/json" },
        body: JSON.stringify(body),
        credentials: "same-origin",
        cache: "no-store",
        redirect: "error",
      });
    } catch {
      throw new Told("The server did not answer. Check that you are on its network, then try again.");
    }
    let answer = null;
    try {
      answer = await response.json();
    } catch {
      // Not JSON: said below, together with the status.
    }
    if (response.ok && answer) return answer;
    const said = (answer && answer.message) ||
      `The server could not do this (status ${response.status}). Reload the page and try again; if it stays, tell your administrator.`;
    // The audit record of the refusal has it too.
    const reference = response.headers.get("x-request-id");
    throw new Told(reference ? `${said} Reference: ${reference}` : said, (answer && answer.error) || "");
  }

  // ---- WebAuthn ------------------------------------------------------------------------------------------------

  const described = (list) => (list || []).map((credential) => ({ ...credential, id: toBytes(credential.id) }));

  // Phone-by-QR needs the internet, so the browser is pointed at what works without it.
  const hints = ["client-device", "security-key"];

  function requirePasskeys() {
    if (!window.isSecureContext) {
      throw new Told(`Passkeys work over https only. This page was opened as ${location.origin}; ask for its https address.`);
    }
    if (!window.PublicKeyCredential || !navigator.credentials) {
      throw new Told("This browser cannot use passkeys. Open the page in a current Firefox, Chrome, Edge or Safari.");
    }
  }

  /** Makes a passkey: creation options in, RegistrationResponseJSON out. */
  async function create({ publicKey }) {
    requirePasskeys();
    say(TOUCH);
    let credential;
    try {
      credential = await navigator.credentials.create({
        publicKey: {
          hints,
          ...publicKey,
          challenge: toBytes(publicKey.challenge),
          user: { ...publicKey.user, id: toBytes(publicKey.user.id) },
          // The older name, for browsers that do not know residentKey.
          authenticatorSelection: { ...publicKey.authenticatorSelection, requireResidentKey: true },
          excludeCredentials: described(publicKey.excludeCredentials),
        },
      });
    } catch (error) {
      throw explained(error, "create", publicKey.rp && publicKey.rp.id);
    }
    const { attestationObject, clientDataJSON } = credential.response;
    return {
      id: credential.id,
      rawId: toText(credential.rawId),
      type: credential.type,
      response: {
        attestationObject: toText(attestationObject),
        clientDataJSON: toText(clientDataJSON),
        transports: credential.response.getTransports ? credential.response.getTransports() : [],
      },
      extensions: credential.getClientExtensionResults(),
    };
  }

  /** Uses a passkey: request options in, AuthenticationResponseJSON out. */
  async function get({ publicKey }) {
    requirePasskeys();
    say(TOUCH);
    let credential;
    try {
      // Whatever `mediation` came along is left out: a button was pressed, so the browser's dialog is wanted now.
      credential = await navigator.credentials.get({
        publicKey: {
          hints,
          ...publicKey,
          challenge: toBytes(publicKey.challenge),
          allowCredentials: described(publicKey.allowCredentials),
        },
      });
    } catch (error) {
      throw explained(error, "get", publicKey.rpId);
    }
    const { authenticatorData, clientDataJSON, signature, userHandle } = credential.response;
    return {
      id: credential.id,
      rawId: toText(credential.rawId),
      type: credential.type,
      response: {
        authenticatorData: toText(authenticatorData),
        clientDataJSON: toText(clientDataJSON),
        signature: toText(signature),
        userHandle: userHandle ? toText(userHandle) : null,
      },
      extensions: credential.getClientExtensionResults(),
    };
  }

  /** The browser's error in words that say what to do. */
  function explained(error, deed, rpId) {
    switch (error.name) {
      case "NotAllowedError":
        return new Told(deed === "create"
          ? "No passkey was made: the request was cancelled or took too long, or this authenticator cannot keep a passkey and check that it is you. Try again. If it is a security key, set a PIN on it first, or use another device."
          : "No passkey was used: the request was cancelled or took too long, or this device holds no passkey for this server, or the security key has no PIN. Try again, or use the device or security key you enrolled.");
      case "InvalidStateError":
        return new Told("This device already has a passkey here. Use another device or a security key.");
      case "SecurityError":
        return new Told(`Passkeys do not work under the name ${location.hostname}. Open this server by its own name${rpId ? `, ${rpId}` : ""}.`);
      case "ConstraintError":
        return new Told("This authenticator cannot check that it is you. Set a PIN or a screen lock on it first, or use another.");
      case "NotSupportedError":
        return new Told("This authenticator cannot make a passkey that this server accepts. Use another device or security key.");
      case "AbortError":
        return new Told("The request was stopped. Try again when you are ready.");
      default:
        return new Told(`The browser could not use a passkey (${error.name}). Try again; if it stays, use another browser or device.`);
    }
  }

  const isBusy = (button) => button.getAttribute("aria-disabled") === "true";

  /** Runs one ceremony behind one button: busy while it lasts, a message if it fails, the button back unless we leave. */
  async function perform(button, work) {
    if (isBusy(button)) return;
    complain("");
    say("One moment…");
    button.setAttribute("aria-disabled", "true"); // a button that is really disabled would lose the focus
    let leaving = false;
    try {
      leaving = await work();
      if (!leaving) say("");
    } catch (error) {
      say("");
      complain(told(error));
      if (!(error instanceof Told)) console.error(error);
    } finally {
      if (!leaving) {
        button.removeAttribute("aria-disabled");
        button.focus();
      }
    }
  }

  function leaveFor(place) {
    say("Done. One moment…");
    window.location.assign(place);
    return true;
  }

  // A page kept in the back-forward cache must not come back with a dead button.
  window.addEventListener("pageshow", (event) => {
    if (event.persisted) window.location.reload();
  });

  // ---- Sign-in: [data-testid=passkey-login] ----------------------------------------------------------------------

  const login = find("passkey-login");
  if (login) {
    login.addEventListener("click", () => perform(login, async () => {
      const { ceremony, options } = await post("/login/start", { transaction: login.dataset.transaction || null });
      const response = await get(options);
      const { location } = await post("/login/finish", { ceremony, response, destination: login.dataset.destination || null });
      return leaveFor(location);
    }));
  }

  // ---- First passkey: form[data-register], opened as /setup#token or /enrol#token ----------------------------------

  const register = document.querySelector("form[data-register]");
  if (register) {
    // The token leaves the address bar at once. Until it is spent it stays with this entry of the tab's history, which a
    // reload keeps.
    const keep = (state) => window.history.replaceState(state, "", window.location.pathname);
    let token = "";
    const take = () => {
      token = window.location.hash.slice(1);
      if (token) keep({ token });
    };
    const before = window.history.state || {};
    take();
    token = token || before.token || "";
    const incomplete = "This page needs the whole link, with the part after “#”. Open the link again as you received it; opening it does not use it up.";
    const spent = "A passkey was created with this link. Sign in on the home page.";
    const linkWorks = document.querySelector("[data-link-works]");
    const linkFor = find("link-for");
    // The link is looked up by its whole text; that spends nothing.
    const look = async () => {
      linkFor.hidden = true;
      linkWorks.hidden = !token;
      if (!token) {
        complain(before.spent ? spent : incomplete);
        return;
      }
      const asked = token;
      try {
        const { name } = await post(register.dataset.look, { token });
        if (token !== asked) return;
        linkFor.textContent = name ? `This link is for ${name}.` : "This link makes its holder the first administrator.";
        linkFor.hidden = false;
      } catch (error) {
        if (token !== asked) return;
        noteDead(error);
        complain(told(error));
      }
    };
    const noteDead = (error) => {
      if (error.code === "link_invalid") linkWorks.hidden = true;
    };
    look();
    // The same page opened again with another link changes only the fragment, which loads nothing.
    window.addEventListener("hashchange", () => {
      if (!window.location.hash) return;
      take();
      complain("");
      look();
    });

    // Whoever is signed in leaves, and the link stays: it may be for somebody else.
    const signOut = document.querySelector("form[data-sign-out-here]");
    if (signOut) {
      signOut.addEventListener("submit", (event) => {
        event.preventDefault();
        perform(signOut.querySelector("button"), async () => {
          const response = await fetch(signOut.action, {
            method: "POST",
            body: new URLSearchParams(new FormData(signOut)),
            credentials: "same-origin",
            cache: "no-store",
            redirect: "manual", // to the home page, which is not where this goes on
          });
          if (response.type !== "opaqueredirect") throw new Told("You are still signed in. Reload the page and try again.");
          window.location.reload();
          return true;
        });
      });
    }

    const button = register.querySelector('[data-testid="passkey-register"]');
    register.addEventListener("submit", (event) => {
      event.preventDefault();
      perform(button, async () => {
        if (!token) throw new Told(before.spent ? spent : incomplete);
        const name = register.elements.namedItem("name");
        const start = name ? { token, name: name.value.trim() } : { token };
        const { ceremony, options } = await post(register.dataset.start, start).catch((error) => {
          noteDead(error);
          throw error;
        });
        const response = await create(options);
        const { location } = await post(register.dataset.finish, { ceremony, response });
        keep({ spent: true });
        return leaveFor(location);
      });
    });
  }

  // ---- Home: /?welcome greets once ---------------------------------------------------------------------------------

  if (find("welcome")) window.history.replaceState(null, "", window.location.pathname);

  /** Gives the page's forms the tokens of a new session, by where they go. */
  function renew(tokens) {
    for (const [action, token] of Object.entries(tokens)) {
      for (const field of document.querySelectorAll(`form[action="${action}"] input[name="csrf"]`)) field.value = token;
    }
  }

  // ---- Another passkey: [data-testid=passkey-add] ------------------------------------------------------------------

  const add = find("passkey-add");
  if (add) {
    if (add.dataset.then) add.parentElement.after(statusLine, errorLine); // beside what is pressed
    add.addEventListener("click", () => perform(add, async () => {
      const stepUp = await post("/account/passkeys/start", {});
      const confirmed = await get(stepUp.options);
      const creation = await post("/account/passkeys/confirm", { ceremony: stepUp.ceremony, response: confirmed });
      renew(creation.csrf); // the session has a new id
      const response = await create(creation.options);
      const { passkeys } = await post("/account/passkeys/finish", { ceremony: creation.ceremony, response });
      if (add.dataset.then) return leaveFor(add.dataset.then);
      const section = add.closest("[data-passkeys]");
      const nudge = section.querySelector("[data-nudge]");
      const added = find("passkey-added");
      section.classList.remove("nudge");
      section.querySelector("h2").textContent = "Your passkeys";
      nudge.hidden = true;
      add.hidden = true;
      added.textContent = `Passkey added. You have ${passkeys} now.`;
      added.hidden = false;
      say("");
      added.focus();
      return true;
    }));
  }

  // ---- The account: form[data-change] -------------------------------------------------------------------------------

  // A change that takes a passkey: what the form says is confirmed, and the assertion travels in the form.
  for (const form of document.querySelectorAll("form[data-change][data-confirm]")) {
    form.addEventListener("submit", (event) => {
      event.preventDefault();
      form.append(statusLine, errorLine);
      perform(form.querySelector("button"), async () => {
        const { ceremony, options } = await post(form.dataset.confirm, Object.fromEntries(new FormData(form)));
        const response = await get(options);
        for (const [name, value] of Object.entries({ ceremony, assertion: JSON.stringify(response) })) {
          const field = document.createElement("input");
          field.type = "hidden";
          field.name = name;
          field.value = value;
          form.append(field);
        }
        say("One moment…");
        form.submit();
        return true;
      });
    });
  }

  // ---- Consent: form[data-consent] ---------------------------------------------------------------------------------

  const consent = document.querySelector("form[data-consent]");
  if (consent) {
    const approve = find("consent-approve");
    const deny = find("consent-deny");
    const boxes = [...consent.querySelectorAll('input[type="checkbox"]')];
    const hint = consent.querySelector("[data-hint]");
    const usualHint = hint.dataset.hint;
    let sent = false;
    let asleep = true;
    let refocus = false;
    let timer = 0;

    // CONSENT-09: a click meant for something that covered this page must not land on "Allow", so the button sleeps
    // for half a second whenever the page appears or the person comes back to it.
    // And with nothing ticked there is nothing to allow (CONSENT-05).
    const show = () => {
      const ticked = boxes.some((box) => box.checked);
      approve.disabled = asleep || !ticked;
      const words = ticked ? usualHint : "Tick something to allow access.";
      if (hint.textContent !== words) hint.textContent = words; // a live region is read out when it is written to
    };
    const sleep = () => {
      window.clearTimeout(timer);
      timer = 0;
      asleep = true;
      show();
    };
    const wake = () => {
      if (sent) return;
      sleep();
      timer = window.setTimeout(() => {
        timer = 0;
        asleep = false;
        show();
        if (refocus) approve.focus();
        refocus = false;
      }, 500);
    };
    const wakeIfAsleep = () => {
      if (asleep && !timer) wake();
    };
    window.addEventListener("blur", sleep);
    window.addEventListener("focus", wake);
    document.addEventListener("visibilitychange", () => (document.hidden ? sleep() : wake()));
    // Some window managers and remote desktops lose the focus event: a person at work in the page wakes it too.
    document.addEventListener("pointermove", wakeIfAsleep);
    document.addEventListener("keydown", wakeIfAsleep);
    wake();

    consent.addEventListener("change", show);
    // Enter in a box presses the form's first button that is on, which must not be "Refuse" for "Allow" being off.
    consent.addEventListener("keydown", (event) => {
      if (event.key === "Enter" && approve.disabled && boxes.includes(event.target)) event.preventDefault();
    });

    const close = () => {
      sent = true;
      sleep();
      deny.disabled = true;
    };

    consent.addEventListener("submit", (event) => {
      if (sent) {
        event.preventDefault();
        return;
      }
      const approving = event.submitter !== deny;
      const risky = boxes.some((box) => box.checked && "highRisk" in box.dataset);
      if (approving && risky && consent.dataset.confirm) {
        event.preventDefault();
        confirm();
        return;
      }
      sent = true;
      complain("");
      say(approving ? `Answer sent. You can go back to ${consent.dataset.client}.` : "Refused.");
      window.setTimeout(close, 0); // after the browser has read which button was pressed
    });

    // CONSENT-08: a high-risk scope takes a passkey used for exactly this decision. The assertion travels in the form.
    async function confirm() {
      const scopes = [...new FormData(consent).getAll("scope")];
      close();
      complain("");
      say("One moment…");
      try {
        const { ceremony, options } = await post(consent.dataset.confirm, {
          transaction: consent.elements.namedItem("transaction").value,
          csrf: consent.elements.namedItem("csrf").value,
          scopes,
        });
        const response = await get(options);
        for (const box of boxes) box.checked = box.disabled || scopes.includes(box.value); // as they were when asked
        const fields = { decision: "approve", ceremony, assertion: JSON.stringify(response) };
        for (const [name, value] of Object.entries(fields)) {
          const field = document.createElement("input");
          field.type = "hidden";
          field.name = name;
          field.value = value;
          consent.append(field);
        }
        say(`Answer sent. You can go back to ${consent.dataset.client}.`);
        consent.submit();
      } catch (error) {
        sent = false;
        deny.disabled = false;
        say("");
        complain(told(error));
        refocus = true; // the button that was pressed was off meanwhile
        wake();
      }
    }
  }

  // ---- Copy buttons: [data-copy="#id"] -----------------------------------------------------------------------------

  for (const button of document.querySelectorAll("button[data-copy]")) {
    const source = document.querySelector(button.dataset.copy);
    const usual = button.getAttribute("aria-label") || "Copy";
    button.hidden = false; // hidden in the HTML: without this script it could do nothing
    button.addEventListener("click", async () => {
      let done = "Copied";
      try {
        await navigator.clipboard.writeText(source.textContent);
      } catch {
        window.getSelection().selectAllChildren(source);
        done = "Selected"; // no clipboard outside https or without permission: Ctrl+C does the rest
      }
      button.textContent = done;
      button.setAttribute("aria-label", done);
      window.setTimeout(() => {
        button.textContent = "Copy";
        button.setAttribute("aria-label", usual);
      }, 2000);
    });
  }
})();
