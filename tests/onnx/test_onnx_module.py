"""ONNX files as differentiable modules, against onnxruntime."""

import numpy as np
import onnx
import pytest
import torch
from onnx import TensorProto, helper, numpy_helper, parser

from zmagic.guidance.networks import load_onnx, onnx_graph

from ..onnx_reference import by_onnxruntime


def write(folder, text: str, weights: dict | None = None, **options):
    """A model in ONNX's text format ``inputs => outputs { operators }`` as a file."""
    header = f'<ir_version: 8, opset_import: ["" : {options.pop("version", 13)}]> net '
    model = parser.parse_model(header + text)
    for name, values in (weights or {}).items():
        model.graph.initializer.append(numpy_helper.from_array(np.asarray(values), name))
    path = folder / "net.onnx"
    onnx.save_model(model, str(path), **options)
    return path


def agrees(path, shape: tuple[int, ...], tolerance: float = 1e-5) -> None:
    """The module does what onnxruntime does, and has a gradient."""
    images = torch.rand(shape, requires_grad=True)
    results = load_onnx(path)(images)
    for result, expected in zip(results, by_onnxruntime(path, images.detach()), strict=True):
        torch.testing.assert_close(result, expected, rtol=tolerance, atol=tolerance)
    sum(result.square().sum() for result in results).backward()
    assert images.grad.abs().max() > 0.0


# ---------------------------------------------------------------- batches, sizes, channels

POOLED = "{{ p = GlobalAveragePool(x) s = Constant <value = int64[2] {{{count}, 3}}> () {rest} }}"


def test_a_batch_of_one_in_the_file_is_no_obstacle(tmp_path):
    body = POOLED.format(count=1, rest="y = Reshape(p, s)")
    module = load_onnx(write(tmp_path, f"(float[1,3,8,8] x) => (float[1,3] y) {body}"))
    images = torch.rand(4, 3, 8, 8)
    assert not module.batched
    torch.testing.assert_close(module(images)[0], images.mean((2, 3)))


def test_images_that_would_influence_each_other_are_judged_one_by_one(tmp_path):
    text = (
        "(float[N,3,8,8] x) => (float[N,3,8,8] y) { m = ReduceMean <axes = [0]> (x) y = Sub(x, m) }"
    )
    path = write(tmp_path, text.replace("y = Sub(x, m)", "c = Mul(m, m) y = Add(x, c)"))
    module = load_onnx(path)
    images = torch.rand(3, 3, 8, 8)
    assert not module.batched
    torch.testing.assert_close(module(images)[0], by_onnxruntime(path, images)[0])


@pytest.mark.parametrize("batch", ["N", "0", "-1", "?"])
def test_every_way_to_write_a_free_batch(tmp_path, batch):
    path = write(tmp_path, "(float[1,3,8,8] x) => (float[1,3,8,8] y) { y = Relu(x) }")
    model = onnx.load(path)
    size = model.graph.input[0].type.tensor_type.shape.dim[0]
    size.Clear()
    if batch in ("0", "-1"):
        size.dim_value = int(batch)
    elif batch == "N":
        size.dim_param = batch
    onnx.save(model, path)
    module = load_onnx(path)
    assert module.input_shape == (None, 3, 8, 8) and module.batched
    assert module(torch.rand(3, 3, 8, 8))[0].shape == (3, 3, 8, 8)


def test_free_height_and_width(tmp_path):
    text = "(float[N,3,H,W] x) => (float[N,4,h,w] y) { y = Conv <pads = [1,1,1,1]> (x, w) }"
    path = write(tmp_path, text, {"w": np.random.rand(4, 3, 3, 3).astype("float32")})
    assert load_onnx(path).size is None
    agrees(path, (2, 3, 20, 30))


def test_a_network_of_free_size_that_wants_a_certain_one_can_be_loaded(tmp_path):
    text = "(float[N,3,H,W] x) => (float[N,3,H,W] y) { y = Add(x, b) }"
    path = write(tmp_path, text, {"b": np.random.rand(1, 3, 24, 24).astype("float32")})
    assert not load_onnx(path).batched  # which is not known, and one by one is always right
    agrees(path, (2, 3, 24, 24))


def test_channels_that_come_last(tmp_path):
    text = """(float[1,8,10,3] x) => (float[1,8,10,3] y, float[1,3] z) {
        y = Mul(x, f)
        z = ReduceMean <axes = [1, 2], keepdims = 0> (y)
    }"""
    factors = np.array([1.0, 2.0, 3.0], dtype="float32")
    module = load_onnx(write(tmp_path, text, {"f": factors}))
    assert module.channels == 3 and module.size == (8, 10)
    images = torch.rand(2, 3, 8, 10)
    maps, means = module(images)
    torch.testing.assert_close(maps, images * torch.from_numpy(factors).view(1, 3, 1, 1))
    torch.testing.assert_close(means, maps.mean((2, 3)))


# ---------------------------------------------------------------- outputs


def test_outputs_inside_the_network(face_networks, tmp_path):
    path = face_networks / "fr_landmark.onnx"
    model = onnx.load(path)
    inner = model.graph.node[20].output[0]
    model.graph.output.append(onnx.ValueInfoProto(name=inner))
    onnx.save(model, tmp_path / "more.onnx")
    image = torch.rand(1, 1, 64, 64)
    output, expected = by_onnxruntime(tmp_path / "more.onnx", image)
    module = load_onnx(path, [inner, "output"])
    assert module.outputs == (inner, "output")
    torch.testing.assert_close(module(image), (expected, output), rtol=1e-4, atol=1e-5)
    assert len(list(load_onnx(path, [inner]).graph.modules())) < len(list(module.graph.modules()))


def test_parts_of_one_operator_are_outputs_of_their_own(tmp_path):
    text = """(float[N,6,4,4] x) => (float[N,2,4,4] c, float[N,2,4,4] a) {
        a, b, c = Split <axis = 1> (x)
    }"""
    path = write(tmp_path, text)
    images = torch.rand(2, 6, 4, 4)
    torch.testing.assert_close(load_onnx(path)(images), (images[:, 4:], images[:, :2]))
    torch.testing.assert_close(load_onnx(path, ["b"])(images), (images[:, 2:4],))


def test_an_output_that_does_not_exist(face_networks):
    message = "fr_landmark.onnx has no tensor named eyes, ears; its outputs are output"
    with pytest.raises(ValueError, match=message):
        load_onnx(face_networks / "fr_landmark.onnx", ["eyes", "ears"])


# ---------------------------------------------------------------- what exporters write

WEIGHTS = {
    "w": np.random.default_rng(0).standard_normal((4, 3, 3, 3)).astype("float32"),
    "scale": np.random.default_rng(1).random(8).astype("float32"),
    "axes": np.array([2, 3]),
    "from": np.array([1, -1]),
    "to": np.array([100, -8]),
    "steps": np.array([2, -3]),
    "sizes": np.array([1, 3, 16, 16]),
    "shape": np.array([1, 192]),
    "pads": np.array([0, 0, 1, 1, 0, 0, 1, 1]),
    "two": np.array([1.0, 1.0, 2.0, 2.0], dtype="float32"),
}


@pytest.mark.parametrize(
    ("version", "body"),
    [
        (9, "y = Upsample <mode = 'nearest'> (x, two)"),
        (13, "v = Identity(w) y = Conv(x, v)"),
        (13, "v = Constant <value_floats = [1.0, 2.0, 3.0, 4.0, 5.0, 6.0, 7.0, 8.0]> () "
             "y = Mul(x, v)"),
        (14, "y = Reshape <allowzero = 1> (x, shape)"),
        (17, "s = Shape(x) n = Gather(s, zero) l = Concat <axis = 0> (one, n, eight, eight, three) "
             "r = Reshape(x, l) q = LayerNormalization(r, three_ones) y = ReduceMean(q)"),
        (18, "y = ReduceMean <keepdims = 0> (x, axes)"),
        (17, "y = Slice(x, from, to, axes, steps)"),
        (18, "a, b = Split <axis = 2, num_outputs = 2> (x) y = Mul(a, b)"),
        (18, "y = GroupNormalization <num_groups = 3> (x, three_ones, three_ones)"),
        (19, "y = Pad <mode = 'reflect'> (x, pads)"),
        (19, "y = Resize <mode = 'linear'> (x, , , sizes)"),
        (20, "y = AveragePool <kernel_shape = [2, 2]> (x)"),
        (20, "y = Gelu(x)"),
        (21, "i = Identity(x) y = Transpose <perm = [0, 1, 3, 2]> (i)"),
        (22, "y = Mish(x)"),
    ],
)  # fmt: skip
def test_operators_of_every_age(tmp_path, version, body):
    constants = {
        **WEIGHTS,
        "zero": np.array([0]),
        "one": np.array([1]),
        "three": np.array([3]),
        "eight": np.array([8]),
        "three_ones": np.array([1.0, 2.0, 3.0], dtype="float32"),
    }
    used = {name: value for name, value in constants.items() if f"{name}" in body}
    text = f"(float[1,3,8,8] x) => (float[] y) {{ {body} }}".replace("'", '"')
    path = write(tmp_path, text, used, version=version)
    model = onnx.load(path)
    model.graph.output[0].type.tensor_type.ClearField("shape")
    onnx.save(model, path)
    agrees(path, (1, 3, 8, 8))


def test_functions_of_the_file_itself(tmp_path):
    text = """<ir_version: 8, opset_import: ["" : 17, "own" : 1]>
    net (float[N,3,8,8] x) => (float[N,3,8,8] y) { y = own.twice(x) }
    <domain: "own", opset_import: ["" : 17]>
    twice (a) => (b) { c = own.add(a, a) b = Relu(c) }
    <domain: "own", opset_import: ["" : 17]>
    add (a, b) => (c) { c = Add(a, b) }
    """
    text = text.replace('["" : 17]>\n    twice', '["" : 17, "own" : 1]>\n    twice')
    path = tmp_path / "net.onnx"
    onnx.save(parser.parse_model(text), path)
    agrees(path, (2, 3, 8, 8))


@pytest.mark.parametrize("kind", [TensorProto.FLOAT16, TensorProto.DOUBLE])
def test_other_precisions_compute_in_single(tmp_path, kind):
    dtype = helper.tensor_dtype_to_np_dtype(kind)
    weight = np.random.default_rng(0).standard_normal((4, 3, 3, 3)).astype(dtype)
    nodes = [
        helper.make_node("Cast", ["x"], ["z"], to=kind),
        helper.make_node("Conv", ["z", "w"], ["c"]),
        helper.make_node("Constant", [], ["k"], value=numpy_helper.from_array(dtype.type(2.0))),
        helper.make_node("Mul", ["c", "k"], ["y"]),
    ]
    graph = helper.make_graph(
        nodes,
        "net",
        [helper.make_tensor_value_info("x", kind, ["N", 3, 8, 8])],
        [helper.make_tensor_value_info("y", kind, ["N", 4, 6, 6])],
        [numpy_helper.from_array(weight, "w")],
    )
    path = tmp_path / "net.onnx"
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)]), path)
    image = torch.rand(2, 3, 8, 8)
    (result,) = load_onnx(path)(image)
    expected = 2.0 * torch.nn.functional.conv2d(image, torch.from_numpy(weight).float())
    assert result.dtype == torch.float32
    torch.testing.assert_close(result, expected)


def test_weights_are_ordinary_and_frozen_whatever_mode_they_are_loaded_in(face_networks):
    with torch.inference_mode():
        module = load_onnx(face_networks / "fr_eye.onnx")
    for tensor in (*module.parameters(), *module.buffers()):
        assert not tensor.is_inference() and not tensor.requires_grad
    assert not module.training
    image = torch.rand(1, 1, 24, 24, requires_grad=True)
    module(image)[0].sum().backward()
    assert image.grad.abs().max() > 0.0


# ---------------------------------------------------------------- files that are refused


def test_all_unsupported_operators_are_listed(tmp_path):
    text = """<ir_version: 8, opset_import: ["" : 20, "com.microsoft" : 1]>
    net (float[1,3,8,8] x) => (float[1,3,8,8] y) {
        a = Det(x)
        b = com.microsoft.FusedMatMul(x, x)
        c = Hardmax(x)
        d = Relu(x)
        y = Sum(a, b, c, d)
    }"""
    model = parser.parse_model(text)
    path = tmp_path / "net.onnx"
    onnx.save(model, path)
    with pytest.raises(ValueError, match="^net.onnx cannot be differentiated: ") as caught:
        load_onnx(path)
    message = str(caught.value)
    for name in ("Det", "com.microsoft.FusedMatMul (operator set 1)", "Hardmax (operator set "):
        assert name in message
    assert "Relu" not in message and "Sum" not in message


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("(float[1,3,8,8] x, float[1,2] t) => (float[1,3,8,8] y) { y = Relu(x) }",
         r"one image input .*, got x \[1, 3, 8, 8\], t \[1, 2\]"),
        ("(float[1,16] x) => (float[1,16] y) { y = Relu(x) }", r"image input .*, got x \[1, 16\]"),
        ("() => (float[1] y) { y = Constant <value_floats = [1.0]> () }", "got none"),
        ("(float[1,3,8,8] x) => (float[1,9] y) { y = Reshape(x, shape) }", "cannot be run on one"),
    ],
)  # fmt: skip
def test_networks_that_do_not_take_one_image(tmp_path, text, message):
    constants = {"shape": np.array([1, 9])} if "shape" in text else {}
    path = write(tmp_path, text, constants)
    with pytest.raises(ValueError, match=f"^net.onnx .*{message}"):
        load_onnx(path)


@pytest.mark.parametrize("content", [b"", b"no model at all", b"\x08\x07" * 50])
def test_files_that_are_no_networks(tmp_path, content):
    path = tmp_path / "net.onnx"
    path.write_bytes(content)
    with pytest.raises(ValueError, match="net.onnx is not a readable ONNX file"):
        load_onnx(path)


def with_external_weights(folder):
    text = "(float[N,3,8,8] x) => (float[N,4,6,6] y) { y = Conv(x, w) }"
    return write(
        folder,
        text,
        {"w": WEIGHTS["w"]},
        save_as_external_data=True,
        location="weights.bin",
        size_threshold=0,
    )


def test_weights_in_another_file_of_the_folder(tmp_path):
    path = with_external_weights(tmp_path)
    assert (tmp_path / "weights.bin").exists()
    agrees(path, (2, 3, 8, 8))


def test_a_network_too_large_for_one_message(tmp_path, monkeypatch):
    """Above 2 GiB it goes to the converter as files; here every network is above the limit."""
    monkeypatch.setattr(onnx_graph, "LARGEST_MESSAGE", 0)
    agrees(with_external_weights(tmp_path), (2, 3, 8, 8))


@pytest.mark.parametrize("place", ["../outside.bin", "{absolute}", "deep/../../outside.bin"])
def test_weights_outside_the_folder_are_refused(tmp_path, place):
    folder = tmp_path / "models"
    folder.mkdir()
    path = with_external_weights(folder)
    (folder / "weights.bin").rename(tmp_path / "outside.bin")
    location = place.format(absolute=tmp_path / "outside.bin")
    model = onnx.load(path, load_external_data=False)
    for entry in model.graph.initializer[0].external_data:
        if entry.key == "location":
            entry.value = location
    path.write_bytes(model.SerializeToString())
    with pytest.raises(ValueError, match="weights outside its own folder") as caught:
        load_onnx(path)
    assert location in str(caught.value)


def test_weights_that_are_not_there(tmp_path):
    path = with_external_weights(tmp_path)
    (tmp_path / "weights.bin").unlink()
    with pytest.raises(ValueError, match="net.onnx: its external weights cannot be read"):
        load_onnx(path)
