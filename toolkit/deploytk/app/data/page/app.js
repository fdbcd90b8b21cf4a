// The page: what is on it when, and what its buttons do.

import { getSettings } from "./api.js";
import { ask, guessTokens } from "./asking.js";
import { download, drawIcons, find, iconButton, make } from "./elements.js";
import { exported, fileName } from "./exporting.js";
import { untilReady } from "./loading.js";
import { growMessage, showMessage, showMessages } from "./messages.js";
import { dress, loadOptions, openSettings } from "./settings.js";
import { CONVERSATION, addNode, choose, keep, listConversations, newConversation, path, readConversation, removeConversation } from "./store.js";
import { label, speak, word } from "./words.js";

const DRAW_EVERY_MS = 60, KEEP_EVERY_MS = 1000;
const settings = { title: "", examples: [], session_len: 2048, model: "" };
let options = loadOptions(settings.session_len);
let conversation = newConversation();
let running = null;  // { stop, node } while an answer grows
let isLocked = false, mayNeedKey = false;

const acts = {
  isGrowing: (node) => running?.node === node,
  edit: (node, text) => { if (!running) { const said = addNode(conversation, node.parent, "user", text); answer(said); } },
  again: (node) => { if (!running) answer(conversation.nodes[node.parent]); },
  choose: (node) => { if (!running) { choose(conversation, node); keep(conversation); show(); } },
  openSettings: () => openSettings(context),
};

const context = {
  get options() { return options; },
  get sessionLen() { return settings.session_len; },
  get needsKey() { return isLocked || mayNeedKey; },
  speak: () => { speak(options.language); show(); showSendButton(); },
  unlocked: async () => {
    isLocked = false;
    await begin();
    const last = path(conversation).at(-1);
    if (last?.error?.code === "invalid_api_key") acts.again(last);
  },
  removeAll: () => {
    if (!confirm(word("removeAllSure"))) return;
    for (const { id } of listConversations()) removeConversation(id);
    startNew();
    find("settings").close();
  },
};

// What is on the page

async function begin() {
  const ready = untilReady();  // asked beside the settings: a page is not kept waiting twice
  try {
    Object.assign(settings, await getSettings());
  } catch (error) {
    isLocked = error.code === "invalid_api_key";
  }
  mayNeedKey ||= isLocked;
  options = loadOptions(settings.session_len);
  show();
  settings.model = (await ready).model;
  show();
}

function show() {
  const isEmpty = !conversation.leaf;
  document.title = find("title").textContent = settings.title || word("chat");
  find("locked").hidden = !isLocked;
  find("greeting").hidden = !isEmpty || isLocked || !settings.model;
  const examples = settings.examples.length ? settings.examples : word("examples");
  find("examples").replaceChildren(...examples.map((text) => make("li", {}, make("button", { type: "button", onclick: () => say(text) }, text))));
  showMessages(conversation, acts);
  showConversations();
  showFacts();
  find("export").hidden = isEmpty;
}

function showConversations() {
  find("conversations").replaceChildren(...listConversations().map((one) => {
    const title = one.title || word("untitled");
    const open = make("button", { type: "button", class: "name", onclick: () => openConversation(one.id), ...(one.id === conversation.id ? { "aria-current": "true" } : {}) }, title);
    return make("li", {}, open, iconButton("pen", word("rename", { title }), () => rename(one)), iconButton("bin", word("remove", { title }), () => remove(one, title)));
  }));
}

function showFacts() {
  const stats = path(conversation).findLast((node) => node.stats)?.stats;
  const hasSpeed = stats && stats.tokens > 1 && stats.seconds > 0;
  find("speed").textContent = hasSpeed ? word("speed", { speed: rate(stats) }) : "";
  const isCounted = Boolean(stats?.total) || !conversation.leaf, used = stats?.total || guessTokens(path(conversation));
  const left = Math.max(0, settings.session_len - used), isFull = left < settings.session_len / 50;
  const shown = (isCounted ? "" : "≈ ") + left.toLocaleString();
  find("context").textContent = isFull ? word("full") : settings.model ? word("context", { left: shown, all: settings.session_len.toLocaleString() }) : "";
}

function rate({ tokens, seconds }) {
  const perS = (tokens - 1) / seconds;
  return perS < 100 ? perS.toFixed(1) : Math.round(perS).toLocaleString();
}

function showSendButton() {
  const button = find("send"), name = running ? "stop" : "send";
  if (button.dataset.now === name) { label(button, word(name)); return; }
  const drawn = iconButton(name, word(name));
  button.replaceChildren(...drawn.childNodes);
  button.dataset.now = name;
  label(button, word(name));
}

// What is said

function say(text) {
  if (running || !text.trim()) return;
  const box = find("message");
  box.value = "";
  fitBox();
  if (isLocked) { box.value = text; acts.openSettings(); return; }
  answer(addNode(conversation, conversation.leaf, "user", text.trim()));
}

async function answer(question) {
  conversation.leaf = question.id;
  const spoken = path(conversation).filter((node) => node.text);
  const node = addNode(conversation, question.id, "assistant", ""), of = conversation;
  node.model = settings.model;
  const stopper = new AbortController();
  running = { stop: () => stopper.abort(), node };
  keep(of);
  setAddress(of.id);
  show();
  showSendButton();
  scrollToEnd(true);
  const draw = drawer(of, node);
  try {
    node.stats = await ask(spoken, { ...options }, settings, stopper.signal, draw.change);
  } catch (error) {
    if (error.name === "AbortError") node.isStopped = true;
    else node.error = { code: error.code || "other", message: String(error.message) };
    if (error.code === "invalid_api_key") mayNeedKey = true;
  }
  draw.end();
  running = null;
  if (!keep(of)) find("said").textContent = word("notKept");
  if (of === conversation) { showMessage(of, node, acts); showFacts(); scrollToEnd(false); }
  showConversations();
  showSendButton();
  find("said").textContent = node.error ? "" : word(node.isStopped ? "stopped" : "answered");
  if (document.activeElement === document.body || document.activeElement === find("send")) find("message").focus();
}

// Draws an answer as it grows, not more often than can be seen.
function drawer(of, node) {
  let timer = 0, keptAt = Date.now(), note = "";
  function draw() {
    timer = 0;
    if (of === conversation) { growMessage(node, note); showFacts(); scrollToEnd(false); }
    if (Date.now() - keptAt > KEEP_EVERY_MS) { keep(of); keptAt = Date.now(); }
  }
  return {
    change: (shown) => {
      node.text = shown.text;
      node.stats = shown.stats;
      if (note !== shown.note && shown.note) find("said").textContent = shown.note;
      note = shown.note;
      timer ||= setTimeout(draw, DRAW_EVERY_MS);
    },
    end: () => clearTimeout(timer),
  };
}

// Conversations

function startNew() {
  running?.stop();
  conversation = newConversation();
  setAddress("");
  show();
  closeSide();
  find("message").focus();
}

// So that a reload shows the same conversation.
function setAddress(id) {
  history.replaceState(null, "", id ? `#${id}` : location.pathname + location.search);
}

function openConversation(id) {
  if (running) running.stop();
  conversation = readConversation(id) || newConversation();
  setAddress(id);
  show();
  closeSide();
  scrollToEnd(true);
  find("message").focus();
}

function rename(one) {
  const title = prompt(word("name"), one.title);
  if (!title?.trim()) return;
  const kept = one.id === conversation.id ? conversation : one;
  kept.title = title.trim().slice(0, 60);
  keep(kept);
  showConversations();
}

function remove(one, title) {
  if (!confirm(word("removeSure", { title }))) return;
  removeConversation(one.id);
  if (one.id === conversation.id) startNew();
  else showConversations();
}

// The frame

const isPhone = () => matchMedia("(max-width: 50rem)").matches;

function closeSide() {
  document.body.classList.remove("side-open");
  find("veil").hidden = true;
  find("menu").setAttribute("aria-expanded", String(!isPhone() && !document.body.classList.contains("side-closed")));
}

function toggleSide() {
  const isOpen = isPhone() ? document.body.classList.toggle("side-open") : !document.body.classList.toggle("side-closed");
  find("veil").hidden = !(isPhone() && isOpen);
  find("menu").setAttribute("aria-expanded", String(isOpen));
  if (isPhone() && isOpen) find("new").focus();
}

let isAtEnd = true;

function scrollToEnd(isWanted) {
  isAtEnd ||= isWanted;
  if (isAtEnd) find("scroll").scrollTop = find("scroll").scrollHeight;
}

function noteScroll() {
  const { scrollTop, clientHeight, scrollHeight } = find("scroll");
  isAtEnd = scrollTop + clientHeight > scrollHeight - 40;
  find("down").hidden = isAtEnd;
}

function fitBox() {
  const box = find("message");
  box.style.height = "auto";
  box.style.height = `${Math.min(box.scrollHeight + 2, innerHeight * 0.4)}px`;
}

function toggleExport() {
  const menu = find("export-menu"), isOpen = menu.hidden;
  const entries = [["exportMarkdown", "md"], ["exportJson", "json"], ["exportAll", "all"]];
  menu.replaceChildren(...entries.map(([name, kind]) => make("button", { type: "button", role: "menuitem", onclick: () => {
    closeExport();
    const { type, text } = exported(kind, conversation, settings, options);
    download(fileName(kind, conversation, settings), type, text);
  } }, word(name))));
  menu.hidden = !isOpen;
  find("export").setAttribute("aria-expanded", String(isOpen));
  if (isOpen) menu.firstChild.focus();
}

function closeExport() {
  find("export-menu").hidden = true;
  find("export").setAttribute("aria-expanded", "false");
}

function listen() {
  find("form").addEventListener("submit", (event) => {
    event.preventDefault();
    if (running) running.stop();
    else say(find("message").value);
  });
  find("message").addEventListener("input", fitBox);
  find("message").addEventListener("keydown", (event) => {
    if (event.key !== "Enter" || event.shiftKey || event.isComposing || event.keyCode === 229) return;
    event.preventDefault();
    if (!running) say(find("message").value);
  });
  find("new").onclick = startNew;
  find("open-settings").onclick = find("enter-key").onclick = acts.openSettings;
  find("menu").onclick = toggleSide;
  find("veil").onclick = closeSide;
  find("export").onclick = toggleExport;
  find("down").onclick = () => scrollToEnd(true);
  find("scroll").addEventListener("scroll", noteScroll, { passive: true });
  document.addEventListener("keydown", (event) => {
    if (event.key !== "Escape" || find("settings").open) return;
    if (!find("export-menu").hidden) { closeExport(); find("export").focus(); }
    else if (document.body.classList.contains("side-open")) { closeSide(); find("menu").focus(); }
  });
  document.addEventListener("click", (event) => { if (!event.target.closest("#export, #export-menu")) closeExport(); });
  addEventListener("storage", (event) => { if (event.key?.startsWith(CONVERSATION)) showConversations(); });
  addEventListener("pagehide", () => { if (running) keep(conversation); });
}

dress(options);
speak(options.language);
drawIcons();
showSendButton();
listen();
closeSide();
conversation = readConversation(location.hash.slice(1)) || newConversation();
show();
begin();
scrollToEnd(true);
find("message").focus();
