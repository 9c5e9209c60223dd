// Models of Vercel's AI SDK by the name of their provider package, and the SDK that each is for.
import { API_KEY, BASE_URL, MODEL, require } from './tools.mjs';

const settings = { name: 'pomogator', apiKey: API_KEY, baseURL: BASE_URL };
const openai = ({ createOpenAI }) => createOpenAI(settings).chat(MODEL);
const responses = ({ createOpenAI }) => createOpenAI(settings)(MODEL);
const compatible = ({ createOpenAICompatible }) => createOpenAICompatible(settings)(MODEL);
const openrouter = ({ createOpenRouter }) =>
  createOpenRouter(settings)(MODEL, { reasoning: { effort: 'low' } });

const packages = {
  '@ai-sdk/openai': ['ai', openai],
  '@ai-sdk/openai-5': ['ai-5', openai],
  '@ai-sdk/openai responses': ['ai', responses],
  '@ai-sdk/openai-compatible': ['ai', compatible],
  '@ai-sdk/openai-compatible-5': ['ai-5', compatible],
  '@openrouter/ai-sdk-provider': ['ai', openrouter],
};

export const load = (name) => {
  const [sdk, make] = packages[name];
  return { sdk: require(sdk), model: make(require(name.split(' ')[0])) };
};
