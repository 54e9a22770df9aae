// Clients for Node: openai, @anthropic-ai/sdk and the Vercel AI SDK with three providers. Each probe
// is a small use as the client's documentation shows it; outcomes are printed as harness.py does.
import Anthropic from "@anthropic-ai/sdk";
import { createAnthropic } from "@ai-sdk/anthropic";
import { createOpenAI } from "@ai-sdk/openai";
import { createOpenAICompatible } from "@ai-sdk/openai-compatible";
import { generateObject, generateText, stepCountIs, streamText, tool } from "ai";
import OpenAI from "openai";
import { zodResponseFormat, zodTextFormat } from "openai/helpers/zod";
import { z } from "zod";

const { WEIR_URL: url, WEIR_KEY: key, WEIR_MODEL: model, WEIR_METRICS_KEY: metricsKey } = process.env;
const v1 = `${url}/v1`;
const QUESTION = "What are your opening hours?";
const MESSAGES = [{ role: "user", content: QUESTION }];
const LONG = 1500;
const PROBE_LIMIT_MS = 90_000;
const IDLE_LIMIT_MS = 15_000;
const SCHEMA = {
  type: "object",
  properties: { order: { type: "string", enum: ["first", "second"] } },
  required: ["order"],
  additionalProperties: false,
};
const Order = z.object({ order: z.enum(["first", "second"]) });

class NotApplicable extends Error {}

function check(condition, message) {
  if (!condition) throw new Error(String(message));
}

function checkCall(name, args) {
  const found = typeof args === "string" ? JSON.parse(args) : args;
  check(name === "cancel_order", `tool ${name}`);
  Order.parse(found);
}

async function metric(name) {
  const headers = { authorization: `Bearer ${metricsKey}` };
  const text = await (await fetch(`${url}/metrics`, { headers })).text();
  const lines = text.split("\n").filter((l) => l.startsWith(`${name}{`) || l.startsWith(`${name} `));
  check(lines.length, `/metrics has no ${name}`);
  return lines.reduce((sum, line) => sum + Number(line.slice(line.lastIndexOf(" ") + 1)), 0);
}

// `leave` starts an answer of LONG tokens and leaves it: soon nothing runs, few tokens were made.
async function abandoned(leave) {
  if (!metricsKey) throw new NotApplicable("needs a key that may read /metrics (--metrics-key)");
  const before = await metric("vllm:generation_tokens_total");
  await leave();
  const deadline = Date.now() + IDLE_LIMIT_MS;
  while ((await metric("vllm:num_requests_running")) > 0) {
    check(Date.now() < deadline, `the engine still runs ${IDLE_LIMIT_MS / 1000} s later`);
    await new Promise((resolve) => setTimeout(resolve, 200));
  }
  const made = (await metric("vllm:generation_tokens_total")) - before;
  check(made < LONG / 2, `${made} of ${LONG} tokens were made though the client had left`);
}

async function expect(status, call) {
  try {
    await call();
  } catch (error) {
    const found = error.status ?? error.statusCode;
    check(found === status, `status ${status} expected, not ${found}: ${error.message}`);
    return error;
  }
  throw new Error(`status ${status} expected, the call went through`);
}

const notApplicable = (reason) => async () => {
  throw new NotApplicable(reason);
};

// openai

const openai = (apiKey = key) => new OpenAI({ baseURL: v1, apiKey, maxRetries: 0, timeout: 80_000 });
const functionTool = {
  type: "function",
  function: { name: "cancel_order", parameters: SCHEMA, strict: true },
};
const forced = { type: "function", function: { name: "cancel_order" } };
const flat = { type: "function", name: "cancel_order", parameters: SCHEMA, strict: true };
const flatForced = { type: "function", name: "cancel_order" };
const chat = (more = {}) =>
  openai().chat.completions.create({ model, messages: MESSAGES, max_tokens: 48, ...more });
const respond = (more = {}) =>
  openai().responses.create({ model, input: QUESTION, max_output_tokens: 48, ...more });
const called = (response) => response.output.find((item) => item.type === "function_call");

async function openaiErrors(call) {
  await expect(401, () => call(openai("weir_wrong"), { model }));
  await expect(404, () => call(openai(), { model: "no-such-model" }));
  const bad = await expect(400, () => call(openai(), { model, temperature: 99 }));
  check(bad.param === "temperature", `param ${bad.param}`);
}

const openaiChat = {
  chat: async () => check((await chat()).choices[0].message.content, "no text"),
  stream: async () => {
    const stream = openai().chat.completions.stream({ model, messages: MESSAGES, max_tokens: 32 });
    let pieces = 0;
    for await (const chunk of stream) pieces += chunk.choices[0]?.delta?.content ? 1 : 0;
    check(pieces > 3 && (await stream.finalContent()), `${pieces} pieces`);
  },
  tools: async () => {
    const { message } = (await chat({ tools: [functionTool], tool_choice: forced })).choices[0];
    checkCall(message.tool_calls[0].function.name, message.tool_calls[0].function.arguments);
  },
  "tools streamed": async () => {
    const more = { tools: [functionTool], tool_choice: forced, max_tokens: 48 };
    const stream = openai().chat.completions.stream({ model, messages: MESSAGES, ...more });
    const { message } = (await stream.finalChatCompletion()).choices[0];
    checkCall(message.tool_calls[0].function.name, message.tool_calls[0].function.arguments);
  },
  "tool loop": async () => {
    const { message } = (await chat({ tools: [functionTool], tool_choice: forced })).choices[0];
    const id = message.tool_calls[0].id;
    const messages = [...MESSAGES, message, { role: "tool", tool_call_id: id, content: "done" }];
    const second = await chat({ messages, tools: [functionTool], tool_choice: "none" });
    check(second.choices[0].message.content, "no text after the tool's result");
  },
  json: async () => {
    const response_format = zodResponseFormat(Order, "order");
    const more = { model, messages: MESSAGES, max_tokens: 48, response_format };
    Order.parse((await openai().chat.completions.parse(more)).choices[0].message.parsed);
  },
  logprobs: async () => {
    const answer = await chat({ logprobs: true, top_logprobs: 2 });
    check(answer.choices[0].logprobs.content.length === answer.usage.completion_tokens, "count");
  },
  n: async () => check((await chat({ n: 2 })).choices.length === 2, "two choices"),
  usage: async () => {
    let last;
    const options = { stream: true, stream_options: { include_usage: true } };
    for await (const chunk of await chat(options)) last = chunk;
    check(last.usage.completion_tokens > 0, "no counts in the stream");
  },
  cancel: () =>
    abandoned(async () => {
      const stream = await chat({ stream: true, max_tokens: LONG, ignore_eos: true });
      for await (const _ of stream) break;
    }),
  errors: () => openaiErrors((c, more) => c.chat.completions.create({ messages: MESSAGES, ...more })),
};

const openaiResponses = {
  chat: async () => check((await respond()).output_text, "no text"),
  stream: async () => {
    const stream = openai().responses.stream({ model, input: QUESTION, max_output_tokens: 32 });
    let pieces = 0;
    for await (const event of stream) pieces += event.type === "response.output_text.delta" ? 1 : 0;
    check(pieces > 3 && (await stream.finalResponse()).output_text, `${pieces} pieces`);
  },
  tools: async () => {
    const call = called(await respond({ tools: [flat], tool_choice: flatForced }));
    checkCall(call.name, call.arguments);
  },
  "tools streamed": async () => {
    const more = { tools: [flat], tool_choice: flatForced, max_output_tokens: 48 };
    const stream = openai().responses.stream({ model, input: QUESTION, ...more });
    const call = called(await stream.finalResponse());
    checkCall(call.name, call.arguments);
  },
  "tool loop": async () => {
    const first = await respond({ tools: [flat], tool_choice: flatForced });
    const call_id = called(first).call_id;
    const result = { type: "function_call_output", call_id, output: "done" };
    const input = [{ role: "user", content: QUESTION }, ...first.output, result];
    const second = await respond({ input, tools: [flat], tool_choice: "none" });
    check(second.output_text, "no text after the tool's result");
  },
  json: async () => {
    const text = { format: zodTextFormat(Order, "order") };
    const more = { model, input: QUESTION, max_output_tokens: 48, text };
    Order.parse((await openai().responses.parse(more)).output_parsed);
  },
  logprobs: async () => {
    const include = ["message.output_text.logprobs"];
    const answer = await respond({ top_logprobs: 2, include });
    check(answer.output.at(-1).content[0].logprobs[0].top_logprobs.length, "no alternatives");
  },
  n: notApplicable("Responses has no n"),
  usage: async () => check((await respond()).usage.output_tokens > 0, "no counts"),
  cancel: () =>
    abandoned(async () => {
      const stream = await respond({ stream: true, max_output_tokens: LONG, ignore_eos: true });
      for await (const _ of stream) break;
    }),
  errors: () => openaiErrors((c, more) => c.responses.create({ input: QUESTION, ...more })),
};

// @anthropic-ai/sdk

const anthropic = (apiKey = key) =>
  new Anthropic({ baseURL: url, apiKey, maxRetries: 0, timeout: 80_000 });
const claudeTool = { name: "cancel_order", input_schema: SCHEMA };
const claudeForced = { type: "tool", name: "cancel_order" };
const told = (more = {}) => ({ model, messages: MESSAGES, max_tokens: 48, ...more });
const say = (more) => anthropic().messages.create(told(more));
const used = (message) => message.content.find((block) => block.type === "tool_use");

const anthropicNode = {
  chat: async () => check((await say()).content[0].text, "no text"),
  stream: async () => {
    let pieces = 0;
    const stream = anthropic().messages.stream(told()).on("text", () => (pieces += 1));
    check((await stream.finalMessage()).content[0].text && pieces > 3, `${pieces} pieces`);
  },
  tools: async () => {
    const block = used(await say({ tools: [claudeTool], tool_choice: claudeForced }));
    checkCall(block.name, block.input);
  },
  "tools streamed": async () => {
    const more = { tools: [claudeTool], tool_choice: claudeForced };
    const block = used(await anthropic().messages.stream(told(more)).finalMessage());
    checkCall(block.name, block.input);
  },
  "tool loop": async () => {
    const first = await say({ tools: [claudeTool], tool_choice: claudeForced });
    const result = { type: "tool_result", tool_use_id: used(first).id, content: "done" };
    const turns = [{ role: "assistant", content: first.content }, { role: "user", content: [result] }];
    const messages = [...MESSAGES, ...turns];
    const second = await say({ messages, tools: [claudeTool], tool_choice: { type: "none" } });
    check(second.content[0].text, "no text after the tool's result");
  },
  json: async () => {
    const { zodOutputFormat } = await import("@anthropic-ai/sdk/helpers/zod");
    const output_config = { format: zodOutputFormat(Order) };
    Order.parse((await anthropic().messages.parse(told({ output_config }))).parsed_output);
  },
  logprobs: notApplicable("Messages has no such field"),
  n: notApplicable("Messages has no such field"),
  usage: async () => {
    const { usage } = await say();
    const counted = usage.input_tokens + (usage.cache_read_input_tokens ?? 0);
    const asked = await anthropic().messages.countTokens({ model, messages: MESSAGES });
    check(counted === asked.input_tokens, `${counted} counted, ${asked.input_tokens} told`);
  },
  cancel: () =>
    abandoned(async () => {
      const stream = await say({ stream: true, max_tokens: LONG, ignore_eos: true });
      for await (const _ of stream) break;
    }),
  errors: async () => {
    await expect(401, () => anthropic("weir_wrong").messages.create(told()));
    await expect(404, () => say({ model: "no-such-model" }));
    await expect(400, () => say({ temperature: 99 }));
  },
};

// Vercel AI SDK

const orderTool = tool({ inputSchema: Order, execute: async () => "done" });
const schemas = { supportsStructuredOutputs: true };
const vercel = {
  "vercel-openai": (apiKey = key, name = model) => createOpenAI({ baseURL: v1, apiKey })(name),
  "vercel-openai-chat": (apiKey = key, name = model) =>
    createOpenAI({ baseURL: v1, apiKey }).chat(name),
  "vercel-openai-compatible": (apiKey = key, name = model) =>
    createOpenAICompatible({ name: "weir", baseURL: v1, apiKey, includeUsage: true, ...schemas })(name),
  "vercel-anthropic": (apiKey = key, name = model) =>
    createAnthropic({ baseURL: v1, apiKey })(name),
};

function vercelProbes(make) {
  const ask = (more = {}) => ({
    model: make(),
    prompt: QUESTION,
    maxOutputTokens: 48,
    maxRetries: 0,
    ...more,
  });
  const tools = { cancel_order: orderTool };
  const toolChoice = { type: "tool", toolName: "cancel_order" };
  return {
    chat: async () => check((await generateText(ask())).text, "no text"),
    stream: async () => {
      let pieces = 0;
      for await (const _ of streamText(ask()).textStream) pieces += 1;
      check(pieces > 3, `${pieces} pieces`);
    },
    tools: async () => {
      const [call] = (await generateText(ask({ tools, toolChoice }))).toolCalls;
      checkCall(call.toolName, call.input);
    },
    "tools streamed": async () => {
      const [call] = await streamText(ask({ tools, toolChoice })).toolCalls;
      checkCall(call.toolName, call.input);
    },
    "tool loop": async () => {
      const prepareStep = ({ stepNumber }) => ({
        toolChoice: stepNumber === 0 ? toolChoice : "none",
      });
      const stopWhen = stepCountIs(2);
      const result = await generateText(ask({ tools, prepareStep, stopWhen }));
      check(result.steps.length === 2 && result.text, `${result.steps.length} steps`);
    },
    json: async () => {
      Order.parse((await generateObject(ask({ schema: Order }))).object);
    },
    usage: async () => {
      const result = streamText(ask());
      for await (const _ of result.textStream);
      check((await result.usage).outputTokens > 0, "no counts");
    },
    cancel: () =>
      abandoned(async () => {
        // These providers have no field that forbids the end token: the time to leave is at once.
        const controller = new AbortController();
        const more = { maxOutputTokens: LONG, abortSignal: controller.signal };
        for await (const _ of streamText(ask({ ...more, onError: () => {} })).textStream) {
          controller.abort();
        }
      }),
    errors: async () => {
      await expect(401, () => generateText(ask({ model: make("weir_wrong") })));
      await expect(404, () => generateText(ask({ model: make(key, "no-such-model") })));
      await expect(400, () => generateText(ask({ maxOutputTokens: 10 ** 6 })));
    },
  };
}

// Only OpenAI's own provider has an option for logprobs; none has one for n.
const noField = notApplicable("the SDK has no argument for it");
function withRest(name, make) {
  const own = async () => {
    const providerOptions = { openai: { logprobs: 2 } };
    const asked = { model: make(), prompt: QUESTION, maxOutputTokens: 16, maxRetries: 0 };
    const { providerMetadata } = await generateText({ ...asked, providerOptions });
    check(providerMetadata.openai.logprobs?.length, "no logprobs");
  };
  const logprobs = name.startsWith("vercel-openai") && !name.endsWith("compatible") ? own : noField;
  return { ...vercelProbes(make), logprobs, n: noField };
}
const CLIENTS = {
  "openai-node-chat": openaiChat,
  "openai-node-responses": openaiResponses,
  "anthropic-node": anthropicNode,
  ...Object.fromEntries(
    Object.entries(vercel).map(([name, make]) => [name, withRest(name, make)]),
  ),
};

function limited(probe) {
  let timer;
  const late = new Promise((_, reject) => {
    timer = setTimeout(() => reject(new Error("not done after 90 s")), PROBE_LIMIT_MS);
  });
  return Promise.race([probe(), late]).finally(() => clearTimeout(timer));
}

async function outcomeOf(probe) {
  try {
    await limited(probe);
  } catch (error) {
    if (error instanceof NotApplicable) return ["not applicable", error.message];
    if (process.env.WEIR_TRACE) console.error(error);
    const text = String(error.message ?? error).split("\n")[0];
    return ["fails", `${error.name ?? "Error"}: ${text}`.slice(0, 300)];
  }
  return ["works", ""];
}

const wanted = new Set(process.argv.slice(2));
for (const [client, probes] of Object.entries(CLIENTS)) {
  for (const [capability, probe] of Object.entries(probes)) {
    const name = `${client}/${capability}`;
    if (wanted.size && !wanted.has(name)) continue;
    const [outcome, detail] = await outcomeOf(probe);
    console.log(`\nWEIR-CLIENT ${JSON.stringify({ probe: name, outcome, detail })}`);
  }
}
process.exit(0);
