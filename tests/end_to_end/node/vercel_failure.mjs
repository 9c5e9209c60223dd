// What Vercel's AI SDK makes of a stream, over the provider package in the first argument.
import { question } from './tools.mjs';
import { load } from './vercel_models.mjs';

const { sdk, model } = load(process.argv[2]);

const answer = sdk.streamText({ model, messages: [question], maxRetries: 0, onError: () => {} });

const found = { content: '', errors: [], finishReasons: [] };
for await (const part of answer.fullStream) {
  if (part.type === 'error') found.errors.push(part.error.message ?? part.error);
  if (part.type === 'text-delta') found.content += part.text;
  if (part.type === 'finish') found.finishReasons.push(part.finishReason);
}
console.log(JSON.stringify(found));
