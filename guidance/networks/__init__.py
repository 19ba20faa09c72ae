"""Frozen networks that judge an image, as differentiable functions: what surrounds their layers."""

from .onnx_file import OnnxSignature
from .onnx_module import OnnxModule, load_onnx

__all__ = ["OnnxModule", "OnnxSignature", "load_onnx"]
