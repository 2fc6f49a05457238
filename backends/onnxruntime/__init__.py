"""ONNX Runtime: sessions, latency measured side by side, and the backend that compiles for it."""

from __future__ import annotations

from graphprune.backends.onnxruntime.latency import Latency, compare
from graphprune.backends.onnxruntime.sessions import Model, Provider, session, stored_bytes

__all__ = ["Latency", "Model", "Provider", "compare", "session", "stored_bytes"]
