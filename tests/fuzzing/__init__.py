"""Damage ONNX files at random, reproducibly: the bytes, or the message that they spell."""
