// A gRPC client made from the .proto files: a whole answer, then the same as a stream.
package main

import (
	"context"
	"encoding/json"
	"errors"
	"io"
	"log"
	"os"

	chat "example.com/client/pomogator/chat/v1"
	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/metadata"
)

func main() {
	connection, err := grpc.NewClient(
		os.Getenv("GRPC_TARGET"), grpc.WithTransportCredentials(insecure.NewCredentials()))
	if err != nil {
		log.Fatal(err)
	}
	defer connection.Close()
	client := chat.NewChatCompletionServiceClient(connection)
	ctx := metadata.AppendToOutgoingContext(
		context.Background(), "authorization", "Bearer "+os.Getenv("API_KEY"))
	spec := &chat.ChatCompletionSpec{
		Model: os.Getenv("MODEL"),
		Messages: []*chat.Message{{
			Role:    chat.Role_ROLE_USER,
			Content: []*chat.ContentPart{{Part: &chat.ContentPart_Text{Text: "Hello!"}}},
		}},
	}

	answer, err := client.CreateChatCompletion(ctx, &chat.CreateChatCompletionRequest{Spec: spec})
	if err != nil {
		log.Fatal(err)
	}
	whole := answer.Choices[0].Message.Content[0].GetText()

	stream, err := client.StreamChatCompletion(ctx, &chat.StreamChatCompletionRequest{Spec: spec})
	if err != nil {
		log.Fatal(err)
	}
	streamed := ""
	for {
		batch, err := stream.Recv()
		if errors.Is(err, io.EOF) {
			break
		}
		if err != nil {
			log.Fatal(err)
		}
		for _, chunk := range batch.Chunks {
			streamed += chunk.GetDelta().GetText()
		}
	}
	json.NewEncoder(os.Stdout).Encode(map[string]string{"whole": whole, "streamed": streamed})
}
