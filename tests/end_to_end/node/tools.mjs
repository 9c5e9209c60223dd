// What the scripts here share: packages, the talk's settings, and the tools.
import { createRequire } from 'node:module';

export const require = createRequire(process.env.POMOGATOR_NODE_MODULES + '/');
export const { API_KEY, BASE_URL, MODEL } = process.env;

export const question = { role: 'user', content: 'How is Paris, and what time is it?' };

const results = { weather: '18 °C', clock: '12:00' };

export const tools = Object.keys(results).map((name) => ({
  type: 'function',
  function: { name, parameters: { type: 'object', properties: { city: { type: 'string' } } } },
}));

export const answerTo = (call) => ({
  role: 'tool',
  tool_call_id: call.id,
  content: results[call.function.name],
});

export const result = (name) => results[name];
