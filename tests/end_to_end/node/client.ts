// A gRPC client made from the .proto files: a whole answer, then the same as a stream.
import { createClient } from '@connectrpc/connect';
import { createGrpcTransport } from '@connectrpc/connect-node';
import { ChatCompletionService } from './pomogator/chat/v1/chat_completion_service_pb.js';
import { Role } from './pomogator/chat/v1/content_pb.js';

const { API_KEY, GRPC_TARGET, MODEL } = process.env;
const transport = createGrpcTransport({ baseUrl: `http://${GRPC_TARGET}` });
const client = createClient(ChatCompletionService, transport);
const headers = { authorization: `Bearer ${API_KEY}` };
const spec = {
  model: MODEL ?? '',
  messages: [
    { role: Role.USER, content: [{ part: { case: 'text' as const, value: 'Hello!' } }] },
  ],
};

const answer = await client.createChatCompletion({ spec }, { headers });
const part = answer.choices[0]?.message?.content[0]?.part;
const whole: string | undefined = part?.case === 'text' ? part.value : undefined;

let streamed = '';
for await (const batch of client.streamChatCompletion({ spec }, { headers })) {
  for (const { event } of batch.chunks) {
    if (event.case === 'delta' && event.value.content.case === 'text') {
      streamed += event.value.content.value;
    }
  }
}

console.log(JSON.stringify({ whole, streamed }));
