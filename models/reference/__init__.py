"""Reference networks built in plain ONNX by our own code, with seeded random weights."""
