"""Generated from protos/third_party: the rules that fields carry (protovalidate)."""
