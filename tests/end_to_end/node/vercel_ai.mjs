// Vercel's AI SDK over its OpenAI-compatible provider: a streamed loop of tool calls.
import { API_KEY, BASE_URL, MODEL, question, require, result, tools } from './tools.mjs';

const { createOpenAICompatible } = require('@ai-sdk/openai-compatible');
const { jsonSchema, stepCountIs, streamText, tool } = require('ai');

const provider = createOpenAICompatible({
  name: 'pomogator',
  apiKey: API_KEY,
  baseURL: BASE_URL,
  includeUsage: true,
});
const runnable = tools.map(({ function: { name, parameters } }) => [
  name,
  tool({ inputSchema: jsonSchema(parameters), execute: async () => result(name) }),
]);

const answer = streamText({
  model: provider(MODEL),
  messages: [question],
  tools: Object.fromEntries(runnable),
  stopWhen: stepCountIs(5),
});

let content = '';
for await (const part of answer.fullStream) {
  if (part.type === 'error') throw part.error;
  if (part.type === 'text-delta') content += part.text;
}
const steps = await answer.steps;
const calls = steps.flatMap((step) => step.toolCalls.map((call) => [call.toolName, call.input]));
const usage = await answer.totalUsage;
const reasoning = steps.map((step) => step.reasoningText ?? '').join('');
console.log(JSON.stringify({ content, calls, reasoning, usage }));
