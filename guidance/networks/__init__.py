"""Frozen networks that judge an image, as differentiable functions: what surrounds their layers."""

from ..pictures.preprocessing import Preprocessing
from .onnx_file import OnnxSignature
from .onnx_module import OnnxModule, load_onnx

__all__ = ["OnnxModule", "OnnxSignature", "Preprocessing", "load_onnx"]
