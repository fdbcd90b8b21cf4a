// Elements of the page, made without HTML in texts.

import { label, word } from "./words.js";

const ICONS = {
  plus: "M12 5v14M5 12h14", menu: "M4 7h16M4 12h16M4 17h16", send: "M12 20V5M6 11l6-6 6 6", down: "M12 5v14M6 13l6 6 6-6",
  export: "M12 4v11M7 10l5 5 5-5M5 20h14", copy: "M9 9h11v11H9zM5 15V4h11", check: "M5 13l4 4L19 7", pen: "M4 20l1-5L16 4l4 4L9 19z",
  again: "M19 12a7 7 0 1 1-2-5M19 4v4h-4", left: "M15 5l-7 7 7 7", right: "M9 5l7 7-7 7", bin: "M5 7h14M10 7V4h4v3M7 7l1 13h8l1-13",
  gear: "M4 7h9M19 7h1M4 17h1M11 17h9M16 4.5a2.5 2.5 0 1 1 0 5 2.5 2.5 0 1 1 0-5M8 14.5a2.5 2.5 0 1 1 0 5 2.5 2.5 0 1 1 0-5", close: "M6 6l12 12M18 6L6 18", stop: "M7 7h10v10H7z",
};

export const find = (id) => document.getElementById(id);

export function make(tag, attributes = {}, ...children) {
  const element = document.createElement(tag);
  for (const [name, value] of Object.entries(attributes)) {
    if (name === "onclick") element.addEventListener("click", value);
    else if (value !== false && value !== undefined) element.setAttribute(name, value === true ? "" : value);
  }
  element.append(...children);
  return element;
}

export function icon(name) {
  const drawing = document.createElementNS("http://www.w3.org/2000/svg", "svg");
  drawing.setAttribute("viewBox", "0 0 24 24");
  drawing.setAttribute("aria-hidden", "true");
  const path = document.createElementNS("http://www.w3.org/2000/svg", "path");
  path.setAttribute("d", ICONS[name]);
  drawing.append(path);
  return drawing;
}

// A button that is a picture, with a name for those who do not see it.
export function iconButton(name, text, onclick, more = {}) {
  const button = make("button", { type: "button", class: "bare", onclick, ...more }, icon(name));
  label(button, text);
  return button;
}

export function drawIcons() {
  for (const element of document.querySelectorAll("[data-icon]")) element.prepend(icon(element.dataset.icon));
}

// Also where browsers have no clipboard: over plain http from another machine.
export async function copy(text, button) {
  try {
    await navigator.clipboard.writeText(text);
  } catch {
    const box = make("textarea", { readonly: true, class: "unseen" });
    box.value = text;
    (button.closest("dialog") || document.body).append(box);
    box.select();
    document.execCommand("copy");
    box.remove();
  }
  const before = [...button.childNodes], name = button.getAttribute("aria-label");
  button.replaceChildren(icon("check"));
  label(button, word("copied"));
  find("said").textContent = word("copied");
  setTimeout(() => { button.replaceChildren(...before); label(button, name); }, 1500);
}

export function download(name, kind, text) {
  const link = make("a", { download: name, href: URL.createObjectURL(new Blob([text], { type: kind })) });
  link.click();
  setTimeout(() => URL.revokeObjectURL(link.href), 10000);
}
