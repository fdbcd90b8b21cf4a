// What a model writes, as elements: Markdown without HTML, formulas, folded thoughts; nothing is loaded from elsewhere.

import { copy, iconButton, make } from "./elements.js";
import { word } from "./words.js";

const MATH = "vendor/temml.min.js";
const OPENERS = { "$$": ["$$", true], "\\[": ["\\]", true], "\\(": ["\\)", false] };
const ENVIRONMENT = /^\\begin\{((?:equation|align|aligned|gather|gathered|multline|cases|matrix|[bpvBV]matrix|array)\*?)\}/;

let reader, math;

export function render(text, target) {
  const { thoughts, answer, isThinking } = splitThoughts(text);
  const parts = thoughts ? [foldedThoughts(thoughts, isThinking, target)] : [];
  target.replaceChildren(...parts, drawn(answer));
}

function drawn(text) {
  const body = make("div", { class: "text" });
  body.innerHTML = markdown().render(text);  // html is off: everything that looks like a tag is escaped
  for (const element of body.querySelectorAll("pre")) addCopy(element);
  for (const element of body.querySelectorAll("table")) wrapTable(element);
  for (const element of body.querySelectorAll("a")) Object.assign(element, { target: "_blank", rel: "noopener noreferrer nofollow" });
  drawFormulas(body);
  return body;
}

// Models think between <think> and </think>; some templates have opened it already in the prompt.
export function splitThoughts(text) {
  const closed = text.indexOf("</think>");
  const opened = text.match(/^\s*<think>/);
  if (!opened && closed < 0) return { thoughts: "", answer: text, isThinking: false };
  const start = opened ? opened[0].length : 0;
  const end = closed < 0 ? text.length : closed;
  return { thoughts: text.slice(start, end).trim(), answer: closed < 0 ? "" : text.slice(closed + 8).trimStart(), isThinking: closed < 0 };
}

function foldedThoughts(thoughts, isThinking, target) {
  const isOpen = target.querySelector("details.thoughts")?.open;
  return make("details", { class: "thoughts", open: Boolean(isOpen) }, make("summary", {}, word(isThinking ? "thinking" : "thought")), drawn(thoughts));
}

function markdown() {
  if (reader) return reader;
  reader = window.markdownit({ html: false, breaks: false, linkify: false });
  reader.validateLink = (url) => /^(https?|mailto):/i.test(url.trim());  // without a host it would lead into this app
  reader.inline.ruler.before("escape", "math", inlineMath);
  reader.block.ruler.before("fence", "math", blockMath, { alt: ["paragraph", "reference", "blockquote", "list"] });
  reader.renderer.rules.math = (tokens, at) => formula(tokens[at].content, tokens[at].meta);
  reader.renderer.rules.image = (tokens, at) => linkToImage(tokens[at]);
  return reader;
}

const escaped = (text) => reader.utils.escapeHtml(text);
const formula = (tex, isBlock) => `<span class="math${isBlock ? " block" : ""}">${escaped(tex)}</span>`;

function linkToImage(token) {
  const source = token.attrGet("src") || "", text = escaped(word("image", { alt: token.content || source }));
  return `<a class="image" href="${escaped(source)}">${text}</a>`;
}

function inlineMath(state, isSilent) {
  const { src, pos } = state, two = src.slice(pos, pos + 2);
  const isDollar = src[pos] === "$" && two !== "$$";
  if (!isDollar && !(two in OPENERS)) return false;
  const [closer, isBlock] = isDollar ? ["$", false] : OPENERS[two];
  const start = pos + (isDollar ? 1 : 2);
  const end = endOf(src, start, closer);
  if (end < 0 || !src.slice(start, end).trim()) return false;
  if (isDollar && !looksLikeMath(src, start, end)) return false;
  if (!isSilent) Object.assign(state.push("math", "", 0), { content: src.slice(start, end), meta: isBlock });
  state.pos = end + closer.length;
  return true;
}

function endOf(text, start, closer) {
  for (let at = text.indexOf(closer, start); at >= 0; at = text.indexOf(closer, at + 1)) {
    if (closer[0] === "\\" || text[at - 1] !== "\\") return at;
  }
  return -1;
}

// "$5 and $6" is money: a formula has no space inside its dollars and no digit behind them.
function looksLikeMath(text, start, end) {
  return !/\s/.test(text[start]) && !/\s/.test(text[end - 1]) && !/\d/.test(text[end + 1] || "") && !text.slice(start, end).includes("\n\n");
}

function blockMath(state, first, last, isSilent) {
  const lineAt = (line) => state.src.slice(state.bMarks[line] + state.tShift[line], state.eMarks[line]);
  const head = lineAt(first), environment = head.match(ENVIRONMENT), opener = head.slice(0, 2);
  if (!environment && opener !== "$$" && opener !== "\\[") return false;
  const closer = environment ? `\\end{${environment[1]}}` : OPENERS[opener][0];
  for (let line = first, text = ""; line < last; line++) {
    text += (line > first ? "\n" : "") + (line > first ? lineAt(line) : environment ? head : head.slice(2));
    const end = text.indexOf(closer);
    if (end < 0) continue;
    if (text.slice(end + closer.length).trim()) return false;  // more behind it: a formula within a line
    if (isSilent) return true;
    const content = environment ? text : text.slice(0, end);
    Object.assign(state.push("math", "", 0), { content, meta: true, block: true });
    state.line = line + 1;
    return true;
  }
  return false;
}

function addCopy(pre) {
  const code = pre.querySelector("code"), language = code?.className.replace("language-", "") || "";
  const button = iconButton("copy", word("copy"), () => copy(code.textContent, button));
  const box = make("div", { class: "code" });
  pre.replaceWith(box);
  pre.tabIndex = 0;
  box.append(make("div", { class: "code-head" }, make("span", {}, language), button), pre);
}

function wrapTable(table) {
  const box = make("div", { class: "table", tabindex: "0" });
  table.replaceWith(box);
  box.append(table);
}

function drawFormulas(body) {
  const formulas = [...body.querySelectorAll(".math")];
  if (!formulas.length) return;
  if (window.temml) formulas.forEach(drawFormula);
  else loadMath().then(() => formulas.forEach(drawFormula), () => {});
}

function drawFormula(element) {
  const tex = element.textContent;
  try {
    window.temml.render(tex, element, { displayMode: element.classList.contains("block"), throwOnError: true, maxSize: [20, 500] });
    noteFlatMath(element);
    element.title = tex;
  } catch {
    element.textContent = tex;  // not whole yet, or no TeX
    element.classList.add("raw");
  }
}

// Without a font for formulas a browser leaves subscripts on the line.
function noteFlatMath(element) {
  const [base, below] = element.querySelector("msub")?.children || [];
  if (!below || document.documentElement.dataset.math) return;
  document.documentElement.dataset.math = "seen";
  const isFlat = below.getBoundingClientRect().bottom - base.getBoundingClientRect().bottom < 1;
  document.documentElement.classList.toggle("flat-math", isFlat);
}

function loadMath() {
  math ||= new Promise((done, fail) => {
    document.head.append(Object.assign(make("script"), { src: new URL(MATH, import.meta.url).href, onload: done, onerror: fail }));
  });
  return math;
}
