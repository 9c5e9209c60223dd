// OpenAI's JavaScript SDK with Responses: one scene, named by the first argument, told as JSON.
import { API_KEY, BASE_URL, MODEL, require, result, tools } from './tools.mjs';

const OpenAI = require('openai').default;

const client = new OpenAI({ apiKey: API_KEY, baseURL: BASE_URL, maxRetries: 0 });
const question = { role: 'user', content: 'How is Paris, and what time is it?' };
const offered = tools.map(({ function: { name, parameters } }) => ({
  type: 'function',
  name,
  parameters,
  strict: false,
}));
const request = { model: MODEL, input: [question] };
const reasoning = {
  store: false,
  reasoning: { effort: 'low', summary: 'auto' },
  include: ['reasoning.encrypted_content'],
};

const streamed = async (asked) => {
  const kinds = [];
  const stream = client.responses.stream(asked);
  stream.on('event', ({ type }) => kinds.push(type));
  const response = await stream.finalResponse();
  return { ...response, kinds };
};
const told = ({ output, output_text, status, usage, kinds }) => ({
  output,
  output_text,
  status,
  usage,
  kinds,
});

const loop = async (ask) => {
  const input = [question];
  const turns = [];
  for (;;) {
    const response = await ask({ ...request, ...reasoning, input: [...input], tools: offered });
    turns.push(told(response));
    const calls = response.output.filter(({ type }) => type === 'function_call');
    if (!calls.length) return turns;
    input.push(...response.output);
    for (const { call_id, name } of calls) {
      input.push({ type: 'function_call_output', call_id, output: result(name) });
    }
  }
};

const failure = async (ask) => {
  try {
    await ask();
  } catch ({ status, code, param, message }) {
    return { status, code, param, message };
  }
};

const scenes = {
  whole: async () => told(await client.responses.create(request)),
  stream: async () => told(await streamed(request)),
  tools: () => loop((asked) => client.responses.create(asked)),
  streamedTools: () => loop(streamed),
  count: () => client.responses.inputTokens.count(request),
  refused: () =>
    failure(() => client.responses.create({ ...request, previous_response_id: 'resp_1' })),
};

console.log(JSON.stringify(await scenes[process.argv[2]]()));
