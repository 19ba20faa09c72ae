"""Frozen networks that judge an image, as differentiable functions: what surrounds their layers."""

from .onnx_module import OnnxModule, load_onnx
from .onnx_signature import OnnxSignature

__all__ = ["OnnxModule", "OnnxSignature", "load_onnx"]
