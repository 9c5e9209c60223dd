// OpenAI's JavaScript SDK: one scene of a talk, named by the first argument, told as JSON.
import { API_KEY, BASE_URL, MODEL, answerTo, question, require, result, tools } from './tools.mjs';

const OpenAI = require('openai').default;
const { zodResponseFormat } = require('openai/helpers/zod');
const { z } = require('zod');

const client = new OpenAI({ apiKey: API_KEY, baseURL: BASE_URL, maxRetries: 0 });
const completions = client.chat.completions;
const request = { model: MODEL, messages: [question] };
const Capital = z.object({ country: z.string(), city: z.string() });

const loop = async (ask) => {
  const messages = [question];
  for (;;) {
    const message = await ask({ model: MODEL, messages, tools });
    if (!message.tool_calls?.length) return { content: message.content };
    messages.push(message, ...message.tool_calls.map(answerTo));
  }
};

const scenes = {
  async whole() {
    const completion = await completions.create(request);
    return { content: completion.choices[0].message.content, usage: completion.usage };
  },

  async stream() {
    const pieces = [];
    let usage;
    const options = { stream: true, stream_options: { include_usage: true } };
    for await (const chunk of await completions.create({ ...request, ...options })) {
      const piece = chunk.choices[0]?.delta.content;
      if (piece) pieces.push(piece);
      usage = chunk.usage ?? usage;
    }
    return { pieces, content: pieces.join(''), usage };
  },

  async helper() {
    const pieces = [];
    const stream = completions.stream(request).on('content', (piece) => pieces.push(piece));
    return { content: await stream.finalContent(), pieces: pieces.filter(Boolean) };
  },

  async parse() {
    const response_format = zodResponseFormat(Capital, 'capital');
    const completion = await completions.parse({ ...request, response_format });
    const streamed = await completions.stream({ ...request, response_format }).finalMessage();
    return { whole: completion.choices[0].message.parsed, streamed: streamed.parsed };
  },

  loop_whole: () => loop(async (asked) => (await completions.create(asked)).choices[0].message),

  loop_helper: () => loop((asked) => completions.stream(asked).finalMessage()),

  async loop_runner() {
    const runnable = tools.map((tool) => {
      const { name } = tool.function;
      return { type: 'function', function: { ...tool.function, function: () => result(name) } };
    });
    const runner = completions.runTools({ ...request, tools: runnable, stream: true });
    return { content: await runner.finalContent() };
  },

  async error() {
    try {
      for await (const _ of await completions.create({ ...request, stream: true }));
      return {};
    } catch (error) {
      const { constructor, status, code, param, type, message } = error;
      return { name: constructor.name, status, code, param, type, message };
    }
  },
};

console.log(JSON.stringify(await scenes[process.argv[2]]()));
