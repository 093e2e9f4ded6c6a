"use strict";
// Follows /events and fetches a picture for each event. Every text goes into the page as text, never as markup.

const SILENCE_MS = 5000; // the server says something every second
const RETRY_MS = [500, 1000, 2000, 4000];
const KEPT_ENTRIES = { decision: 50, other: 100 };
const STAGES = ["capture", "prepare", "infer", "decide"];

const at = (id) => document.getElementById(id);
const finite = (value) => typeof value === "number" && Number.isFinite(value);
const setText = (element, text) => {
  if (element.textContent !== text) element.textContent = text;
};
const milliseconds = (value) =>
  !finite(value) ? "–" : value < 10 ? `${value.toFixed(2)} ms` : value < 1000 ? `${value.toFixed(1)} ms` : seconds(value);
const seconds = (value) => {
  const whole = Math.round(value / 1000);
  if (value < 10000) return `${(value / 1000).toFixed(1)} s`;
  if (whole < 60) return `${whole} s`;
  if (whole < 3600) return `${Math.floor(whole / 60)} min ${whole % 60} s`;
  return `${Math.floor(whole / 3600)} h ${Math.floor((whole % 3600) / 60)} min`;
};
const percent = (value) => (finite(value) ? `${(100 * value).toFixed(1)} %` : "–");
const clock = (ago_ms) => new Date(Date.now() - ago_ms).toLocaleTimeString([], { hourCycle: "h23" });

let facts = { model: "edgeclf", reject_below: null };
let newest = null; // the last message that had an event
let heard = null; // the last message of any kind, and when it came
let heardAt = 0;
let lastEntry = 0;

// ---- showing ----------------------------------------------------------------------------------------------------

function showFacts(given) {
  facts = given;
  newest = null;
  pictures.number = 0;
  lastEntry = 0;
  at("log").replaceChildren();
  setText(at("model"), facts.model);
  const threads = `${facts.threads} ${facts.threads === 1 ? "thread" : "threads"}`;
  setText(at("facts"), [facts.artifact, facts.scheme, facts.engine, threads, facts.source].join(" · "));
}

function showEvent(message) {
  newest = message;
  const decision = message.decision.label;
  setText(at("label"), decision === null ? "no label" : decision);
  const sure = decision === null ? "" : `${percent(message.decision.score)}, `;
  setText(at("held"), `${sure}for ${seconds(message.decision.held_ms)}`);
  document.title = `${decision === null ? "–" : decision} · ${facts.model}`;
  const accepted = at("accepted");
  accepted.hidden = facts.reject_below === null;
  accepted.className = message.accepted ? "pill good" : "pill doubt";
  setText(accepted, message.accepted ? "accepted" : `not accepted: below ${percent(facts.reject_below)}`);
  showBars(message.top);
  showStages(message.timing_ms);
}

function showBars(top) {
  const list = at("bars");
  while (list.children.length > top.length) list.lastElementChild.remove();
  while (list.children.length < top.length) {
    const row = document.createElement("li");
    const track = document.createElement("div");
    track.append(document.createElement("i"));
    row.append(document.createElement("span"), document.createElement("b"), track);
    list.append(row);
  }
  top.forEach(({ label, score }, place) => {
    const [name, value, track] = list.children[place].children;
    setText(name, label);
    name.title = label;
    setText(value, percent(score));
    track.firstElementChild.style.transform = `scaleX(${finite(score) ? Math.min(1, Math.max(0, score)) : 0})`;
  });
}

function showStages(timing) {
  setText(at("total"), milliseconds(timing.total));
  for (const stage of STAGES) {
    setText(at(stage), milliseconds(timing[stage]));
    document.querySelector(`#stack .${stage}`).style.flexGrow = Math.max(0, timing[stage] || 0);
  }
}

function showRows(list, rows) {
  const known = rows.filter(([, value]) => value !== null && value !== undefined);
  while (list.children.length > known.length) list.lastElementChild.remove();
  while (list.children.length < known.length) {
    const row = document.createElement("div");
    row.append(document.createElement("dt"), document.createElement("dd"));
    list.append(row);
  }
  known.forEach(([name, value, bad], place) => {
    const [term, shown] = list.children[place].children;
    setText(term, name);
    setText(shown, String(value));
    shown.className = bad ? "bad" : "";
  });
}

function showState(message) {
  const { status, health } = message;
  setText(at("fps"), finite(message.fps) ? message.fps.toFixed(1) : "–");
  showRows(at("source"), status === null ? [["state", "not known"]] : [
    ["state", status.state, status.state === "stalled"],
    ["size", status.size === null ? null : `${status.size[0]}×${status.size[1]}`],
    ["frames a second", status.fps > 0 ? status.fps.toFixed(1) : null],
    ["captured", status.captured],
    ["dropped for newer ones", status.dropped],
    ["repeated", status.repeated],
    ["torn", status.torn, status.torn > 0],
    ["faults", status.faults, status.faults > status.recoveries],
    ["recoveries", status.recoveries],
    ["viewers", message.viewers],
  ]);
  const known = health || {};
  const causes = known.throttled || [];
  const now = causes.filter((cause) => cause.endsWith("now"));
  setText(at("temperature"), finite(known.temperature_c) ? `${known.temperature_c.toFixed(1)} °C` : "–");
  setText(at("throttled"), now.length ? now.join(", ") : finite(known.temperature_c) ? "temperature" : "temperature not known");
  at("temperature-tile").className = now.length ? "bad" : "";
  showRows(at("board"), [
    ["throttling", known.throttled ? causes.join(", ") || "none" : "not known", now.length > 0],
    ["clock", finite(known.frequency_mhz) ? `${Math.round(known.frequency_mhz)} MHz` : null],
    ["governor", known.governor],
    ["load", finite(known.load_1_min) ? known.load_1_min.toFixed(2) : null],
    ["free memory", finite(known.free_memory_mib) ? `${known.free_memory_mib} MiB` : null],
  ]);
  showLog(message.log);
}

function showLog(entries) {
  const list = at("log");
  for (const entry of entries) {
    if (entry.number <= lastEntry) continue;
    lastEntry = entry.number;
    const row = document.createElement("li");
    row.className = entry.level;
    const time = document.createElement("time");
    const level = document.createElement("b");
    const text = document.createElement("span");
    time.textContent = clock(entry.ago_ms);
    level.textContent = entry.level;
    text.textContent = entry.text;
    row.append(time, level, text);
    list.prepend(row);
  }
  if (!entries.length) return;
  for (const [rows, kept] of [
    [list.querySelectorAll("li.decision"), KEPT_ENTRIES.decision],
    [list.querySelectorAll("li:not(.decision)"), KEPT_ENTRIES.other],
  ]) Array.from(rows).slice(kept).forEach((row) => row.remove());
}

// What changes without a message: ages, and what a silence means.
function tick() {
  const silent = performance.now() - heardAt;
  const state = document.body.dataset.state;
  const age = heard === null || heard.frame_age_ms === null ? null : heard.frame_age_ms + silent;
  const live = state === "live";
  setText(at("age"), age === null ? "–" : live && newest !== null && silent < 1000 ? milliseconds(newest.age_ms) : seconds(age));
  const stale = age !== null && (state === "stalled" || state === "lost" || state === "ended");
  at("stalled").hidden = !stale;
  if (stale) setText(at("stalled"), `${state === "ended" ? "Ended at" : "Stalled since"} ${clock(age)} (${seconds(age)})`);
}

function setState(state, words, banner) {
  document.body.dataset.state = state;
  setText(at("state"), words);
  setText(at("banner"), banner);
  at("banner").hidden = banner === "";
  tick();
}

function hear(name, message) {
  if (name === "facts") return showFacts(message);
  if (name === "end") return setState("ended", "ended", "The program has ended; this page comes back with it.");
  heard = message;
  heardAt = performance.now();
  if (name === "message") {
    showEvent(message);
    pictures.fetchNewer();
  }
  showState(message);
  setText(at("waiting"), message.state === "live" ? "" : message.reason);
  setState(message.state, message.state, message.state === "stalled" || message.state === "ended" ? message.reason : "");
}

// ---- pictures: one request at a time, always for the newest ----------------------------------------------------------

const pictures = {
  number: 0,
  busy: false,
  async fetchNewer() {
    if (this.busy) return;
    this.busy = true;
    try {
      const response = await fetch(`frame.jpg?after=${this.number}`, { cache: "no-store", signal: AbortSignal.timeout(10000) });
      if (response.status === 200) {
        this.number = Number(response.headers.get("X-Number"));
        await this.show(await response.blob());
      }
    } catch {
      // the events tell when the connection is lost
    } finally {
      this.busy = false;
    }
  },
  async show(blob) {
    const image = at("picture");
    const before = image.src;
    image.src = URL.createObjectURL(blob);
    await image.decode();
    image.hidden = false;
    if (before) URL.revokeObjectURL(before);
  },
};

// ---- the connection -------------------------------------------------------------------------------------------------

async function follow(signal, onSilence) {
  const response = await fetch("events", { cache: "no-store", signal });
  if (!response.ok) throw new Error((await response.text()).trim());
  const reader = response.body.getReader();
  const decoder = new TextDecoder();
  let rest = "";
  for (;;) {
    const { done, value } = await reader.read();
    if (done) return;
    onSilence();
    const blocks = (rest + decoder.decode(value, { stream: true })).split("\n\n");
    rest = blocks.pop();
    for (const block of blocks) {
      const fields = new Map(block.split("\n").map((line) => line.split(/: ?(.*)/s, 2)));
      if (fields.has("data")) hear(fields.get("event") || "message", JSON.parse(fields.get("data")));
    }
  }
}

async function watch() {
  for (let tries = 0; ; tries += 1) {
    if (document.hidden) await new Promise((shown) => document.addEventListener("visibilitychange", shown, { once: true }));
    const connection = new AbortController();
    const hide = () => document.hidden && connection.abort();
    document.addEventListener("visibilitychange", hide); // a hidden page needs nothing
    let silence = 0;
    const onSilence = () => {
      clearTimeout(silence);
      silence = setTimeout(() => connection.abort(), SILENCE_MS);
    };
    onSilence();
    const begun = performance.now();
    let why = "";
    try {
      await follow(connection.signal, onSilence);
    } catch (error) {
      why = error instanceof TypeError || error.name === "AbortError" ? "" : ` ${error.message}`;
    }
    clearTimeout(silence);
    document.removeEventListener("visibilitychange", hide);
    if (document.hidden) continue;
    if (performance.now() - begun > 3000) tries = 0;
    if (document.body.dataset.state !== "ended") setState("lost", "no connection", `Connection lost; trying again.${why}`);
    await new Promise((go) => setTimeout(go, RETRY_MS[Math.min(tries, RETRY_MS.length - 1)]));
  }
}

if (location.search) history.replaceState(null, "", location.pathname); // a token has become a cookie
setInterval(tick, 250);
watch();
