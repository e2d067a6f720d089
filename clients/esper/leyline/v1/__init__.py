"""Generated protobuf and gRPC code for esper.leyline.v1; made by tests/regenerate_protos.py."""
