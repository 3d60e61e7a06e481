// The page: views that ask the interface, and the console that is an MQTT client.

import { Client } from "./mqtt.js";
import { Plot } from "./plot.js";

const $ = (id) => document.getElementById(id);
const PAGE = 200;
const MESSAGES = 200;

// ---- what things look like ----

const whole = new Intl.NumberFormat("en", { maximumFractionDigits: 0 });
const short = new Intl.NumberFormat("en", { notation: "compact", maximumFractionDigits: 1 });
const number = (n) => whole.format(n);

function bytes(n) {
  const units = ["B", "KiB", "MiB", "GiB", "TiB"];
  let unit = 0;
  while (n >= 1024 && unit < units.length - 1) {
    n /= 1024;
    unit += 1;
  }
  return `${unit ? n.toFixed(1) : Math.round(n)} ${units[unit]}`;
}

function micros(n) {
  if (n >= 1e6) return `${(n / 1e6).toFixed(1)} s`;
  return n >= 1000 ? `${(n / 1000).toFixed(1)} ms` : `${Math.round(n)} µs`;
}

function time(seconds) {
  for (const [unit, size] of [["d", 86400], ["h", 3600], ["min", 60]]) {
    if (seconds >= 2 * size) return `${Math.floor(seconds / size)} ${unit}`;
  }
  return `${Math.floor(seconds)} s`;
}

function element(name, text, className) {
  const made = document.createElement(name);
  if (text !== undefined) made.textContent = text;
  if (className) made.className = className;
  return made;
}

function button(text, act, label) {
  const made = element("button", text);
  made.type = "button";
  if (label) made.setAttribute("aria-label", label);
  made.addEventListener("click", act);
  return made;
}

function list(where, pairs) {
  where.replaceChildren(...pairs.flatMap(([name, value]) => [element("dt", name), element("dd", value)]));
}

// ---- the interface ----

let token = sessionStorage.getItem("token") ?? "";
function takeToken() {
  if (!location.hash.startsWith("#token=")) return;
  setToken(decodeURIComponent(location.hash.slice(7)));
  // It should not stay where it is seen and copied.
  history.replaceState(null, "", location.pathname);
}

function setToken(text) {
  token = text;
  sessionStorage.setItem("token", token);
}

takeToken();

class Failed extends Error {}

async function api(path, method = "GET") {
  const answer = await fetch(`api/v1/${path}`, { method, headers: { Authorization: `Bearer ${token}` } });
  const body = await answer.json().catch(() => ({}));
  if (answer.status === 401) askToken(token ? "This token is not one of them." : "");
  if (!answer.ok) throw new Failed(body.error ?? `status ${answer.status}`);
  return body;
}

function askToken(problem) {
  $("token-problem").textContent = problem;
  if (!$("token-dialog").open) $("token-dialog").showModal();
}

$("token-dialog").addEventListener("cancel", (event) => event.preventDefault());
$("token-form").addEventListener("submit", (event) => {
  event.preventDefault();
  setToken($("token").value.trim());
  again();
});
addEventListener("hashchange", () => {
  takeToken();
  again();
});

function again() {
  $("token-dialog").close();
  tick();
  views[current]();
}

function sure(question) {
  const dialog = $("ask");
  $("ask-text").textContent = question;
  dialog.returnValue = "no";
  dialog.showModal();
  return new Promise((resolve) => {
    dialog.addEventListener("close", () => resolve(dialog.returnValue === "yes"), { once: true });
  });
}

// ---- overview ----

const rate = (n) => `${short.format(n)}/s`;
const plots = {
  messages: new Plot("Messages", ["in", "out"], rate),
  bytes: new Plot("Bytes", ["in", "out"], (n) => `${bytes(n)}/s`),
  clients: new Plot("Clients", ["connected", "sessions"], number),
  latency: new Plot("Latency", ["broker answers", "store commits"], micros),
};
$("plots").append(...Object.values(plots).map((plot) => plot.figure));

const sum = (values) => values.reduce((a, b) => a + b, 0);
let before = null;

function draw(now) {
  const c = now.counters;
  const seconds = before ? now.uptime - before.uptime : 0;
  const per = (get) => (seconds > 0 ? Math.max(0, get(now) - get(before)) / seconds : null);
  plots.messages.add([per((s) => sum(s.counters.publish_received)), per((s) => sum(s.counters.publish_sent))]);
  plots.bytes.add([per((s) => s.counters.bytes_received), per((s) => s.counters.bytes_sent)]);
  plots.clients.add([now.connected, now.sessions]);
  let commit = null;
  if (now.store && before?.store && now.store.commits > before.store.commits) {
    commit = (now.store.commit_micros_sum - before.store.commit_micros_sum) / (now.store.commits - before.store.commits);
  }
  plots.latency.add([now.answered_in_micros, commit]);
  before = now;
  list($("now"), [
    ["Connected", number(now.connected)],
    ["Sessions", number(now.sessions)],
    ["Subscriptions", number(now.subscriptions)],
    ["of them shared", number(now.shared_subscriptions)],
    ["Retained messages", number(now.retained)],
    ["Messages held", number(now.messages)],
    ["their bytes", bytes(now.message_bytes)],
    ["Waiting for sockets", bytes(now.unsent_bytes)],
    ["Memory", now.memory_bytes === null ? "–" : bytes(now.memory_bytes)],
    ["Threads", number(now.shards)],
  ]);
  list($("totals"), [
    ["Messages in", number(sum(c.publish_received))],
    ["Messages out", number(sum(c.publish_sent))],
    ["Bytes in", bytes(c.bytes_received)],
    ["Bytes out", bytes(c.bytes_sent)],
    ["Connections", number(c.connections)],
    ["Refused", number(c.refused)],
    ["Malformed packets", number(c.malformed)],
    ["TLS, WebSocket failed", number(c.transports_failed)],
    ["Dropped", number(c.dropped)],
    ["Denied", number(c.denied)],
    ["Slowed", number(c.slowed)],
  ]);
  const store = now.store;
  list($("store"), store ? [
    ["State", store.failed ? "failed" : "works"],
    ["Commits", number(store.commits)],
    ["Changes", number(store.operations)],
    ["Waiting", number(store.waiting)],
    ["Median commit", store.commit_micros_median === null ? "–" : `≤ ${micros(store.commit_micros_median)}`],
    ["99 of 100", store.commit_micros_p99 === null ? "–" : `≤ ${micros(store.commit_micros_p99)}`],
    ["On the disk", bytes(store.disk_bytes)],
    ["Failures", number(store.failures)],
  ] : [["State", "in memory only"]]);
  list($("listeners"), now.listeners.map(({ address, protocol, certificate_ends: ends }) => [
    address,
    ends === null ? protocol : `${protocol}, until ${new Date(ends * 1000).toISOString().slice(0, 10)}`,
  ]));
  state(`Version ${now.version}, up for ${time(now.uptime)}${now.stopping ? ", shutting down" : ""}.`, now.stopping);
}

function state(text, bad = false) {
  $("state").textContent = text;
  $("state").className = bad ? "bad" : "";
}

let ticking = false;
async function tick() {
  if (ticking || document.hidden) return;
  ticking = true;
  try {
    draw(await api("status"));
  } catch (error) {
    before = null;
    state(error instanceof Failed ? `Not available: ${error.message}.` : "The broker cannot be reached.", true);
  } finally {
    ticking = false;
  }
}

// ---- lists that come in pages ----

/** A list with a button for more: `path` gives what to ask for, `add` shows items. */
function paged(name, path, add, clear) {
  let next = null;
  let shown = 0;
  const load = async (fresh) => {
    if (fresh) {
      next = null;
      shown = 0;
      clear();
    }
    const note = $(`${name}-note`);
    try {
      // A page may be short or empty and yet not the last.
      const wanted = shown + PAGE;
      do {
        const { url, keep } = path();
        const after = next ? `&after=${encodeURIComponent(next)}` : "";
        const page = await api(`${url}${after}`);
        const items = page.items.filter(keep ?? (() => true));
        shown += items.length;
        next = page.next;
        add(items);
      } while (next && shown < wanted && current === name);
      note.textContent = shown ? `${number(shown)} shown${next ? ", there are more" : ""}.` : "There are none.";
    } catch (error) {
      note.textContent = error.message;
    }
    $(`${name}-more`).hidden = !next;
  };
  $(`${name}-more`).addEventListener("click", () => load(false));
  $(`${name}-form`).addEventListener("submit", (event) => {
    event.preventDefault();
    load(true);
  });
  return () => load(true);
}

const encoded = encodeURIComponent;
const byName = new Intl.Collator("en", { numeric: true }).compare;

function clientRow(client) {
  const row = element("tr", undefined, client.connection ? "" : "away");
  const link = client.connection;
  const lasts = client.expires_in === null ? "away" : `away, ends in ${time(client.expires_in)}`;
  row.append(
    element("td", client.client),
    element("td", client.user ?? ""),
    element("td", link ? link.address ?? "" : lasts),
    element("td", link ? link.version : ""),
    element("td", number(client.subscriptions), "n"),
    element("td", `${number(client.queued)}${client.queued ? ` (${bytes(client.queued_bytes)})` : ""}`, "n"),
    element("td", number(client.in_flight), "n"),
    element("td", number(client.dropped), "n"),
    element("td", link ? number(link.messages_received) : "", "n"),
    element("td", link ? number(link.messages_sent) : "", "n"),
  );
  const actions = element("td");
  if (link) {
    actions.append(button("Disconnect", async () => {
      if (!(await sure(`Close the connection of ${client.client}? Its session stays.`))) return;
      await act(`clients/${encoded(client.client)}/disconnect`, "POST", "clients");
    }, `Disconnect ${client.client}`), " ");
  }
  actions.append(button("Delete", async () => {
    if (!(await sure(`End the session of ${client.client} for good, with ${client.queued} messages that wait?`))) return;
    await act(`clients/${encoded(client.client)}`, "DELETE", "clients");
  }, `Delete the session of ${client.client}`));
  row.append(actions);
  return row;
}

async function act(path, method, view) {
  try {
    await api(path, method);
  } catch (error) {
    $(`${view}-note`).textContent = error.message;
    return;
  }
  views[view]();
}

const clientPages = paged(
  "clients",
  () => ({ url: `clients?limit=${PAGE}&connected=${$("clients-connected").checked}` }),
  (items) => {
    items.sort((a, b) => byName(a.client, b.client));
    $("clients-rows").append(...items.map(clientRow));
  },
  () => $("clients-rows").replaceChildren(),
);

async function showClients() {
  const wanted = $("client-find").value;
  if (!wanted) return clientPages();
  $("clients-more").hidden = true;
  $("clients-rows").replaceChildren();
  try {
    $("clients-rows").append(clientRow(await api(`clients/${encoded(wanted)}`)));
    $("clients-note").textContent = "";
  } catch (error) {
    $("clients-note").textContent = error.message;
  }
}
$("clients-form").addEventListener("submit", (event) => {
  if (!$("client-find").value) return;
  event.preventDefault();
  event.stopImmediatePropagation();
  showClients();
}, { capture: true });

// Filters as a tree of their levels; who subscribed stands below the last one.
let root = null;

function place(filter) {
  let node = root;
  for (const level of filter.split("/")) {
    if (!node.below.has(level)) {
      const details = element("details");
      const summary = element("summary", level === "" ? "(empty)" : level);
      const who = element("div", undefined, "who");
      details.append(summary, who);
      node.at.append(details);
      node.below.set(level, { at: details, below: new Map(), summary, who, level, count: 0 });
    }
    node = node.below.get(level);
    node.count += 1;
    node.summary.textContent = `${node.level === "" ? "(empty)" : node.level} (${number(node.count)})`;
  }
  return node;
}

const showSubscriptions = paged(
  "subscriptions",
  () => {
    const client = $("subscriptions-client").value;
    return { url: client ? `clients/${encoded(client)}/subscriptions?limit=1000` : "subscriptions?limit=1000" };
  },
  (items) => {
    items.sort((a, b) => byName(a.filter, b.filter) || byName(a.client ?? "", b.client ?? ""));
    for (const item of items) {
      const waiting = item.waiting ? `, ${number(item.waiting)} wait in the group` : "";
      const who = item.client ?? "the broker itself";
      place(item.filter).who.append(element("div", `${who}: QoS ${item.qos}${waiting}`));
    }
    // What is small is open.
    if (root.below.size <= 20) for (const { at } of root.below.values()) at.open = true;
  },
  () => {
    $("subscriptions-tree").replaceChildren();
    root = { at: $("subscriptions-tree"), below: new Map() };
  },
);

const showRetained = paged(
  "retained",
  () => {
    const part = $("retained-find").value;
    return {
      url: `retained?limit=1000&sys=${$("retained-sys").checked}`,
      keep: (item) => item.topic.includes(part),
    };
  },
  (items) => {
    items.sort((a, b) => byName(a.topic, b.topic));
    for (const item of items) {
      const row = element("tr");
      row.append(
        element("td", item.topic),
        element("td", item.qos, "n"),
        element("td", bytes(item.bytes), "n"),
        element("td", item.expires_in === null ? "" : time(item.expires_in), "n"),
        element("td", item.publisher ?? ""),
      );
      const actions = element("td");
      const path = `retained/${encoded(item.topic)}`;
      actions.append(
        button("Show", async () => {
          try {
            const message = await api(path);
            show(item.topic, message.payload ?? `${bytes(message.bytes)} that are no text, as base64:\n${message.payload_base64}`);
          } catch (error) {
            $("retained-note").textContent = error.message;
          }
        }, `Show ${item.topic}`),
        " ",
        button("Delete", async () => {
          if (await sure(`Remove the retained message of ${item.topic}? Subscribers are not told.`)) {
            await act(path, "DELETE", "retained");
          }
        }, `Delete ${item.topic}`),
      );
      row.append(actions);
      $("retained-rows").append(row);
    }
  },
  () => $("retained-rows").replaceChildren(),
);

function show(title, text) {
  $("show-title").textContent = title;
  $("show-text").textContent = text;
  $("show").showModal();
}

// ---- console ----

let client = null;

function consoleState(text, connected) {
  $("console-state").textContent = text;
  $("login").textContent = connected ? "Disconnect" : "Connect";
  for (const form of ["subscribe-form", "publish-form"]) {
    $(form).querySelector("button:not(.filter)").disabled = !connected;
  }
  if (!connected) $("subscribed").replaceChildren();
}

function log(about, text) {
  const item = element("li");
  item.append(element("div", `${new Date().toLocaleTimeString()}  ${about}`, "about"));
  if (text !== undefined) item.append(element("pre", text));
  $("messages").prepend(item);
  while ($("messages").children.length > MESSAGES) $("messages").lastChild.remove();
}

function readable(payload) {
  try {
    return new TextDecoder("utf-8", { fatal: true }).decode(payload);
  } catch {
    return Array.from(payload.subarray(0, 256), (byte) => byte.toString(16).padStart(2, "0")).join(" ");
  }
}

$("login-form").addEventListener("submit", async (event) => {
  event.preventDefault();
  if (client) {
    client.disconnect();
    return;
  }
  const url = new URL("mqtt", location.href);
  url.protocol = location.protocol === "https:" ? "wss:" : "ws:";
  url.hash = "";
  const own = new Client(url, {
    message: ({ topic, payload, qos, retain, user }) => {
      const extras = user.map(([name, value]) => `, ${name}: ${value}`).join("");
      log(`${topic}  (QoS ${qos}${retain ? ", retained" : ""}${extras})`, readable(payload));
    },
    closed: (why) => {
      if (client === own) client = null;
      consoleState(why ? `Not connected: ${why}.` : "Not connected.", false);
    },
  });
  client = own;
  consoleState("Connecting…", false);
  try {
    const id = await own.connect({
      clientId: $("login-client").value,
      user: $("login-user").value,
      password: $("login-password").value,
    });
    consoleState(`Connected as ${id}.`, true);
  } catch (error) {
    consoleState(`Not connected: ${error.message}.`, false);
  }
});

$("subscribe-form").addEventListener("submit", async (event) => {
  event.preventDefault();
  const filter = $("subscribe-filter").value;
  const own = client;
  try {
    const qos = await own.subscribe(filter, Number($("subscribe-qos").value));
    log(`subscribed to ${filter} at QoS ${qos}`);
    const off = button(`${filter} ✕`, async () => {
      try {
        await own.unsubscribe(filter);
      } finally {
        off.remove();
      }
    }, `Unsubscribe from ${filter}`);
    off.classList.add("filter");
    $("subscribed").append(off, " ");
  } catch (error) {
    log(`not subscribed to ${filter}: ${error.message}`);
  }
});

$("publish-form").addEventListener("submit", async (event) => {
  event.preventDefault();
  const topic = $("publish-topic").value;
  try {
    await client.publish(topic, $("publish-payload").value, Number($("publish-qos").value), $("publish-retain").checked);
  } catch (error) {
    log(`not published to ${topic}: ${error.message}`);
  }
});

// ---- views ----

const views = {
  overview: tick,
  clients: showClients,
  subscriptions: showSubscriptions,
  retained: showRetained,
  console: () => {},
};
const tabs = Array.from(document.querySelectorAll('[role="tab"]'));
let current = "overview";

function open(tab) {
  for (const other of tabs) {
    const chosen = other === tab;
    other.setAttribute("aria-selected", chosen);
    other.tabIndex = chosen ? 0 : -1;
    $(other.getAttribute("aria-controls")).hidden = !chosen;
  }
  current = tab.getAttribute("aria-controls");
  views[current]();
}

tabs.forEach((tab, at) => {
  tab.addEventListener("click", () => open(tab));
  tab.addEventListener("keydown", (event) => {
    const to = { ArrowRight: at + 1, ArrowLeft: at - 1 + tabs.length, Home: 0, End: tabs.length - 1 }[event.key];
    if (to === undefined) return;
    event.preventDefault();
    const next = tabs[to % tabs.length];
    next.focus();
    open(next);
  });
});

setInterval(tick, 1000);
document.addEventListener("visibilitychange", tick);
tick();
