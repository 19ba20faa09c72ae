"""Frozen networks as differentiable functions: ONNX files, and published architectures."""

from .onnx_module import OnnxModule, load_onnx
from .onnx_signature import OnnxSignature

__all__ = ["OnnxModule", "OnnxSignature", "load_onnx"]
