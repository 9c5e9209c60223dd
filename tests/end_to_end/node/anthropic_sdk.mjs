// Anthropic's JavaScript SDK: one scene of a talk, named by the first argument, told as JSON.
import { API_KEY, BASE_URL, MODEL, require, result, tools } from './tools.mjs';

const Anthropic = require('@anthropic-ai/sdk').default;

const client = new Anthropic({
  apiKey: API_KEY,
  baseURL: BASE_URL.replace(/\/v1$/, ''),
  maxRetries: 0,
});
const question = { role: 'user', content: 'How is Paris, and what time is it?' };
const offered = tools.map(({ function: { name, parameters } }) => ({
  name,
  input_schema: parameters,
}));
const request = { model: MODEL, max_tokens: 4096, messages: [question] };
const reasoning = { thinking: { type: 'enabled', budget_tokens: 2048 } };

const told = ({ content, stop_reason, usage }) => ({ content, stop_reason, usage });

const loop = async (ask) => {
  const messages = [question];
  const turns = [];
  for (;;) {
    const message = await ask({ ...request, ...reasoning, messages, tools: offered });
    turns.push(told(message));
    const calls = message.content.filter(({ type }) => type === 'tool_use');
    if (!calls.length) return turns;
    const results = calls.map(({ id, name }) => ({
      type: 'tool_result',
      tool_use_id: id,
      content: result(name),
    }));
    messages.push(
      { role: 'assistant', content: message.content },
      { role: 'user', content: results },
    );
  }
};

const failure = async (ask) => {
  try {
    await ask();
  } catch ({ status, error, requestID }) {
    return { status, error, requestID };
  }
};

const scenes = {
  whole: async () => told(await client.messages.create(request)),
  stream: async () => told(await client.messages.stream(request).finalMessage()),
  tools: () => loop((asked) => client.messages.create(asked)),
  streamedTools: () => loop((asked) => client.messages.stream(asked).finalMessage()),
  count: () => client.messages.countTokens({ model: MODEL, messages: [question] }),
  batches: () => failure(() => client.messages.batches.list()),
  refused: () => failure(() => client.messages.create({ ...request, model: 'house/none' })),
  broken: () => failure(() => client.messages.stream(request).finalMessage()),
};

console.log(JSON.stringify(await scenes[process.argv[2]]()));
