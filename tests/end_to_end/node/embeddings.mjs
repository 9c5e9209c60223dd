// Vectors by the SDK's default, which is base64, and as numbers.
import { createRequire } from 'node:module';

const require = createRequire(process.env.POMOGATOR_NODE_MODULES + '/');
const OpenAI = require('openai').default;

const client = new OpenAI({ apiKey: process.env.API_KEY, baseURL: process.env.BASE_URL });
const request = { model: process.env.MODEL, input: ['a first text', 'another'] };

const usual = await client.embeddings.create(request);
const numbers = await client.embeddings.create({ ...request, encoding_format: 'float' });

const vectors = (answer) => answer.data.map((each) => each.embedding);
console.log(JSON.stringify({ usual: vectors(usual), numbers: vectors(numbers) }));
