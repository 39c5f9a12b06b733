"use strict";
// The token stands behind `#`: it never reached a server with the page, and leaves the address bar at once.
const token = location.hash.slice(1);
history.replaceState(null, "", location.pathname);

const $ = (id) => document.getElementById(id);
const passkeysWork = Boolean(
  window.PublicKeyCredential?.parseRequestOptionsFromJSON && PublicKeyCredential.parseCreationOptionsFromJSON,
);
let asked = null;

/** A reply's body; what the server refuses is thrown with the server's own words. */
async function send(method, path, body) {
  const headers = { "x-transom-csrf": "1" };
  if (body !== undefined) headers["content-type"] = "application/json";
  const reply = await fetch(path, { method, headers, body: JSON.stringify(body) });
  const answer = reply.status === 204 ? null : await reply.json();
  if (!reply.ok) {
    const refused = new Error(answer.error?.message ?? "The server did not answer as it should.");
    refused.status = reply.status;
    refused.code = answer.error?.code;
    throw refused;
  }
  return answer;
}

function say(text, wrong = false) {
  const said = $("said");
  said.hidden = !text;
  said.className = wrong ? "wrong" : "";
  said.textContent = text;
}

/** What a person is told of something that went wrong. */
function reason(error) {
  if (error.name === "NotAllowedError") return "The passkey was not used: it was cancelled, or took too long.";
  if (error.name === "InvalidStateError") return "This device has a passkey for this account already.";
  if (error instanceof TypeError) return "The server cannot be reached. Try again.";
  return error.message;
}

/** Do one thing at a time with a button, and say what went wrong. */
function act(button, work) {
  return async (event) => {
    event.preventDefault();
    button.disabled = true;
    say("");
    try {
      await work();
    } catch (error) {
      if (error.code === "recent_sign_in_needed") await askAnew(error);
      else say(reason(error), true);
    } finally {
      button.disabled = false;
    }
  };
}

const onClick = (id, work) => $(id).addEventListener("click", act($(id), work));
const onSubmit = (id, work) =>
  $(id).addEventListener("submit", act($(id).querySelector("button"), work));

function only(section) {
  for (const name of ["link", "ask", "account"]) $(name).hidden = name !== section;
}

async function welcome(body) {
  if (body.next) {
    location.replace(body.next);
    return;
  }
  await showAccount(body.person);
  $("account-title").focus();
}

async function useLink() {
  try {
    await welcome(await send("POST", "/v1/auth/links/redeem", { token, session: "cookie" }));
  } catch (error) {
    if (error.status !== undefined) await showAsk();
    throw error;
  }
}

async function askMail() {
  const email = $("email").value.trim();
  asked = (await send("POST", "/v1/auth/links", { email, session: "cookie" })).request;
  $("asked").textContent = email;
  $("mail").hidden = $("others").hidden = true;
  $("code").hidden = false;
  $("typed").value = "";
  $("typed").focus();
}

function askAgain() {
  $("mail").hidden = $("others").hidden = false;
  $("code").hidden = true;
  $("email").focus();
}

async function useCode() {
  const body = { request: asked, code: $("typed").value.trim(), session: "cookie" };
  await welcome(await send("POST", "/v1/auth/links/redeem", body));
}

async function usePasskey() {
  const { challenge, options } = await send("POST", "/v1/auth/passkeys/challenge");
  const publicKey = PublicKeyCredential.parseRequestOptionsFromJSON(options);
  const credential = (await navigator.credentials.get({ publicKey })).toJSON();
  await welcome(await send("POST", "/v1/auth/passkeys", { challenge, credential }));
}

async function addPasskey() {
  const { challenge, options } = await send("POST", "/v1/account/passkeys/challenge");
  const publicKey = PublicKeyCredential.parseCreationOptionsFromJSON(options);
  const credential = (await navigator.credentials.create({ publicKey })).toJSON();
  const name = $("passkey-name").value.trim();
  await send("POST", "/v1/account/passkeys", { challenge, credential, name });
  $("passkey-name").value = "";
  await showPasskeys();
  say(`The passkey ${name} was added. You can sign in with it from now on.`);
}

/** A list of things, each with a button that ends it. */
function list(id, none, rows) {
  const items = rows.map(({ text, verb, end }) => {
    const item = document.createElement("li"), said = document.createElement("span");
    said.textContent = text;
    item.append(said);
    if (end) {
      const button = document.createElement("button");
      button.textContent = verb;
      button.setAttribute("aria-label", `${verb}: ${text}`);
      button.addEventListener("click", act(button, end));
      item.append(button);
    }
    return item;
  });
  if (!items.length) {
    const item = document.createElement("li");
    item.className = "none";
    item.textContent = none;
    items.push(item);
  }
  $(id).replaceChildren(...items);
}

const when = (text) => new Date(text).toLocaleString(undefined, { dateStyle: "medium", timeStyle: "short" });

async function showPasskeys() {
  const known = await send("GET", "/v1/account/passkeys");
  list("passkeys", "None yet. With a passkey you sign in without waiting for a mail.", known.map((each) => ({
    text: `${each.name}, ${each.last_used ? "last used " + when(each.last_used) : "never used"}`,
    verb: "Remove",
    end: async () => {
      await send("DELETE", `/v1/account/passkeys/${each.id}`);
      await showPasskeys();
    },
  })));
}

async function showSessions() {
  const known = await send("GET", "/v1/account/sessions");
  list("sessions", "", known.map((each) => ({
    text: `${each.agent || "A program"}, last seen ${when(each.last_seen)}` + (each.current ? " (here)" : ""),
    verb: "End",
    end: each.current ? null : async () => {
      await send("DELETE", `/v1/account/sessions/${each.id}`);
      await showSessions();
    },
  })));
}

async function showIdentities() {
  const [known, providers] = await Promise.all([
    send("GET", "/v1/account/identities"), send("GET", "/v1/auth/providers"),
  ]);
  $("identities-part").hidden = !known.length && !providers.length;
  list("identities", "None yet.", known.map((each) => ({
    text: `${each.issuer}: ${each.subject}`,
    verb: "Remove",
    end: async () => {
      await send("DELETE", `/v1/account/identities/${each.id}`);
      await showIdentities();
    },
  })));
  offer("more-identities", providers, (name) => `Add ${name}`, true);
}

/** A button for each provider. */
function offer(id, providers, words, link) {
  $(id).replaceChildren(...providers.map((provider) => {
    const button = document.createElement("button");
    button.className = "quiet";
    button.textContent = words(provider.name);
    const go = async () => location.assign((await send("POST", `/v1/auth/providers/${provider.id}`, { link })).url);
    button.addEventListener("click", act(button, go));
    return button;
  }));
}

async function showAsk() {
  only("ask");
  askAgain();
  $("passkey").hidden = !passkeysWork;
  const providers = await send("GET", "/v1/auth/providers");
  offer("providers", providers, (name) => `Sign in with ${name}`, false);
  $("others").hidden = !passkeysWork && !providers.length;
}

/** What one wants to do needs a newer sign-in: that is asked for, and is nobody's mistake. */
async function askAnew(error) {
  document.title = "Sign in to Transom";
  await showAsk();
  say(error.message);
}

async function showAccount(me) {
  only("account");
  document.title = "Your account at Transom";
  $("who").textContent = "You are signed in as " + (me.email || me.name || me.id) + ".";
  $("new-passkey").hidden = !passkeysWork;
  await Promise.all([showPasskeys(), showSessions(), showIdentities()]);
}

async function signOut() {
  await send("POST", "/v1/auth/sign-out");
  document.title = "Sign in to Transom";
  await showAsk();
  say("You are signed out.");
}

async function begin() {
  if (token) {
    only("link");
    $("use-link").focus();
    return;
  }
  try {
    await showAccount(await send("GET", "/v1/account"));
  } catch (error) {
    if (error.status !== 401) throw error;
    await showAsk();
  }
}

onClick("use-link", useLink);
onSubmit("mail", askMail);
onSubmit("code", useCode);
onClick("again", async () => askAgain());
onClick("passkey", usePasskey);
onSubmit("new-passkey", addPasskey);
onClick("out", signOut);
begin().catch((error) => say(reason(error), true));
