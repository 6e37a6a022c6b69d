"""What the machines say to each other over sockets: protobuf messages over gRPC streams."""
