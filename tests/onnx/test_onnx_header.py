"""The head of ONNX files, against the onnx package's own reading of the whole file."""

import numpy as np
import onnx
import pytest
from hypothesis import given
from hypothesis import strategies as st
from onnx import TensorProto, helper, numpy_helper

from zmagic.guidance.networks.onnx_header import read_onnx_header


def write(path, *nodes, constants=(), listed=True, sides=8):
    """A network ``data [None, 3, sides, sides]`` to ``out [1, 3]``."""
    constants = [numpy_helper.from_array(np.float32(value), name) for name, value in constants]
    inputs = [helper.make_tensor_value_info("data", TensorProto.FLOAT, ["None", 3, sides, sides])]
    if listed:
        inputs += [helper.make_tensor_value_info(c.name, c.data_type, c.dims) for c in constants]
    output = helper.make_tensor_value_info("out", TensorProto.FLOAT, [1, 3])
    graph = helper.make_graph(list(nodes), "net", inputs, [output], constants)
    onnx.save(helper.make_model(graph), str(path))
    return path


def node(kind, *names, name=""):
    return helper.make_node(kind, list(names[:-1]), [names[-1]], name=name)


def test_agrees_with_the_whole_file(face_networks):
    files = sorted(face_networks.glob("*.onnx"))
    assert files
    for path in files:
        header = read_onnx_header(path)
        model = onnx.load(str(path))
        constants = {c.name for c in model.graph.initializer}
        for found, values in (
            (header.inputs, model.graph.input),
            (header.outputs, model.graph.output),
        ):
            assert found == {
                v.name: tuple(d.dim_value or None for d in v.type.tensor_type.shape.dim)
                for v in values
                if v.name not in constants
            }, path.name


@pytest.mark.parametrize("listed", [True, False])
def test_weights_are_no_inputs(tmp_path, listed):
    nodes = [node("Mul", "data", "weight", "x"), node("GlobalAveragePool", "x", "out")]
    header = read_onnx_header(
        write(
            tmp_path / "a.onnx", *nodes, constants=[("weight", np.ones((3, 8, 8)))], listed=listed
        )
    )
    assert header.inputs == {"data": (None, 3, 8, 8)} and header.input == (None, 3, 8, 8)
    assert header.outputs == {"out": (1, 3)} and header.output == (1, 3)
    assert str(header) == "[?, 3, 8, 8] to [1, 3]"


SCALES = [("m", 127.5), ("s", 1 / 128), ("w", np.ones((3, 3, 1, 1)))]


@pytest.mark.parametrize(
    ("nodes", "expected"),
    [
        # insightface's networks of MXNet origin
        ([("Sub", "data", "m", "a"), ("Mul", "a", "s", "b"), ("Conv", "b", "w", "out")], True),
        ([("Sub", "data", "m", "a"), ("Div", "a", "s", "b"), ("Conv", "b", "w", "out")], True),
        # and of PyTorch origin
        ([("Conv", "data", "w", "out")], False),
        # a PReLU in pieces behind the first convolution is no normalization
        ([("Conv", "data", "w", "a"), ("Sub", "a", "m", "b"), ("Mul", "b", "s", "out")], False),
        ([("Mul", "data", "s", "a"), ("Conv", "a", "w", "out")], False),
    ],
)
def test_normalizes(tmp_path, nodes, expected):
    path = write(tmp_path / "a.onnx", *(node(*each) for each in nodes), constants=SCALES)
    assert read_onnx_header(path).normalizes is expected


def test_a_batch_norm_called_bn_data_normalizes(tmp_path):
    path = write(
        tmp_path / "a.onnx",
        node("BatchNormalization", "data", "w", "w", "w", "w", "out", name="bn_data"),
        constants=[("w", np.ones(3))],
    )
    assert read_onnx_header(path).normalizes


@pytest.mark.parametrize("part", [0.0, 0.2, 0.9])
def test_a_file_that_ends_too_early_is_reported(tmp_path, face_networks, part):
    whole = (face_networks / "fr_age.onnx").read_bytes()
    path = tmp_path / "cut.onnx"
    path.write_bytes(whole[: int(part * len(whole))])
    with pytest.raises(ValueError, match="^cut.onnx is not a readable ONNX file"):
        read_onnx_header(path)


@given(content=st.binary(max_size=200))
def test_any_bytes_are_an_onnx_file_or_reported(tmp_path_factory, content):
    path = tmp_path_factory.mktemp("bytes") / "random.onnx"
    path.write_bytes(content)
    try:
        read_onnx_header(path)
    except ValueError as error:
        assert str(error).startswith("random.onnx is not a readable ONNX file")
