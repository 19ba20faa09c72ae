"""Damaged and senseless ONNX files: each is what onnxruntime makes of it, or one sentence."""

import random
import time
from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import pytest
import torch
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st
from onnx import helper, numpy_helper

from zmagic.guidance.networks import load_onnx
from zmagic.guidance.networks.onnx_header import read_onnx_header

FILES = sorted((Path(__file__).resolve().parents[1] / "data" / "onnx").glob("*.onnx"))
OPERATORS = sorted({s.name for s in onnx.defs.get_all_schemas() if not s.domain})
NUMBERS = (0, 1, -1, 2, 3, 4, 7, -2, 100, 2**31, 2**62, -(2**62))
VALUES = (0, 3, 0.5, float("nan"), "abc", "SAME_UPPER", b"\xff\xfe", [1, 2], [0], [-1, 9, 3, 2**40])
VERSIONS = (-1, 0, 1, 5, 9, 11, 13, 18, 21, 24, 99)

# Files are small: what takes longer does not end.
SECONDS = 20.0

QUICK = settings(
    max_examples=60,
    deadline=None,
    derandomize=True,
    suppress_health_check=[HealthCheck.function_scoped_fixture],
)

onnxruntime.set_default_logger_severity(4)


def names(graph) -> list[str]:
    made = [name for node in graph.node for name in (*node.input, *node.output)]
    return [*made, *(tensor.name for tensor in graph.initializer), "", "x", "nothing"]


def other_operator(draw: random.Random, model) -> None:
    draw.choice(list(model.graph.node)).op_type = draw.choice(OPERATORS)


def other_domain(draw: random.Random, model) -> None:
    draw.choice(list(model.graph.node)).domain = draw.choice(("ai.onnx", "com.microsoft", "zmagic"))


def other_input(draw: random.Random, model) -> None:
    """Give a node another input, which may close a circle."""
    node = draw.choice(list(model.graph.node))
    name = draw.choice(names(model.graph))
    if node.input and draw.random() < 0.7:
        node.input[draw.randrange(len(node.input))] = name
    else:
        node.input.append(name)


def other_output(draw: random.Random, model) -> None:
    node = draw.choice(list(model.graph.node))
    node.output[draw.randrange(len(node.output))] = draw.choice(names(model.graph))


def other_attribute(draw: random.Random, model) -> None:
    node = draw.choice(list(model.graph.node))
    schema = onnx.defs.get_schema(node.op_type) if node.op_type in OPERATORS else None
    known = sorted(schema.attributes) if schema else ["unknown"]
    kept = [a for a in node.attribute if draw.random() < 0.7]
    del node.attribute[:]
    node.attribute.extend(kept)
    if known:
        node.attribute.append(helper.make_attribute(draw.choice(known), draw.choice(VALUES)))


def other_constant(draw: random.Random, model) -> None:
    if model.graph.initializer:
        tensor = draw.choice(list(model.graph.initializer))
        values = [draw.choice(NUMBERS) for _ in range(draw.randrange(5))]
        tensor.CopyFrom(numpy_helper.from_array(np.array(values, dtype="int64"), tensor.name))


def broken_constant(draw: random.Random, model) -> None:
    if model.graph.initializer:
        tensor = draw.choice(list(model.graph.initializer))
        if draw.random() < 0.3:
            tensor.data_type = draw.choice((0, 2, 7, 8, 9, 10, 11, 14, 16, 17, 99))
        elif draw.random() < 0.5:
            tensor.dims.append(draw.choice(NUMBERS))
        else:
            tensor.raw_data = tensor.raw_data[: draw.randrange(len(tensor.raw_data) + 1)]


def other_shape(draw: random.Random, model) -> None:
    sides = model.graph.input[0].type.tensor_type.shape.dim
    if draw.random() < 0.3:
        del sides[draw.randrange(4)]
    else:
        draw.choice(list(sides)).dim_value = draw.choice(NUMBERS)


def other_version(draw: random.Random, model) -> None:
    model.opset_import[0].version = draw.choice(VERSIONS)


def one_more(draw: random.Random, model) -> None:
    inputs = [draw.choice(names(model.graph)) for _ in range(draw.randrange(1, 4))]
    extra = helper.make_node(draw.choice(OPERATORS), inputs, ["extra"])
    node = draw.choice(list(model.graph.node))
    model.graph.node.insert(0, extra)
    if node.input:
        node.input[0] = "extra"


CHANGES = (
    other_operator,
    other_domain,
    other_input,
    other_output,
    other_attribute,
    other_constant,
    broken_constant,
    other_shape,
    other_version,
    one_more,
)


def judge(path: Path) -> None:
    """Equal to onnxruntime within 1 % of the span of its values, or refused in one sentence."""
    started = time.process_time()
    module = None
    for read in (read_onnx_header, load_onnx):
        try:
            module = read(path)
        except ValueError as error:
            assert str(error).startswith(path.name) and len(str(error)) < 1000
            str(error).encode()
            module = None
    assert time.process_time() - started < SECONDS
    if module is not None:
        agrees(path, module)


def agrees(path: Path, module: torch.nn.Module) -> None:
    height, width = module.size or (32, 32)
    image = torch.randn(module.input_shape[0] or 1, module.channels or 3, height, width)
    last = module.signature.channels_last
    try:
        session = onnxruntime.InferenceSession(
            path.read_bytes(), providers=["CPUExecutionProvider"], enable_fallback=0
        )
        fed = (image.movedim(1, -1) if last else image).contiguous().numpy()
        expected = session.run(list(module.outputs), {module.input_name: fed})
    except Exception:  # of its own kinds: it does not take the file, which was said in the log
        return
    for result, wanted in zip(module(image), expected, strict=True):
        wanted = module.signature.as_batch(torch.from_numpy(np.asarray(wanted)), (height, width))
        assert result.shape == wanted.shape
        result, wanted = result.double(), wanted.double()
        known = wanted.isfinite()
        if known.any():
            span = wanted[known].max() - wanted[known].min()
            allowed = 0.01 * span + 1e-4 * wanted[known].abs().max()
            assert (result[known] - wanted[known]).abs().max() <= allowed


@QUICK
@given(seed=st.integers(0, 2**32), count=st.integers(1, 3))
@example(seed=7, count=1)
def test_changed_graphs(tmp_path, seed, count):
    draw = random.Random(seed)
    model = onnx.load(draw.choice(FILES))
    for _ in range(count):
        draw.choice(CHANGES)(draw, model)
    path = tmp_path / "net.onnx"
    path.write_bytes(model.SerializeToString())
    judge(path)


@QUICK
@given(seed=st.integers(0, 2**32), count=st.integers(1, 8))
def test_changed_bytes(tmp_path, seed, count):
    draw = random.Random(seed)
    content = bytearray(draw.choice(FILES).read_bytes())
    for _ in range(count):
        # Near the ends, where the names and attributes are that stand around the weights.
        place = draw.choice((draw.randrange(300), -1 - draw.randrange(400))) % len(content)
        change = draw.choice(("set", "drop", "insert", "cut"))
        if change == "set":
            content[place] = draw.randrange(256)
        elif change == "drop":
            del content[place : place + draw.randrange(1, 5)]
        elif change == "insert":
            content[place:place] = draw.randbytes(draw.randrange(1, 5))
        elif draw.random() < 0.2:
            del content[place:]
        content = content or bytearray(b"\x08")
    path = tmp_path / "net.onnx"
    path.write_bytes(bytes(content))
    judge(path)


@settings(QUICK, max_examples=40)
@given(content=st.binary(max_size=200))
def test_any_bytes(tmp_path, content):
    path = tmp_path / "net.onnx"
    path.write_bytes(content)
    judge(path)


@pytest.mark.parametrize("factor", [2.0**31, 2.0**62, 1e30, float("nan"), 0.0, -2.0])
def test_a_picture_is_not_enlarged_without_end(tmp_path, factor):
    """Factors that are found when a picture comes only."""
    model = onnx.load(next(file for file in FILES if file.stem == "Resize_cubic_asymmetric_x2"))
    for tensor in model.graph.initializer:
        if tensor.name == "sc":
            values = np.array([1.0, 1.0, factor, 2.0], dtype="float32")
            tensor.CopyFrom(numpy_helper.from_array(values, "sc"))
    path = tmp_path / "net.onnx"
    path.write_bytes(model.SerializeToString())
    judge(path)


@pytest.mark.parametrize("change", CHANGES, ids=lambda change: change.__name__)
def test_each_change(tmp_path, change):
    """Each kind, whatever hypothesis chooses above."""
    for seed, file in enumerate(FILES[::6]):
        model = onnx.load(file)
        change(random.Random(seed), model)
        path = tmp_path / "net.onnx"
        path.write_bytes(model.SerializeToString())
        judge(path)
