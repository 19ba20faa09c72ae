"""Operators of ONNX in their conventions: equal to onnxruntime, with the right gradient.

The files in tests/data/onnx are the smallest of networks that people could not use.
"""

from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import pytest
import torch
from onnx import TensorProto, helper, numpy_helper
from torch import Tensor

from zmagic.guidance.networks import load_onnx

FILES = sorted((Path(__file__).resolve().parents[1] / "data" / "onnx").glob("*.onnx"))
REFUSED = {"FusedConv_com_microsoft"}

onnxruntime.set_default_logger_severity(4)


def by_onnxruntime(path: Path, images: Tensor) -> list[Tensor]:
    session = onnxruntime.InferenceSession(str(path), providers=["CPUExecutionProvider"])
    (entry,) = session.get_inputs()
    return [
        torch.from_numpy(np.asarray(r)) for r in session.run(None, {entry.name: images.numpy()})
    ]


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.stem)
def test_files_that_people_have(path):
    if path.stem in REFUSED:
        with pytest.raises(ValueError, match="com.microsoft.FusedConv .*before onnxruntime's opt"):
            load_onnx(path)
        return
    module = load_onnx(path)
    image = torch.randn(1, module.channels, *module.size)
    fed = image.movedim(1, -1).contiguous() if module.signature.channels_last else image
    for result, expected in zip(module(image), by_onnxruntime(path, fed), strict=True):
        torch.testing.assert_close(result, expected, rtol=1e-4, atol=1e-4)
    assert_right_gradient(module, image)


def assert_right_gradient(module, image: Tensor) -> None:
    """The directional derivative is that of finite differences, in double precision."""
    module = module.double()
    image = image.double().requires_grad_()
    direction = torch.randn_like(image)
    results = module(image)
    cotangents = [torch.randn_like(result) for result in results]

    def inner(results) -> Tensor:
        return sum((r * c).sum() for r, c in zip(results, cotangents, strict=True))

    (gradient,) = torch.autograd.grad(inner(results), image)
    step = 1e-6
    with torch.no_grad():
        ahead, behind = (inner(module(image + s * direction)) for s in (step, -step))
    expected = (ahead - behind) / (2 * step)
    torch.testing.assert_close((gradient * direction).sum(), expected, rtol=1e-5, atol=1e-6)


def floats(*shape: int) -> np.ndarray:
    return np.random.default_rng(0).standard_normal(shape).astype("float32")


def ints(*values: int) -> np.ndarray:
    return np.array(values, dtype="int64")


def scales(*values: float) -> np.ndarray:
    return np.array(values, dtype="float32")


KERNEL = {"w": floats(4, 6, 3, 3)}
BACK = {"w": floats(6, 4, 3, 3), "b": floats(4)}
BY_SCALES, BY_SIZES = ["x", "", "s"], ["x", "", "", "z"]


def windows():
    for auto in ("SAME_UPPER", "SAME_LOWER", "VALID"):
        for stride, side in ((1, 3), (2, 3), (2, 2), (3, 5)):
            common = {"auto_pad": auto, "strides": [stride] * 2, "kernel_shape": [side] * 2}
            for version in (11, 22):
                yield "Conv", version, {"w": floats(4, 6, side, side)}, None, common
                yield "MaxPool", version, {}, None, common
                for include in (0, 1):
                    yield "AveragePool", version, {}, None, {**common, "count_include_pad": include}
    for pads in ([0, 0, 1, 1], [1, 1, 1, 1], [1, 0, 0, 1]):
        for ceil in (0, 1):
            common = {"pads": pads, "ceil_mode": ceil, "kernel_shape": [3, 3], "strides": [2, 2]}
            yield "MaxPool", 12, {}, None, common
            for include in (0, 1):
                yield "AveragePool", 13, {}, None, {**common, "count_include_pad": include}
    dilated = {"kernel_shape": [3, 2], "dilations": [2, 3], "pads": [1, 1, 1, 1]}
    yield "AveragePool", 19, {}, None, dilated
    yield "Conv", 13, KERNEL, None, {"auto_pad": "SAME_LOWER", "dilations": [2, 3]}


def transposed():
    for attributes in (
        {"output_shape": [26, 20]},
        {"output_shape": [25, 20], "auto_pad": "SAME_UPPER"},
        {"output_shape": [30, 24]},
        {"output_shape": [28, 22], "output_padding": [1, 1]},
        {"auto_pad": "SAME_UPPER"},
        {"auto_pad": "SAME_LOWER"},
        {"auto_pad": "VALID"},
        {"pads": [0, 1, 1, 0]},
        {"pads": [1, 1, 1, 1], "output_padding": [1, 1]},
    ):
        yield "ConvTranspose", 13, BACK, None, {"strides": [2, 2], **attributes}


def resized():
    places = ("half_pixel", "asymmetric", "align_corners", "pytorch_half_pixel")
    for place in (*places, "half_pixel_symmetric"):
        version = 13 if place in places else 19
        for mode in ("linear", "cubic"):
            common = {"mode": mode, "coordinate_transformation_mode": place}
            for factors in ((2, 2), (1.7, 1.3), (0.6, 3)):
                yield "Resize", version, {"s": scales(1, 1, *factors)}, BY_SCALES, common
            yield "Resize", version, {"z": ints(1, 6, 7, 1)}, BY_SIZES, common
        if place in places:
            for nearest in ("round_prefer_floor", "round_prefer_ceil", "floor", "ceil"):
                common = {"coordinate_transformation_mode": place, "nearest_mode": nearest}
                for factors in ((2, 2), (1.7, 0.5)):
                    yield "Resize", version, {"s": scales(1, 1, *factors)}, BY_SCALES, common
    for mode in ("linear", "cubic"):
        for outside in (0, 1):
            common = {"mode": mode, "exclude_outside": outside}
            yield "Resize", 13, {"s": scales(1, 1, 1.7, 0.6)}, BY_SCALES, common
            for factors in ((0.5, 0.3), (2, 0.4)):
                smooth = {**common, "antialias": 1}
                yield "Resize", 18, {"s": scales(1, 1, *factors)}, BY_SCALES, smooth
        yield "Resize", 18, {"s": scales(0.6, 1.7)}, BY_SCALES, {"mode": mode, "axes": [3, 2]}
        for policy in ("not_larger", "not_smaller"):
            kept = {"mode": mode, "axes": [2, 3], "keep_aspect_ratio_policy": policy}
            yield "Resize", 18, {"z": ints(19, 25)}, BY_SIZES, kept
    own = {"mode": "cubic", "cubic_coeff_a": -0.5}
    yield "Resize", 13, {"s": scales(1, 1, 2, 2)}, BY_SCALES, own
    yield "Resize", 13, {"s": scales(1, 2, 1, 1)}, BY_SCALES, {}
    for factors in ((2, 2), (1.7, 1.3), (0.5, 0.6)):
        for mode in ("nearest", "linear"):
            yield "Resize", 10, {"s": scales(1, 1, *factors)}, None, {"mode": mode}
    for mode in ("nearest", "linear"):
        yield "Upsample", 9, {"s": scales(1, 1, 1.7, 2)}, None, {"mode": mode}
        yield "Upsample", 7, {}, None, {"mode": mode, "scales": [1.0, 1.0, 1.7, 2.0]}


def padded():
    for mode in ("constant", "reflect", "edge", "wrap"):
        for pads in (
            (0, 0, 1, 2, 0, 0, 3, 1),
            (0, 1, 0, 0, 0, 0, 0, 2),
            (0, 0, -1, 0, 0, 0, 2, -2),
        ):
            yield "Pad", 19, {"p": ints(*pads)}, None, {"mode": mode}
        some = {"p": ints(1, 2, 3, 0), "a": ints(3, -2)}
        yield "Pad", 19, some, ["x", "p", "", "a"], {"mode": mode}
    yield "Pad", 18, {"p": ints(1, 3), "v": np.float32(0.5), "a": ints(2)}, None, {}
    yield "Pad", 10, {}, None, {"pads": [0, 0, 1, 2, 0, 0, 3, 1], "value": 0.5}


def others():
    for inputs in (["x", "low"], ["x", "", "high"], ["x", "low", ""], ["x", "", ""]):
        limits = {"low": np.float32(-0.3), "high": np.float32(0.4)}
        used = {name: limits[name] for name in inputs if name in limits}
        for version in (11, 13, 17, 24):
            yield "Clip", version, used, inputs, {}
    for axis in (1, 2, -1):
        for attributes in ({}, {"reverse": 1}, {"exclusive": 1}, {"exclusive": 1, "reverse": 1}):
            yield "CumSum", 14, {"a": np.array(axis)}, None, attributes
    for axis, count in ((1, 4), (2, 5), (3, 4), (-1, 3)):
        yield "Split", 18, {}, None, {"axis": axis, "num_outputs": count}
    yield "Split", 13, {"z": ints(1, 2, 3)}, None, {"axis": 1}
    for p in (1, 2):
        yield "LpNormalization", 11, {}, None, {"p": p, "axis": 1}
    for kind in ("L1", "L2", "LogSumExp", "Max", "Mean", "Min", "Prod", "Sum", "SumSquare"):
        for keep in (0, 1):
            yield f"Reduce{kind}", 18, {"a": ints(2, -1)}, None, {"keepdims": keep}
            yield f"Reduce{kind}", 11, {}, None, {"keepdims": keep, "axes": [2, -1]}
        yield f"Reduce{kind}", 18, {}, None, {"noop_with_empty_axes": 1}
        yield f"Reduce{kind}", 18, {"a": ints()}, None, {}
    yield "Slice", 9, {}, None, {"starts": [1, -5], "ends": [100, -1], "axes": [2, 3]}
    yield "Slice", 13, {"s": ints(-1), "e": ints(-100), "a": ints(2), "t": ints(-2)}, None, {}
    for version in (20, 24):
        for approximate in ("none", "tanh"):
            yield "Gelu", version, {}, None, {"approximate": approximate}
    for kind, version in (("HardSwish", 14), ("HardSwish", 22), ("Mish", 18), ("Swish", 24)):
        yield kind, version, {}, None, {}
    yield "Swish", 24, {}, None, {"alpha": 0.5}
    yield "HardSigmoid", 13, {}, None, {"alpha": 0.3, "beta": 0.4}
    weights = {"s": floats(6), "b": floats(6)}
    yield "InstanceNormalization", 13, weights, None, {"epsilon": 1e-3}
    yield "GroupNormalization", 21, weights, None, {"num_groups": 3}
    few = {"s": floats(3), "b": floats(3)}
    yield "GroupNormalization", 18, few, None, {"num_groups": 3}
    yield "LayerNormalization", 17, {"s": floats(6, 13, 10)}, None, {"axis": 1}
    yield "RMSNormalization", 23, {"s": floats(10)}, None, {}
    for size in (3, 4):
        yield "LRN", 13, {}, None, {"size": size, "alpha": 0.1}
    yield "GlobalMaxPool", 13, {}, None, {}
    for axis in (1, -1):
        for version in (11, 13):
            yield "Softmax", version, {}, None, {"axis": axis}


def blocks():
    for attributes in ({}, {"mode": "DCR"}, {"mode": "CRD"}):
        yield "DepthToSpace", 13, {}, None, {"blocksize": 2, **attributes}
    yield "SpaceToDepth", 13, {}, None, {"blocksize": 2}


def write(path: Path, kind, version, constants, inputs, attributes, shape) -> Path:
    count = {"Split": attributes.get("num_outputs", 3)}.get(kind, 1)
    outputs = [f"y{i}" for i in range(count)]
    node = helper.make_node(kind, inputs or ["x", *constants], outputs, **attributes)
    graph = helper.make_graph(
        [node],
        "net",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, list(shape))],
        [onnx.ValueInfoProto(name=name) for name in outputs],
        [numpy_helper.from_array(np.asarray(value), name) for name, value in constants.items()],
    )
    versions = [helper.make_opsetid("", version)]
    onnx.save(helper.make_model(graph, opset_imports=versions, ir_version=10), path)
    return path


@pytest.mark.parametrize(
    ("cases", "shape"),
    [
        (windows, (1, 6, 13, 10)),
        (transposed, (1, 6, 13, 10)),
        (resized, (1, 6, 13, 10)),
        (padded, (1, 6, 13, 10)),
        (others, (1, 6, 13, 10)),
        (blocks, (1, 12, 4, 6)),
    ],
    ids=lambda value: getattr(value, "__name__", ""),
)
def test_operators(tmp_path, cases, shape):
    wrong, ran = [], 0
    for case in cases():
        path = write(tmp_path / "net.onnx", *case, shape)
        image = torch.randn(shape)
        try:
            expected = by_onnxruntime(path, image)
        except Exception:  # noqa: S112 - of its own kinds: there are conventions that it has not
            continue
        ran += 1
        try:
            results = load_onnx(path)(image)
            for result, wanted in zip(results, expected, strict=True):
                wanted = wanted if wanted.ndim else wanted[None]  # one number for one picture
                torch.testing.assert_close(result, wanted, rtol=1e-4, atol=1e-4)
        except (AssertionError, ValueError) as error:
            wrong.append(f"{case[0]} {case[1]} {case[4]}: {error}")
    assert not wrong, "\n".join(wrong)
    assert ran > 0.8 * len(list(cases()))


@pytest.mark.parametrize(
    ("kind", "version", "constants", "inputs", "attributes"),
    [
        ("AveragePool", 19, {}, None, {"kernel_shape": [3, 2], "auto_pad": "SAME_LOWER"}),
        ("ConvTranspose", 13, BACK, None, {"strides": [2, 2], "output_shape": [25, 20]}),
        ("Resize", 18, {"s": scales(1, 1, 0.4, 2)}, BY_SCALES, {"mode": "cubic", "antialias": 1}),
        ("Resize", 13, {"s": scales(1, 1, 1.7, 2)}, BY_SCALES, {"nearest_mode": "ceil"}),
        ("Pad", 19, {"p": ints(0, 0, 1, 2, 0, 0, -3, 1)}, None, {"mode": "wrap"}),
        ("ReduceL2", 18, {"a": ints(2, -1)}, None, {}),
        ("LpNormalization", 13, {}, None, {"p": 2, "axis": 1}),
        ("CumSum", 14, {"a": np.array(2)}, None, {"exclusive": 1}),
        ("Swish", 24, {}, None, {"alpha": 0.5}),
        ("RMSNormalization", 23, {"s": floats(10)}, None, {}),
    ],
)
def test_gradients(tmp_path, kind, version, constants, inputs, attributes):
    shape = (1, 6, 13, 10)
    path = write(tmp_path / "net.onnx", kind, version, constants, inputs, attributes, shape)
    assert_right_gradient(load_onnx(path), torch.randn(shape))


def test_windows_of_free_size_follow_the_picture(tmp_path):
    """What ``auto_pad`` puts around depends on the size, which is known when a picture comes."""
    attributes = {"auto_pad": "SAME_UPPER", "strides": [2, 2], "kernel_shape": [3, 3]}
    kernel = {"w": floats(4, 3, 3, 3)}
    shape = ("N", 3, "H", "W")
    path = write(tmp_path / "net.onnx", "Conv", 13, kernel, None, attributes, shape)
    module = load_onnx(path)
    for size in ((7, 8), (32, 31)):
        image = torch.randn(2, 3, *size)
        (expected,) = by_onnxruntime(path, image)
        torch.testing.assert_close(module(image)[0], expected, rtol=1e-4, atol=1e-4)
