"""Face networks with random weights in the files and layouts of insightface's published packs.

Their names, inputs, outputs and operators are those of buffalo_l, so that whatever reads a real
pack reads these; what they compute means nothing.
"""

import math
from pathlib import Path

import numpy as np
import onnx
import torch
from onnx import TensorProto, helper, numpy_helper

from zmagic.guidance.networks.iresnet import LAYERS, IResNet

LANDMARK_SIZE = 192


def write_recognizer_pack(folder: Path, name: str = "buffalo_l", depth: int = 50) -> Path:
    """Write recognizer and landmark network to ``insightface/models/<name>`` below ``folder``.

    Args:
        depth: of the IResNet in w600k_r50.onnx: 50 as in the pack (175 MB), or 18 (97 MB), which
            is exported faster and answers the same.

    Returns:
        The folder of the pack.
    """
    pack = folder / "insightface" / "models" / name
    pack.mkdir(parents=True, exist_ok=True)
    write_recognizer(pack / "w600k_r50.onnx", random_iresnet(depth))
    write_landmark_network(pack / "2d106det.onnx")
    return pack


def random_iresnet(depth: int = 50, seed: int = 0) -> IResNet:
    """An IResNet as trained, with weights that keep signals and gradients of moderate size."""
    generator = torch.Generator().manual_seed(seed)
    network = IResNet(LAYERS[depth]).eval().requires_grad_(False)
    for name, parameter in network.named_parameters():
        if parameter.ndim > 1:
            fan_in = parameter[0].numel()
            gain = 0.5 if "conv2" in name else 1.4  # so that residuals do not pile up
            parameter.normal_(0.0, gain / math.sqrt(fan_in), generator=generator)
        elif name.endswith("bias"):
            parameter.normal_(0.0, 0.05, generator=generator)
        elif "prelu" in name:
            parameter.uniform_(0.1, 0.4, generator=generator)
        else:
            parameter.uniform_(0.8, 1.2, generator=generator)
    for name, buffer in network.named_buffers():
        if name.endswith("running_mean"):
            buffer.normal_(0.0, 0.05, generator=generator)
        elif name.endswith("running_var"):
            buffer.uniform_(0.8, 1.2, generator=generator)
    # Without what all pictures have in common two of them point into different directions.
    pictures = torch.randn(8, 3, 7, 7, generator=generator)
    crops = torch.nn.functional.interpolate(pictures, size=(112, 112), mode="bicubic")
    network.features.running_mean += network(crops).mean(0)
    return network


def write_recognizer(path: Path, network: IResNet) -> None:
    """Export as insightface does it: free batch, batch norms folded into convolutions."""
    torch.onnx.export(
        network,
        torch.zeros(1, 3, network.side, network.side),
        str(path),
        input_names=["input.1"],
        output_names=["output"],
        dynamic_axes={"input.1": {0: "None"}},
        opset_version=11,
        dynamo=False,
    )


def write_landmark_network(path: Path, seed: int = 0) -> None:
    """A small network in the layout of 2d106det.onnx, an export of MXNet.

    Input ``data [None, 3, 192, 192]`` from 0 to 255, which it normalizes itself, in RGB; output
    ``fc1 [1, 212]``, x and y of 106 points from -1 to 1 across the crop: roughly a face.
    """
    random = np.random.default_rng(seed)
    weights = {
        "minus": np.float32(127.5),
        "multiply": np.float32(1.0 / 128.0),
        "conv_1": random.normal(0.0, 0.3, (8, 3, 4, 4)),
        "conv_2": random.normal(0.0, 0.15, (16, 8, 4, 4)),
        "conv_3": random.normal(0.0, 0.1, (32, 16, 4, 4)),
        "fc1_weight": random.normal(0.0, 0.01, (212, 32 * 3 * 3)),
        "fc1_bias": _face_points().flatten(),
    }
    nodes = [
        helper.make_node("Sub", ["data", "minus"], ["centered"], name="_minusscalar0"),
        helper.make_node("Mul", ["centered", "multiply"], ["x0"], name="_mulscalar0"),
    ]
    for i in (1, 2, 3):
        nodes += [
            helper.make_node(
                "Conv",
                [f"x{i - 1}", f"conv_{i}"],
                [f"conv{i}"],
                name=f"conv_{i}",
                kernel_shape=[4, 4],
                strides=[4, 4],
            ),
            helper.make_node("Relu", [f"conv{i}"], [f"x{i}"], name=f"relu_{i}"),
        ]
    nodes += [
        helper.make_node("Flatten", ["x3"], ["flat"], name="flatten0"),
        helper.make_node("Gemm", ["flat", "fc1_weight", "fc1_bias"], ["fc1"], name="fc1", transB=1),
    ]
    frame = ["None", 3, LANDMARK_SIZE, LANDMARK_SIZE]
    graph = helper.make_graph(
        nodes,
        "mxnet_converted_model",
        [
            helper.make_tensor_value_info("data", TensorProto.FLOAT, frame),
            # Exports of that time list the weights as inputs too.
            *(
                helper.make_tensor_value_info(name, TensorProto.FLOAT, np.shape(value))
                for name, value in weights.items()
            ),
        ],
        [helper.make_tensor_value_info("fc1", TensorProto.FLOAT, [1, 212])],
        [
            numpy_helper.from_array(np.asarray(value, np.float32), name)
            for name, value in weights.items()
        ],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 11)])
    model.ir_version = 6
    onnx.save(model, str(path))


def _face_points() -> np.ndarray:
    """``[106, 2]`` from -1 to 1: a contour, two eyes and brows, a nose and a mouth in order."""

    def ellipse(count: int, x: float, y: float, wide: float, high: float) -> np.ndarray:
        angles = np.linspace(0.0, 2.0 * np.pi, count, endpoint=False)
        return np.stack((x + wide * np.cos(angles), y + high * np.sin(angles)), axis=1)

    angles = np.linspace(0.0, np.pi, 33)
    contour = np.stack((0.55 * np.cos(angles), -0.1 + 0.7 * np.sin(angles)), axis=1)
    return np.concatenate(
        (
            contour,
            ellipse(10, -0.25, -0.15, 0.08, 0.03),
            ellipse(9, -0.27, -0.32, 0.14, 0.03),
            ellipse(20, 0.0, 0.35, 0.2, 0.08),
            ellipse(15, 0.0, 0.08, 0.1, 0.15),
            ellipse(10, 0.25, -0.15, 0.08, 0.03),
            ellipse(9, 0.27, -0.32, 0.14, 0.03),
        )
    )
