// An agent of Vercel's AI SDK, over the provider package in the first argument: a loop of tool calls
// that reasons, with streams or, where the second argument is `whole`, without.
import { question, result, tools } from './tools.mjs';
import { load } from './vercel_models.mjs';

const { sdk, model } = load(process.argv[2]);

const runnable = tools.map(({ function: { name, parameters } }) => [
  name,
  sdk.tool({ inputSchema: sdk.jsonSchema(parameters), execute: async () => result(name) }),
]);
const task = {
  model,
  messages: [question],
  maxRetries: 0,
  tools: Object.fromEntries(runnable),
  stopWhen: sdk.stepCountIs(6),
  providerOptions: {
    openai: { reasoningEffort: 'low', forceReasoning: true, store: false, reasoningSummary: 'auto' },
    pomogator: { reasoningEffort: 'low' },
  },
};

if (process.argv[3] === 'whole') {
  const answer = await sdk.generateText(task);
  console.log(JSON.stringify({ content: answer.text, steps: answer.steps.length }));
} else {
  const answer = sdk.streamText({ ...task, onError: () => {} });
  for await (const part of answer.fullStream) if (part.type === 'error') throw part.error;
  const steps = await answer.steps;
  console.log(JSON.stringify({ content: await answer.text, steps: steps.length }));
}
