// Conversations and settings, as this browser keeps them. A conversation is a tree: an edited question and another answer
// are siblings of what was there before, so that nothing that was said is lost. `leaf` is the end of what is shown.

import { newId } from "./api.js";

const memory = new Map();  // where the browser keeps nothing, such as in a frame of another site

function read(key) {
  try { return localStorage.getItem(key) ?? memory.get(key) ?? null; } catch { return memory.get(key) ?? null; }
}

// Returns whether the browser keeps it.
function write(key, text) {
  try { localStorage.setItem(key, text); memory.delete(key); return true; } catch { memory.set(key, text); return false; }
}

function forget(key) {
  memory.delete(key);
  try { localStorage.removeItem(key); } catch { /* nothing is kept */ }
}

function keys() {
  let kept = [];
  try { kept = Object.keys(localStorage); } catch { /* nothing is kept */ }
  return [...new Set([...kept, ...memory.keys()])];
}

const parse = (text) => { try { return JSON.parse(text); } catch { return null; } };

export const readOptions = () => parse(read("deploytk/options")) || {};
export const writeOptions = (options) => write("deploytk/options", JSON.stringify(options));

export const CONVERSATION = "deploytk/chat/";

export function listConversations() {
  const found = keys().filter((key) => key.startsWith(CONVERSATION)).map((key) => parse(read(key)));
  return found.filter((one) => one?.id && one.nodes).sort((one, other) => other.updated - one.updated);
}

export const readConversation = (id) => parse(read(CONVERSATION + id));
export const removeConversation = (id) => forget(CONVERSATION + id);
export const newConversation = () => ({ id: newId(), title: "", updated: Date.now(), leaf: null, nodes: {} });

export function keep(conversation) {
  if (!Object.keys(conversation.nodes).length) return true;
  conversation.updated = Date.now();
  return write(CONVERSATION + conversation.id, JSON.stringify(conversation));
}

export function addNode(conversation, parent, role, text) {
  const node = { id: newId(), parent, role, text, at: Date.now() };
  conversation.nodes[node.id] = node;
  conversation.leaf = node.id;
  if (!conversation.title && role === "user") conversation.title = text.trim().split("\n")[0].slice(0, 60);
  return node;
}

// From the first message to the leaf.
export function path(conversation) {
  const found = [];
  for (let at = conversation.nodes[conversation.leaf]; at; at = conversation.nodes[at.parent]) found.unshift(at);
  return found;
}

export function siblings(conversation, node) {
  return Object.values(conversation.nodes).filter((one) => one.parent === node.parent && one.role === node.role).sort((one, other) => one.at - other.at);
}

// Show another version of a message, with what was said after it last.
export function choose(conversation, node) {
  let at = node;
  for (let child = at; child; child = lastChild(conversation, at)) at = child;
  conversation.leaf = at.id;
}

function lastChild(conversation, node) {
  return Object.values(conversation.nodes).filter((one) => one.parent === node.id).sort((one, other) => other.at - one.at)[0];
}
