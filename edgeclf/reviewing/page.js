"use strict";
// Shows one image at a time and posts what is decided of it. Every text goes into the page as text, never as markup.

const NUMBERED = 9;
const LISTED = 60; // of thousands of classes; the others are found by typing

const at = (id) => document.getElementById(id);
const percent = (value) => `${(100 * value).toFixed(1)} %`;

let state = null; // the server's last answer
let image = null; // what is shown: number, name, guess
let skipped = new Set();
let undoable = []; // decisions, the newest last: the server's, then this tab's
let busy = false;

// ---- asking ---------------------------------------------------------------------------------------------------------

async function ask(path, body) {
  const options = body === undefined ? {} : {
    method: "POST",
    headers: { "Content-Type": "application/json" },
    body: JSON.stringify(body),
  };
  const response = await fetch(path, { cache: "no-store", ...options });
  if (!response.ok) throw Object.assign(new Error((await response.text()).trim()), { status: response.status });
  return response.json();
}

// One thing at a time: a key that is pressed while an answer is awaited is not taken.
async function act(work) {
  if (busy) return;
  busy = true;
  showButtons();
  try {
    await work();
    say("");
  } catch (error) {
    say(error.status ? error.message : "No connection: the program has ended. What was decided is kept; start it again and load this page anew.");
    if (error.status === 409) await ask(`next?after=${image === null ? -1 : image.number - 1}`).then(show, () => {});
  } finally {
    busy = false;
    showButtons();
  }
}

const decide = (label, isNew = false) => act(async () => {
  if (image === null) return;
  const { number } = image;
  const answer = await ask("decide", { number, label, new: isNew });
  undoable.push(number);
  skipped.delete(number);
  at("search").value = "";
  await show(answer);
});

const skip = () => act(async () => {
  if (image === null) return;
  skipped.add(image.number);
  await show(await ask(`next?after=${image.number}`));
});

const undo = () => act(async () => {
  const number = undoable.at(-1);
  if (number === undefined) return;
  const answer = await ask("undo", { number }).catch((error) => {
    if (error.status === 409) undoable.pop(); // another tab has undone it
    throw error;
  });
  undoable.pop();
  await show(answer);
});

// ---- showing --------------------------------------------------------------------------------------------------------

async function show(answer) {
  state = answer;
  image = answer.image;
  document.body.dataset.state = image === null ? "done" : "deciding";
  showProgress();
  showGuess();
  showClasses();
  showProblems();
  await showPicture();
}

async function showPicture() {
  const picture = at("picture");
  at("name").textContent = image === null ? "\u00a0" : image.name;
  if (image === null) {
    picture.hidden = true;
    picture.removeAttribute("src");
    at("waiting").textContent = `Nothing is left to decide. Now train: edgeclf train ${state.out} --out run`;
    return;
  }
  const { number } = image;
  picture.src = `picture?number=${number}`;
  picture.dataset.number = String(number);
  await picture.decode().catch(() => say(`${image.name} can't be shown.`));
  picture.hidden = false;
}

function showProgress() {
  at("folder").textContent = state.folder;
  const parts = [`${state.decided} of ${state.total} decided`];
  if (state.none) parts.push(`${state.none} none of these`);
  const waiting = [...skipped].length;
  if (waiting) parts.push(`${waiting} skipped`);
  parts.push(`${state.left} left`);
  at("progress").textContent = parts.join(" · ");
  at("track").firstElementChild.style.transform = `scaleX(${state.total - state.unreadable ? state.decided / (state.total - state.unreadable) : 1})`;
  document.title = `${state.left} left · ${state.folder}`;
}

function showGuess() {
  const guess = image === null ? null : image.guess;
  const shown = at("guess");
  shown.textContent = guess === null ? "none is recorded" : `${guess.label} `;
  const bars = at("bars");
  bars.replaceChildren();
  if (guess === null) return;
  const score = document.createElement("small");
  score.textContent = percent(guess.score);
  shown.append(score);
  for (const [label, value] of guess.top) {
    const row = document.createElement("li");
    const [name, number, track, bar] = ["span", "b", "div", "i"].map((kind) => document.createElement(kind));
    name.textContent = label;
    number.textContent = percent(value);
    bar.style.transform = `scaleX(${Math.min(1, Math.max(0, value))})`;
    track.append(bar);
    row.append(name, number, track);
    bars.append(row);
  }
}

// What is typed finds classes: those that begin with it come first, then those that hold it.
function found() {
  const typed = at("search").value.trim().toLowerCase();
  const names = state.classes.map((one) => one.label.toLowerCase());
  const places = names.map((_, place) => place).filter((place) => names[place].includes(typed));
  if (typed) places.sort((one, other) => names[other].startsWith(typed) - names[one].startsWith(typed) || one - other);
  return places.map((place) => state.classes[place]);
}

function showClasses() {
  const typed = at("search").value.trim();
  const classes = found();
  const rows = classes.slice(0, LISTED).map((one, place) => classRow(one, place, typed));
  if (classes.length > LISTED) rows.push(textRow(`and ${classes.length - LISTED} more; type to find them`));
  if (typed && !state.classes.some((one) => one.label === typed)) rows.push(newRow(typed));
  at("classes").replaceChildren(...rows);
}

function classRow({ label, images }, place, typed) {
  const guessed = image !== null && image.guess !== null && image.guess.label === label;
  const [row, button] = buttonRow(label, () => decide(label));
  const key = button.firstElementChild;
  if (typed ? place === 0 : place < NUMBERED) {
    const shown = document.createElement("kbd");
    shown.textContent = typed ? "↵" : String(place + 1);
    key.append(shown);
  }
  button.lastElementChild.textContent = images ? String(images) : "";
  button.classList.toggle("guessed", guessed);
  button.classList.toggle("first", typed !== "" && place === 0);
  return row;
}

function newRow(typed) {
  const [row, button] = buttonRow(`new class “${typed}”`, () => decide(typed, true));
  button.id = "new";
  button.firstElementChild.textContent = "+";
  return row;
}

function buttonRow(text, act_) {
  const row = document.createElement("li");
  const button = document.createElement("button");
  const [key, name, count] = ["span", "span", "small"].map((kind) => document.createElement(kind));
  button.type = "button";
  name.textContent = text;
  button.append(key, name, count);
  button.disabled = image === null;
  button.addEventListener("click", act_);
  row.append(button);
  return [row, button];
}

function textRow(text) {
  const row = document.createElement("li");
  row.className = "more";
  row.textContent = text;
  return row;
}

function showProblems() {
  const box = at("problems");
  box.hidden = state.unreadable === 0;
  box.querySelector("summary").textContent = `${state.unreadable} can't be read and are left out`;
  box.querySelector("ul").replaceChildren(...state.reasons.map((reason) => textRow(reason)));
}

function showButtons() {
  at("undo").disabled = busy || undoable.length === 0;
  at("skip").disabled = at("none").disabled = busy || image === null;
}

function say(text) {
  at("banner").textContent = text;
  at("banner").hidden = text === "";
}

// ---- keys -----------------------------------------------------------------------------------------------------------

function press(event) {
  if (event.ctrlKey || event.metaKey || event.altKey || event.isComposing || state === null) return;
  if (event.repeat && event.key !== "Backspace") return; // a key that is held down must not decide a second image
  const search = at("search");
  const typed = search.value.trim();
  const onButton = event.target instanceof HTMLButtonElement || event.target.tagName === "SUMMARY";
  if (event.key === "Enter" && !onButton) {
    event.preventDefault();
    enter(typed, event.shiftKey);
  } else if (event.key === "Escape") {
    search.value = "";
    showClasses();
  } else if (event.key === "Delete" && !typed) {
    event.preventDefault();
    decide(null);
  } else if (event.key === "Backspace" && search.value === "" && !event.repeat) {
    event.preventDefault();
    undo();
  } else if (event.key === " " && !typed && !onButton) {
    event.preventDefault();
    skip();
  } else if (!typed && /^[1-9]$/.test(event.key)) {
    event.preventDefault();
    const chosen = found()[Number(event.key) - 1];
    if (chosen) decide(chosen.label);
  } else if (event.key.length === 1 && event.target !== search) {
    search.focus(); // the letter goes there
  }
}

function enter(typed, shift) {
  if (shift) return typed && decide(typed, !state.classes.some((one) => one.label === typed));
  if (typed) return found().length && decide(found()[0].label);
  const guess = image === null ? null : image.guess;
  return guess !== null && state.classes.some((one) => one.label === guess.label) && decide(guess.label);
}

// ---- beginning ------------------------------------------------------------------------------------------------------

if (location.search) history.replaceState(null, "", location.pathname); // a token has become a cookie
document.addEventListener("keydown", press);
at("search").addEventListener("input", () => state !== null && showClasses());
for (const [id, work] of [["undo", undo], ["skip", skip], ["none", () => decide(null)]]) {
  at(id).addEventListener("click", (event) => {
    if (event.detail > 0) event.currentTarget.blur(); // after a mouse, Enter means the guess again
    work();
  });
}
act(async () => {
  const answer = await ask("next?after=-1");
  undoable = answer.history;
  await show(answer);
});
