// The messages of a conversation, as they are shown.

import { copy, iconButton, find, make } from "./elements.js";
import { render, splitThoughts } from "./markdown.js";
import { path, siblings } from "./store.js";
import { label, word } from "./words.js";

const articles = new Map();  // node id -> its element

// `acts` has isGrowing(node), and what buttons do: edit(node, text), again(node), choose(node), openSettings().
export function showMessages(conversation, acts) {
  const nodes = path(conversation);
  articles.clear();
  find("messages").replaceChildren(...nodes.map((node) => {
    const item = make("li", { class: node.role, "data-id": node.id });
    articles.set(node.id, item);
    fill(item, conversation, node, acts);
    return item;
  }));
}

export function showMessage(conversation, node, acts) {
  const item = articles.get(node.id);
  if (item) fill(item, conversation, node, acts);
}

// While an answer grows only its text is drawn anew.
export function growMessage(node, note) {
  const item = articles.get(node.id);
  if (!item) return;
  const body = item.querySelector(".body");
  if (node.text) render(node.text, body);
  else body.replaceChildren(make("p", { class: "waiting" }, make("span", { class: "dots", "aria-hidden": "true" }), note));
}

function fill(item, conversation, node, acts) {
  const body = make("div", { class: "body" });
  if (node.role === "user") body.append(make("div", { class: "text plain" }, node.text));
  else if (node.text) render(node.text, body);
  const parts = [make("h2", { class: "unseen" }, word(node.role === "user" ? "you" : "model")), body];
  if (node.role === "assistant") parts.push(...notes(node, acts));
  if (!acts.isGrowing(node)) parts.push(tools(item, conversation, node, acts));
  item.replaceChildren(...parts.filter(Boolean));
}

function notes(node, acts) {
  const found = [];
  if (node.isStopped) found.push(make("p", { class: "note" }, word("stopped")));
  if (node.stats?.isCut) found.push(make("p", { class: "note" }, word("cut", { tokens: node.stats.tokens })));
  if (node.error) found.push(trouble(node, acts));
  return found;
}

function trouble(node, acts) {
  const { code, message } = node.error;
  const text = word(`errors.${code}`) || word("errors.other", { message });
  const button = code === "invalid_api_key"
    ? make("button", { type: "button", onclick: acts.openSettings }, word("openSettings"))
    : make("button", { type: "button", onclick: () => acts.again(node) }, word("retry"));
  return make("div", { class: "trouble", role: "alert" }, make("p", {}, text), button);
}

function tools(item, conversation, node, acts) {
  const row = make("div", { class: "tools" }, ...versions(conversation, node, acts));
  const said = node.role === "user" ? node.text : splitThoughts(node.text || "").answer;
  if (said) {
    const button = iconButton("copy", word("copy"), () => copy(said, button));
    row.append(button);
  }
  if (node.role === "user") row.append(iconButton("pen", word("edit"), () => edit(item, conversation, node, acts)));
  else row.append(iconButton("again", word("again"), () => acts.again(node)));
  return row;
}

function versions(conversation, node, acts) {
  const all = siblings(conversation, node), at = all.indexOf(node);
  if (all.length < 2) return [];
  const step = (name, text, to) => iconButton(name, word(text), () => acts.choose(all[to]), { disabled: !all[to] });
  return [step("left", "previous", at - 1), make("span", { class: "version" }, word("version", { at: at + 1, of: all.length })), step("right", "next", at + 1)];
}

function edit(item, conversation, node, acts) {
  const box = make("textarea", { rows: Math.min(12, node.text.split("\n").length + 1) });
  label(box, word("edit"));
  box.value = node.text;
  const back = () => { fill(item, conversation, node, acts); item.querySelector(".tools button:last-child").focus(); };
  const send = () => { if (box.value.trim()) acts.edit(node, box.value); };
  const buttons = [make("button", { type: "button", onclick: back }, word("cancel")), make("button", { type: "button", class: "main", onclick: send }, word("save"))];
  box.addEventListener("keydown", (event) => {
    if (event.key === "Escape") back();
    if (event.key === "Enter" && !event.shiftKey && !event.isComposing) { event.preventDefault(); send(); }
  });
  item.replaceChildren(make("div", { class: "editing" }, box, make("div", { class: "row" }, ...buttons)));
  box.focus();
}

