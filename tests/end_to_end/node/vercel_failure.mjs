// What Vercel's AI SDK makes of a stream, over the provider package in the first argument.
import { API_KEY, BASE_URL, MODEL, question, require } from './tools.mjs';

const { streamText } = require('ai');

const settings = { name: 'pomogator', apiKey: API_KEY, baseURL: BASE_URL };
const models = {
  '@ai-sdk/openai': ({ createOpenAI }) => createOpenAI(settings).chat(MODEL),
  '@ai-sdk/openai-compatible': ({ createOpenAICompatible }) =>
    createOpenAICompatible(settings)(MODEL),
};
const name = process.argv[2];

const answer = streamText({
  model: models[name](require(name)),
  messages: [question],
  maxRetries: 0,
  onError: () => {},
});

const found = { content: '', errors: [], finishReasons: [] };
for await (const part of answer.fullStream) {
  if (part.type === 'error') found.errors.push(part.error.message ?? part.error);
  if (part.type === 'text-delta') found.content += part.text;
  if (part.type === 'finish') found.finishReasons.push(part.finishReason);
}
console.log(JSON.stringify(found));
