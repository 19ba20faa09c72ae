"""Frozen networks that judge an image, as differentiable functions: what surrounds their layers."""

from .onnx_module import OnnxModule, load_onnx
from .preprocessing import Preprocessing

__all__ = ["OnnxModule", "Preprocessing", "load_onnx"]
