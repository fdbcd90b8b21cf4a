// What a visitor may choose, and the key; kept by this browser.

import { logIn, getSettings } from "./api.js";
import { find, iconButton, make } from "./elements.js";
import { readOptions, writeOptions } from "./store.js";
import { word } from "./words.js";

const PRESETS = ["translator", "coder", "writer", "teacher"];

export function loadOptions(sessionLen) {
  const longest = Math.max(1, sessionLen - 1);
  const usual = { system: "", preset: "", temperature: 0.7, topP: 0.95, maxTokens: Math.min(1024, longest), theme: "", language: "", presets: {} };
  const options = { ...usual, ...readOptions() };
  options.maxTokens = Math.min(options.maxTokens, longest);
  return options;
}

export function dress(options) {
  if (options.theme) document.documentElement.dataset.theme = options.theme;
  else delete document.documentElement.dataset.theme;
}

// `context` has options, sessionLen, needsKey, and what happens: changed(), speak(), unlocked(), removeAll().
export function openSettings(context) {
  const dialog = find("settings");
  draw(dialog, context);
  if (!dialog.open) dialog.showModal();
  (dialog.querySelector("#key") || dialog.querySelector("#preset")).focus();
}

function draw(dialog, context) {
  const close = iconButton("close", word("close"), () => dialog.close());
  dialog.onclick = (event) => { if (event.target === dialog) dialog.close(); };
  dialog.replaceChildren(
    make("div", { class: "row head" }, make("h2", { id: "settings-title" }, word("settings")), close),
    ...(context.needsKey ? [keyField(context)] : []),
    ...prompts(dialog, context),
    ...numbers(context),
    ...looks(dialog, context),
    make("p", { class: "small" }, word("here")),
    make("div", { class: "row" }, resetButton(dialog, context), make("button", { type: "button", class: "danger", onclick: () => context.removeAll() }, word("removeAll"))),
  );
}

function field(name, input, ...more) {
  return make("div", { class: "field" }, make("label", { for: input.id }, name), input, ...more);
}

function keyField(context) {
  const input = make("input", { id: "key", type: "password", autocomplete: "current-password", required: true });
  const answer = make("p", { id: "key-answer", role: "status" });
  const form = make("form", { id: "key-form" }, field(word("key"), input), make("button", { class: "main" }, word("enterKey")), answer);
  form.addEventListener("submit", async (event) => {
    event.preventDefault();
    answer.replaceChildren(await tryKey(input.value.trim(), context));
  });
  return form;
}

async function tryKey(key, context) {
  try {
    await logIn(key);
  } catch (error) {
    return word(error.status === 401 ? "keyWrong" : error.status === 429 ? "keyTooOften" : `errors.${error.code}`) || error.message;
  }
  try {
    await getSettings();
  } catch {
    const link = make("a", { href: location.href, target: "_blank", rel: "noopener" }, word("ownAddress"));
    return make("span", {}, word("keyNotKept"), " ", link);
  }
  find("settings").close();
  find("said").textContent = word("keyRight");
  context.unlocked();
  return word("keyRight");
}

function select(id, choices, value, onchange) {
  const box = make("select", { id }, ...choices.map(([choice, text]) => make("option", { value: choice, selected: choice === value }, text)));
  box.addEventListener("change", () => onchange(box.value));
  return box;
}

function prompts(dialog, context) {
  const { options } = context, change = (more) => { Object.assign(options, more); save(context); draw(dialog, context); };
  const system = make("textarea", { id: "system", rows: 4 });
  system.value = options.system;
  system.addEventListener("input", () => { options.system = system.value; save(context); });
  const shipped = PRESETS.map((name) => [name, word(`presets.${name}`)[0]]), own = Object.keys(options.presets).map((name) => [`own:${name}`, name]);
  const preset = select("preset", [["", word("presetNone")], ...shipped, ...own], options.preset, (name) => {
    change({ preset: name, system: name.startsWith("own:") ? options.presets[name.slice(4)] : name ? word(`presets.${name}`)[1] : "" });
    find("preset").focus();
  });
  return [field(word("preset"), preset), field(word("system"), system), presetButtons(context, change)];
}

function presetButtons(context, change) {
  const { options } = context, name = make("input", { id: "preset-name", type: "text", maxlength: 40, "aria-label": word("presetName"), placeholder: word("presetName") });
  const keep = () => {
    const text = name.value.trim();
    if (text && options.system.trim()) change({ presets: { ...options.presets, [text]: options.system }, preset: `own:${text}` });
  };
  const row = make("div", { class: "row" }, name, make("button", { type: "button", onclick: keep }, word("savePreset")));
  if (options.preset.startsWith("own:")) {
    const { [options.preset.slice(4)]: gone, ...rest } = options.presets;
    row.append(make("button", { type: "button", onclick: () => change({ presets: rest, preset: "", system: "" }) }, word("removePreset")));
  }
  return row;
}

function numbers(context) {
  const longest = Math.max(1, context.sessionLen - 1);
  return [["temperature", "temperature", 0, 2, 0.05], ["top-p", "topP", 0.05, 1, 0.05], ["max-tokens", "maxTokens", 1, longest, 1]].map(([id, name, min, max, step]) => {
    const input = make("input", { id, type: "number", min, max, step, inputmode: "decimal" });
    input.value = context.options[name];
    input.addEventListener("change", () => {
      const value = Math.min(max, Math.max(min, Number(input.value)));
      context.options[name] = input.value = step === 1 ? Math.round(value) : value;
      save(context);
    });
    return field(word(name), input);
  });
}

function looks(dialog, context) {
  const { options } = context;
  const theme = select("theme", [["", word("themeAuto")], ["light", word("themeLight")], ["dark", word("themeDark")]], options.theme, (value) => {
    options.theme = value;
    save(context);
    dress(options);
  });
  const language = select("language", [["", word("languageAuto")], ["en", "English"], ["zh", "中文"]], options.language, (value) => {
    options.language = value;
    save(context);
    context.speak();
    draw(dialog, context);
    find("language").focus();
  });
  return [field(word("theme"), theme), field(word("language"), language)];
}

function resetButton(dialog, context) {
  return make("button", { type: "button", onclick: () => {
    const { theme, language, presets } = context.options;
    writeOptions({ theme, language, presets });
    Object.assign(context.options, loadOptions(context.sessionLen));
    draw(dialog, context);
  } }, word("defaults"));
}

function save(context) {
  writeOptions(context.options);
}
