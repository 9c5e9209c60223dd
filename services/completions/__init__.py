"""The story of a completion, and its border to gRPC."""
