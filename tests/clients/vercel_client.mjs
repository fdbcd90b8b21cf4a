// What Vercel's AI SDK makes of the app: node vercel_client.mjs URL MODEL, beside node_modules.
import { createOpenAICompatible } from "@ai-sdk/openai-compatible";
import { generateObject, generateText, jsonSchema, streamText, tool } from "ai";

const [url, name] = process.argv.slice(2);
const model = createOpenAICompatible({ name: "app", baseURL: `${url}/v1`, supportsStructuredOutputs: true })(name);
const asked = { model, prompt: "thank you", temperature: 0, maxRetries: 0 };

async function refused(ask) {
  try {
    await ask();
  } catch (error) {
    return [error.statusCode, error.message];
  }
  return null;
}

const nothing = jsonSchema({ type: "object", properties: {} });
const whole = await generateText(asked);
const parts = [];
const stream = streamText(asked);
for await (const part of stream.textStream) parts.push(part);
console.log(
  JSON.stringify({
    whole: whole.text,
    streamed: parts.join(""),
    finish: whole.finishReason,
    tokens: whole.usage.outputTokens,
    tools: await refused(() => generateText({ ...asked, tools: { f: tool({ inputSchema: nothing }) } })),
    json: await refused(() => generateObject({ ...asked, schema: nothing })),
  }),
);
