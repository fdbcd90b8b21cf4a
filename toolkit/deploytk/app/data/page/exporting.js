// Conversations as files.

import { listConversations, path } from "./store.js";
import { word } from "./words.js";

export function exported(kind, conversation, settings, options) {
  if (kind === "md") return { type: "text/markdown", text: asMarkdown(conversation, settings, options) };
  const one = (chat) => ({ title: chat.title, messages: path(chat).map(({ role, text }) => ({ role, content: text })), tree: chat });
  const chats = kind === "all" ? listConversations().map(one) : [one(conversation)];
  return { type: "application/json", text: JSON.stringify({ model: settings.model, system: options.system, chats }, null, 2) };
}

function asMarkdown(conversation, settings, options) {
  const said = path(conversation).map(({ role, text }) => `## ${word(role === "user" ? "you" : "model")}\n\n${text}\n`);
  const system = options.system.trim() ? [`> ${options.system.trim().replaceAll("\n", "\n> ")}\n`] : [];
  return [`# ${conversation.title}\n`, `${settings.model}\n`, ...system, ...said].join("\n");
}

export function fileName(kind, conversation, settings) {
  const name = kind === "all" ? settings.model : conversation.title;
  return `${(name || "chat").replace(/[^\p{L}\p{N}]+/gu, "-").slice(0, 40)}.${kind === "md" ? "md" : "json"}`;
}
