// A gRPC client made from the .proto files: a whole answer, then the same as a stream.
import { createRequire } from 'node:module';

const require = createRequire(process.env.POMOGATOR_NODE_MODULES + '/');
const grpc = require('@grpc/grpc-js');
const protoLoader = require('@grpc/proto-loader');

const definition = protoLoader.loadSync('pomogator/chat/v1/chat_completion_service.proto', {
  includeDirs: process.env.PROTO_PATH.split(':'),
  enums: String,
});
const { pomogator } = grpc.loadPackageDefinition(definition);
const client = new pomogator.chat.v1.ChatCompletionService(
  process.env.GRPC_TARGET,
  grpc.credentials.createInsecure(),
);
const metadata = new grpc.Metadata();
metadata.set('authorization', `Bearer ${process.env.API_KEY}`);
const request = {
  spec: {
    model: process.env.MODEL,
    messages: [{ role: 'ROLE_USER', content: [{ text: 'Hello' }] }],
    maxTokens: 16,
  },
};

const whole = await new Promise((resolve, reject) => {
  client.createChatCompletion(request, metadata, (error, answer) =>
    error ? reject(error) : resolve(answer.choices[0].message.content[0].text),
  );
});

let streamed = '';
for await (const message of client.streamChatCompletion(request, metadata)) {
  for (const chunk of message.chunks) {
    streamed += chunk.delta?.text ?? '';
  }
}

console.log(JSON.stringify({ whole, streamed }));
client.close();
