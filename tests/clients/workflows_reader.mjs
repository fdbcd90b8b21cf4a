// workflows_reader.mjs FILE...: what GitHub's own language service says of workflows and actions, as JSON by file.
import { readFileSync } from "node:fs";
import { register } from "node:module";

// Its modules import JSON without saying so, as bundlers allow; how Node wants it said differs by version.
const hooks = `export function load(url, context, next) {
  const name = "importAttributes" in context ? "importAttributes" : "importAssertions";
  return next(url, url.endsWith(".json") ? { ...context, [name]: { type: "json" } } : context);
}`;
register(`data:text/javascript,${encodeURIComponent(hooks)}`);
const { validate } = await import("@actions/languageservice");
const { TextDocument } = await import("vscode-languageserver-textdocument");

const said = {};
for (const file of process.argv.slice(2)) {
  const found = await validate(TextDocument.create(`file://${file}`, "yaml", 1, readFileSync(file, "utf8")), {});
  said[file] = found.map((one) => `${one.range.start.line + 1}: ${one.message}`);
}
console.log(JSON.stringify(said));
