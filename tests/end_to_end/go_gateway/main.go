// An official grpc-gateway in front of the service, made from the .proto files.
package main

import (
	"context"
	"fmt"
	"log"
	"net"
	"net/http"
	"os"

	chat "example.com/gateway/pomogator/chat/v1"
	models "example.com/gateway/pomogator/models/v1"
	usage "example.com/gateway/pomogator/usage/v1"
	"github.com/grpc-ecosystem/grpc-gateway/v2/runtime"
	_ "google.golang.org/genproto/googleapis/rpc/errdetails" // The details of failures, as JSON.
	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"
)

func main() {
	ctx, mux := context.Background(), runtime.NewServeMux()
	options := []grpc.DialOption{grpc.WithTransportCredentials(insecure.NewCredentials())}
	for _, register := range []func(context.Context, *runtime.ServeMux, string, []grpc.DialOption) error{
		chat.RegisterChatCompletionServiceHandlerFromEndpoint,
		models.RegisterModelServiceHandlerFromEndpoint,
		usage.RegisterUsageServiceHandlerFromEndpoint,
	} {
		if err := register(ctx, mux, os.Getenv("GRPC_TARGET"), options); err != nil {
			log.Fatal(err)
		}
	}
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		log.Fatal(err)
	}
	fmt.Println(listener.Addr())
	log.Fatal(http.Serve(listener, mux))
}
