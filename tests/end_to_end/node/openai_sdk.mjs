// The API page's JavaScript: a whole answer, then the same question as a stream.
import { createRequire } from 'node:module';

const require = createRequire(process.env.POMOGATOR_NODE_MODULES + '/');
const OpenAI = require('openai').default;

const client = new OpenAI({ apiKey: process.env.API_KEY, baseURL: process.env.BASE_URL });
const request = {
  model: process.env.MODEL,
  messages: [
    { role: 'system', content: 'Ты помощник программиста' },
    { role: 'user', content: 'Напиши функцию сортировки на Python' },
  ],
  temperature: 0.3,
  max_tokens: 16,
};

const response = await client.chat.completions.create(request);

let streamed = '';
for await (const chunk of await client.chat.completions.create({ ...request, stream: true })) {
  streamed += chunk.choices[0]?.delta?.content ?? '';
}

console.log(JSON.stringify({ whole: response.choices[0].message.content, streamed }));
