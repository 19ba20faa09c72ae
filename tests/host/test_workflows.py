"""The pack as a service uses it: workflows posted to the real server."""

import json
import re
import shutil
import sys
import time
import tomllib
from functools import cache
from io import BytesIO
from pathlib import Path
from urllib.parse import quote
from urllib.request import urlopen

import numpy as np
import pytest
from PIL import Image

from zmagic.guidance.contact_sheet import LABEL

from .model_folder import CHECKPOINT, write_models

PACK = Path(__file__).resolve().parents[2]
WORKFLOWS = PACK / "workflows" / "api"

TEXTS = tomllib.loads((PACK / "workflows" / "graphs.toml").read_text(encoding="utf-8"))

# A picture that ComfyUI's own input folder has.
EXAMPLE = "example.png"
# Pixels of the pictures that stock workflows make here.
SIDE = 64


@pytest.fixture(scope="module")
def server(tmp_path_factory, face_networks, pytestconfig):
    running_server = pytestconfig.zmagic_script("api_client").running_server
    state = pytestconfig.zmagic_script("packages").STATE
    folder = tmp_path_factory.mktemp("server")
    models = write_models(folder / "models", face_networks)
    cpu = pytestconfig.zmagic_headless.wanted_device() == "cpu"
    log = folder / "server.log"
    with running_server(folder, log, cpu=cpu, models=models, python=sys.executable) as server:
        server.cpu = cpu
        server.output = folder
        server.models = folder / "models"
        with Image.open(PACK / "demo_models" / "photograph.jpg") as photograph:
            photograph.save(state / "server" / "input" / EXAMPLE)
        for picture in (PACK / "extras").glob("*.jpg"):
            shutil.copy(picture, state / "server" / "input")
        yield server
    shutil.rmtree(folder / "models")  # 400 MB


def workflow(name: str, steps: int = 2) -> dict:
    """An example workflow with few steps; other presets than the cheapest stay as they are.

    Stock checkpoints are replaced by one of the SD1.5 architecture with random weights, which makes
    small pictures; every other node stays as it is.
    """
    nodes = json.loads((WORKFLOWS / f"{name}.json").read_text(encoding="utf-8"))
    take_from_a_checkpoint(nodes)
    stock = any("ckpt_name" in node["inputs"] for node in nodes.values())
    for node in nodes.values():
        inputs = node["inputs"]
        if "steps" in inputs:
            inputs["steps"] = steps
        if "ckpt_name" in inputs:
            inputs["ckpt_name"] = CHECKPOINT
        if node["class_type"] == "FluxKontextImageScale":  # to a megapixel
            node["class_type"] = "ImageScale"
            inputs |= {"upscale_method": "area", "crop": "disabled", "width": SIDE, "height": SIDE}
        if "megapixels" in inputs:
            inputs["megapixels"] = 0.01  # the least there is
        if stock and node["class_type"] in ("EmptyLatentImage", "EmptySD3LatentImage"):
            node["class_type"] = "EmptyLatentImage"  # Flux has latents of 16 channels, SD1.5 of 4
            inputs["width"] = inputs["height"] = SIDE
    return nodes


def take_from_a_checkpoint(nodes: dict) -> None:
    """Put a checkpoint in the place of a model, a text encoder and a VAE in files of their own."""
    places = {"UNETLoader": 0, "CLIPLoader": 1, "DualCLIPLoader": 1, "VAELoader": 2}
    parts = {i: places[n["class_type"]] for i, n in nodes.items() if n["class_type"] in places}
    if not parts:
        return
    loader = next(i for i, place in parts.items() if place == 0)
    for node in nodes.values():
        for name, value in node["inputs"].items():
            if isinstance(value, list) and value[0] in parts:
                node["inputs"][name] = [loader, parts[value[0]]]
    for number in parts:
        del nodes[number]
    nodes[loader] = {"class_type": "CheckpointLoaderSimple", "inputs": {"ckpt_name": CHECKPOINT}}


@pytest.fixture(scope="module")
def outputs_of(server):
    """Return a function from a workflow's name to its outputs.

    Each workflow runs once, in as few steps as use every condition.
    """

    @cache
    def outputs(name: str) -> dict:
        nodes = workflow(name)
        late = any(node["inputs"].get("start") for node in nodes.values())
        return server.run(nodes if late else workflow(name, steps=1))

    return outputs


def by_class(nodes: dict, kind: str) -> dict:
    """The inputs of the only node of a class."""
    (node,) = [node for node in nodes.values() if node["class_type"] == kind]
    return node["inputs"]


@pytest.mark.slow
@pytest.mark.parametrize("name", [file.stem for file in sorted(WORKFLOWS.glob("*.json"))])
def test_example_workflows_run_on_a_machine_without_a_checkpoint(server, outputs_of, name):
    images = [image for output in outputs_of(name).values() for image in output.get("images", ())]
    saved = [image for image in images if image["type"] == "output"]
    assert saved
    for image in saved:
        with Image.open(server.output / image["subfolder"] / image["filename"]) as picture:
            assert picture.getextrema() != ((0, 0), (0, 0), (0, 0))


def test_the_host_gives_every_graph_of_templates_with_its_picture(server, pytestconfig):
    """It serves one folder of a pack by these names: another would hide all of them."""
    host = pytestconfig.zmagic_script("host_server")
    pack = host.name_in(pytestconfig.zmagic_headless.host_path()) or host.PACK_NAME
    names = server.get("/api/workflow_templates")[pack]
    assert sorted(names) == sorted(texts["name"] for texts in TEXTS.values())
    for name in names:
        address = f"/api/workflow_templates/{pack}/{quote(name)}"
        assert server.get(f"{address}.json")["nodes"]
        with urlopen(f"{server.address}{address}.jpg") as picture, Image.open(picture) as drawn:
            assert drawn.size[0] >= 128


FEW_STEPS = {
    "text_and_identity_sdxl_lightning": 4,
    "text_and_identity_z_image_turbo": 8,
    "text_and_style_flux_schnell": 4,
    "text_and_style_qwen_image_lightning": 8,
    "identity_qwen_image_edit": 4,
}


@pytest.mark.parametrize(("name", "steps"), FEW_STEPS.items())
def test_models_of_few_steps_have_their_preset_and_no_cfg(name, steps):
    nodes = json.loads((WORKFLOWS / f"{name}.json").read_text(encoding="utf-8"))
    sampler = by_class(nodes, "ZMagicSampler")
    assert (sampler["steps"], sampler["cfg"]) == (steps, 1.0)
    assert by_class(nodes, "ZMagicSettings")["preset"] == "few steps"
    assert nodes[sampler["settings"][0]]["class_type"] == "ZMagicSettings"


def test_the_summary_of_a_comparison_has_energies_cosines_and_cost(outputs_of):
    """The demo workflow runs one step, with the prompt and without it in one evaluation."""
    nodes = workflow("demo")
    (shown,) = [i for i, node in nodes.items() if node["class_type"] == "PreviewAny"]
    summary = json.loads(outputs_of("demo")[shown]["text"][0])
    assert list(summary) == ["prompt alone", "FreeDoM", "Z-Magic"]
    assert summary["prompt alone"]["totals"]["plain_denoiser_forwards"] == 1
    ours = summary["Z-Magic"]["totals"]
    assert ours["guided_evaluations"] == 1  # in each step
    assert ours["forwards"]["denoiser"] == ours["backwards"]["denoiser"] == 1
    assert all(len(values) == 1 for values in summary["Z-Magic"]["final"].values())
    pair = {"Segmentation / Face Identity"}
    assert set(summary["Z-Magic"]["cosines"]) == set(summary["FreeDoM"]["cosines"]) == pair
    assert all(-1.0 <= value <= 1.0 for value in summary["FreeDoM"]["cosines"].values())
    assert summary["prompt alone"]["cosines"] == {}


def titled(nodes: dict, title: str) -> str:
    """The number of the only node of a title."""
    (number,) = [i for i, node in nodes.items() if node["_meta"]["title"] == title]
    return number


def test_the_sheet_of_the_demo_tells_the_prompt_of_all_its_pictures():
    nodes = workflow("demo")
    number = titled(nodes, "Prompt")
    prompt = nodes[number]["inputs"]["text"]
    captions = by_class(nodes, "ZMagicCompareRuns")["captions"]
    assert captions.splitlines()[-1] == f'"{prompt}"'
    samplers = [n["inputs"] for n in nodes.values() if n["class_type"] == "ZMagicSampler"]
    assert [sampler["positive"] for sampler in samplers] == [[number, 0]] * 3


FOR_THE_DEMO_MODEL = [
    file.stem
    for file in sorted(WORKFLOWS.glob("*.json"))
    if "ZMagicLoadDemo"
    in {n["class_type"] for n in json.loads(file.read_text(encoding="utf-8")).values()}
]


@pytest.mark.parametrize("name", FOR_THE_DEMO_MODEL)
def test_the_demo_model_is_sampled_as_it_was_trained(name):
    """A prompt, an empty one for cfg, and the cfg and steps of the model's figures."""
    nodes = json.loads((WORKFLOWS / f"{name}.json").read_text(encoding="utf-8"))
    prompt, negative = titled(nodes, "Prompt"), titled(nodes, "Negative prompt")
    loader = titled(nodes, "Load Z-Magic Demo")
    for number in (prompt, negative):
        assert nodes[number]["class_type"] == "CLIPTextEncode"
        assert nodes[number]["inputs"]["clip"] == [loader, 1]
    assert nodes[prompt]["inputs"]["text"] and nodes[negative]["inputs"]["text"] == ""
    told = [node["inputs"] for node in nodes.values() if "positive" in node["inputs"]]
    assert told
    for inputs in told:
        assert (inputs["positive"], inputs["negative"]) == ([prompt, 0], [negative, 0])
        assert inputs["cfg"] == 3.0
    steps = {n["inputs"]["steps"] for n in nodes.values() if "steps" in n["inputs"]}
    assert steps == {20}


@pytest.mark.parametrize("name", [file.stem for file in sorted(WORKFLOWS.glob("*demo.json"))])
def test_demo_workflows_need_no_file_of_the_user(name):
    loaders = {n["class_type"] for n in workflow(name).values() if "Load" in n["class_type"]}
    assert loaders == {"ZMagicLoadDemo", "ZMagicLoadDemoNetworks"}
    assert (WORKFLOWS.parent / f"{TEXTS[name]['name']}.jpg").is_file()


@pytest.mark.slow
def test_the_picture_of_a_help_page_shows_what_the_energy_does(server, pytestconfig):
    pages = pytestconfig.zmagic_script("page_pictures")
    picture = pages.picture_of(server, "ZMagicColorPalette", steps=3)
    pixels = np.asarray(picture, dtype=float)[LABEL:]
    alone, guided, condition = (part.mean((0, 1)) for part in np.split(pixels, 3, axis=1))
    assert np.abs(guided - condition).sum() < np.abs(alone - condition).sum()
    file = pages.jpeg(picture)
    assert len(file) <= pages.MOST_BYTES
    with Image.open(BytesIO(file)) as reread:
        assert reread.size == picture.size == (3 * 2 * pages.SIDE, LABEL + 2 * pages.SIDE)


@pytest.mark.slow
def test_a_region_that_was_painted_on_the_reference_is_told_in_the_report(server, pytestconfig):
    """Load Image's mask of the very reference; ComfyUI's mask editor makes what it marks clear."""
    state = pytestconfig.zmagic_script("packages").STATE
    with Image.open(PACK / "demo_models" / "photograph.jpg") as photograph:
        painted = photograph.convert("RGBA").resize((64, 64))
    painted.putalpha(
        Image.fromarray(np.uint8(255 * (np.arange(64) > 31)).repeat(64).reshape(64, 64))
    )
    painted.save(state / "server" / "input" / "painted.png")
    nodes = workflow("text_and_identity_demo", steps=1)
    nodes["90"] = {"class_type": "LoadImage", "inputs": {"image": "painted.png"}}
    (face,) = [i for i, n in nodes.items() if n["class_type"] == "ZMagicFaceIdentity"]
    color = {"colors": "", "lightness": 0.5, "weight": 1.0, "start": 0.0, "end": 1.0}
    links = {"conditions": [face, 0], "reference": ["90", 0], "region": ["90", 1]}
    nodes["91"] = {"class_type": "ZMagicColorPalette", "inputs": color | links}
    (sampler,) = [i for i, n in nodes.items() if n["class_type"] == "ZMagicSampler"]
    nodes[sampler]["inputs"]["conditions"] = ["91", 0]
    nodes["92"] = {"class_type": "PreviewAny", "inputs": {"source": [sampler, 2]}}
    report = json.loads(server.run(nodes)["92"]["text"][0])
    (warning,) = [w for w in report["warnings"] if w.startswith("Color Palette: ")]
    assert "'reference_mask'" in warning and "(node 90)" in warning
    log = (server.output / "server.log").read_text(encoding="utf-8")
    assert "Color Palette Energy (node 91): connect the mask to 'reference_mask'" in log


@pytest.mark.slow
def test_a_report_behind_ksampler_and_the_latent_goes_on(server):
    nodes = workflow("ksampler", steps=1)
    by_class(nodes, "KSampler")["seed"] = 11
    read = {"guided": ["5", 0], "latent": ["6", 0]}
    nodes["91"] = {"class_type": "ZMagicReport", "inputs": read}
    nodes["92"] = {"class_type": "PreviewAny", "inputs": {"source": ["91", 1]}}
    by_class(nodes, "VAEDecode")["samples"] = ["91", 2]
    outputs = server.run(nodes)
    report = json.loads(outputs["92"]["text"][0])
    assert report["about"]["seed"] == 11 and len(report["steps"]) == 1
    assert outputs["91"]["text"] == [report["words"]]
    assert outputs["91"]["images"][0]["type"] == "temp" and "8" in outputs


@pytest.mark.slow
def test_the_unguided_picture_comes_out_where_it_is_asked_for(server):
    nodes = workflow("text_and_identity_demo", steps=1)
    sampler = by_class(nodes, "ZMagicSampler")
    decoded = {"samples": ["8", 3], "vae": ["1", 2]}
    nodes["91"] = {"class_type": "VAEDecode", "inputs": decoded}
    nodes["92"] = {
        "class_type": "SaveImage",
        "inputs": {"images": ["91", 0], "filename_prefix": "unguided"},
    }
    sampler["compare"] = True
    outputs = server.run(nodes)
    (text,) = outputs["8"]["text"]
    assert "against unguided: energy of Text " in text and outputs["8"]["images"]
    assert outputs["92"]["images"] and outputs["10"]["images"]
    sampler["compare"] = False
    outputs = server.run(nodes)
    assert "92" not in outputs and outputs["10"]["images"]
    assert "unguided" not in outputs["8"]["text"][0]


@pytest.mark.slow
def test_similarity_preference_and_any_network_guide(server):
    """The attribute nodes that no example uses: likenesses, an expression, and a pose."""
    nodes = workflow("text_and_style_demo", steps=1)
    common = {"weight": 1.0, "start": 0.0, "end": 1.0}
    (sampler,) = [node for node in nodes.values() if node["class_type"] == "ZMagicSampler"]
    (openclip,) = [i for i, node in nodes.items() if node["class_type"] == "ZMagicLoadDemoNetworks"]
    network = {"model_name": "fr_expression.onnx", "normalization": "imagenet", "size": 0}
    network |= {"color_order": "RGB", "mean": "127.5", "std": "127.5", "fit": "stretch"}
    nodes["91"] = {"class_type": "ZMagicLoadOnnx", "inputs": network}
    expression = {"network": ["91", 0], "output": "", "target_is": "class", "value": "0"}
    expression |= {"class_index": 3, "distance": "cross entropy", "face_margin": 1.0}
    nodes["92"] = {
        "class_type": "ZMagicOnnxEnergy",
        "inputs": {**expression, **common},
    }
    likeness = {"reference": ["1", 3], "openclip": [openclip, 0], "reference_weights": ""}
    nodes["93"] = {
        "class_type": "ZMagicImageSimilarity",
        "inputs": {**likeness, **common, "conditions": ["92", 0]},
    }
    nodes["95"] = {
        "class_type": "ZMagicImageSimilarity",
        "inputs": {**likeness, **common, "match": "patches", "conditions": ["93", 0]},
    }
    scorer = {"scorer": "CLIP-IQA", "scorer.good": "Good photo.", "scorer.bad": "Bad photo."}
    preference = {**scorer, "openclip": [openclip, 0], "head": "not used.pth"}
    nodes["96"] = {
        "class_type": "ZMagicPreference",
        "inputs": {**preference, **common, "conditions": ["95", 0]},
    }
    maps = {**network, "model_name": "zmagic_demo_parser.onnx"}  # as heat maps
    nodes["97"] = {"class_type": "ZMagicLoadOnnx", "inputs": maps}
    pose = {"reference": ["1", 3], "pose_network": ["97", 0], "points": "all", "min_score": 0.0}
    nodes["98"] = {
        "class_type": "ZMagicPose",
        "inputs": {**pose, "size": 512, **common, "conditions": ["96", 0]},
    }
    sampler["inputs"]["conditions"] = ["98", 0]
    (report,) = [i for i, node in nodes.items() if node is sampler]
    nodes["94"] = {"class_type": "PreviewAny", "inputs": {"source": [report, 2]}}
    final = json.loads(server.run(nodes)["94"]["text"][0])["final"]
    names = ["ONNX", "Image Similarity", "Image Similarity 2", "Preference", "Pose"]
    assert list(final) == names


def test_a_missing_head_of_a_preference_says_where_to_get_it(server):
    nodes = workflow("text_and_style_demo", steps=1)
    (text,) = [node for node in nodes.values() if node["class_type"] == "ZMagicText"]
    openclip = text["inputs"]["openclip"]
    scorer = {"scorer": "LAION aesthetic", "head": "elsewhere.pth", "openclip": openclip}
    text["class_type"], text["inputs"] = (
        "ZMagicPreference",
        {**scorer, "weight": 1.0, "start": 0.0, "end": 1.0},
    )
    with pytest.raises(RuntimeError, match="(?s)'elsewhere.pth' not found.*aesthetic.*Apache 2.0"):
        server.run(nodes)


@pytest.mark.parametrize(
    ("name", "node", "widget", "where"),
    [
        ("text_and_style_flux", "ZMagicLoadOpenCLIP", "weights", "open_clip"),
        ("text_and_identity_sdxl", "ZMagicLoadFaceRecognizer", "model_name", "insightface"),
        ("text_and_identity_sdxl", "ZMagicLocateFace", "detector", "insightface"),
        ("identity_and_landmarks_sd15", "ZMagicLoadLandmarkNetwork", "model_name", "insightface"),
        ("text_segmentation_identity_sd15", "ZMagicLoadSegmenter", "model_name", "onnx"),
    ],
)
def test_a_file_that_a_shared_workflow_names_and_is_not_here(server, name, node, widget, where):
    """It passes the host's check of the list, and is reported with all that helps."""
    nodes = workflow(name)
    by_class(nodes, node)[widget] = "elsewhere.onnx"
    (number,) = [i for i, n in nodes.items() if n["class_type"] == node]
    with pytest.raises(RuntimeError) as error:
        server.run(nodes)
    message = str(error.value)
    assert re.search(
        rf"\(node {number}\): .*'elsewhere.onnx' not found. Put it in .*{where}\n", message
    )
    assert re.search("Get it: |Or get ", message) and "license: " in message
    assert "Searched: " in message


@pytest.mark.parametrize(
    ("node", "name", "value", "message"),
    [
        ("ZMagicReferenceImage", "start", 0.9, r"Image Energy \(node \d+\): expected 'start' not"),
        ("ZMagicColorPalette", "colors", "", r"Palette Energy \(node \d+\): expected a picture"),
        ("ZMagicReferenceImage", "weight", -1.0, "smaller than min of 0.0: weight"),
        ("ZMagicApply", "model", ["1", 2], "ZMagicApply.*(mismatch|type)"),
    ],
)
def test_bad_input_comes_back_as_a_sentence(server, node, name, value, message):
    nodes = workflow("ksampler")
    by_class(nodes, node)[name] = value
    with pytest.raises(RuntimeError, match=message):
        server.run(nodes)


def test_a_decoder_that_cannot_be_had_names_the_node(server):
    nodes = workflow("ksampler")
    del by_class(nodes, "ZMagicApply")["vae"]
    settings = next(n for n in workflow("demo").values() if n["class_type"] == "ZMagicSettings")
    settings["inputs"]["decoder"] = "vae"
    nodes["90"] = settings
    by_class(nodes, "ZMagicApply")["settings"] = ["90", 0]
    with pytest.raises(RuntimeError, match=r"Apply Z-Magic \(node 5\): decoder 'vae' needs a VAE"):
        server.run(nodes)


FILE_WIDGETS = {
    "ZMagicLoadOnnx": "model_name",
    "ZMagicLoadSegmenter": "model_name",
    "ZMagicLoadFaceRecognizer": "model_name",
    "ZMagicLoadLandmarkNetwork": "model_name",
    "ZMagicLocateFace": "detector",
    "ZMagicLoadOpenCLIP": "weights",
}


@pytest.mark.parametrize("node", FILE_WIDGETS)
def test_lists_hold_what_is_installed_and_mark_what_is_not(server, node):
    """What a graph asks for and is not there must not be in the list: so the frontend sees it."""
    folders = [f for f in server.models.iterdir() if f.name in ("onnx", "insightface", "open_clip")]
    there = {p.relative_to(f).as_posix() for f in folders for p in f.rglob("*") if p.is_file()}
    widgets = server.get(f"/object_info/{node}")[node]["input"]["required"]
    _, options = widgets[FILE_WIDGETS[node]]
    assert options.get("default", options["options"][0]) in options["options"]
    for name in options["options"]:
        assert name in there or name == "buffalo_l" or name.endswith(" (not installed)")


def test_lists_end_in_folders_that_are_in_themselves(server):
    loops = [server.models / "onnx" / name for name in ("here", "again")]
    try:
        for loop in loops:
            loop.symlink_to(server.models / "onnx", target_is_directory=True)
        started = time.monotonic()
        assert FILE_WIDGETS.keys() <= server.get("/object_info").keys()
        assert time.monotonic() - started < 30.0
    finally:
        for loop in loops:
            loop.unlink(missing_ok=True)


@pytest.mark.parametrize("value", [7, 1.5, None, True, {"a": 1}, {"__value__": ["a.onnx"]}])
@pytest.mark.parametrize("node", FILE_WIDGETS)
def test_a_file_name_of_another_type(server, node, value):
    widgets = server.get(f"/object_info/{node}")[node]["input"]["required"]
    inputs = {
        name: options[0].get("default", options[0].get("options", [None])[0])
        for name, (_, *options) in widgets.items()
    }
    name = FILE_WIDGETS[node]
    nodes = {"1": {"class_type": node, "inputs": {**inputs, name: value}}}
    nodes["2"] = {"class_type": "PreviewAny", "inputs": {"source": ["1", 0]}}
    with pytest.raises(RuntimeError, match=f"'{name}' must be the name of a file, got "):
        server.run(nodes)


@pytest.mark.slow
def test_a_running_host_tells_every_node_and_every_step(server):
    """Patience begins anew with each piece of news, so that how long all of it takes is free."""
    nodes = workflow("ksampler", steps=4)
    by_class(nodes, "KSampler")["seed"] = 11
    heard: list[dict] = []
    server.wait(server.submit(nodes), listener=heard.append)
    shares = [news["value"] / news["max"] for news in heard if "value" in news]
    assert shares == sorted(shares), "the sampling's bar and that of the guidance are one"
    assert set(shares) > {0.25, 0.5, 0.75, 1.0}
    assert {"6", "8"} <= {news["node"] for news in heard}  # the sampler, and what saves


def test_a_host_without_news_is_given_up_in_a_sentence(server):
    prompt_id = server.submit(workflow("ksampler", steps=200))
    try:
        with pytest.raises(TimeoutError, match=r"has told nothing for 0 s; its latest news: "):
            server.wait(prompt_id, patience=0.0)
    finally:
        server.post("/interrupt", {})
        with pytest.raises(RuntimeError, match="interrupted"):
            server.wait(prompt_id)


@pytest.mark.parametrize("file", sorted(WORKFLOWS.parent.glob("*.json")), ids=lambda f: f.stem)
def test_a_second_run_of_a_graph_repeats_the_first(file):
    graph = json.loads(file.read_text(encoding="utf-8"))
    after_a_run = {"fixed", "randomize", "increment", "decrement"}
    values = [value for node in graph["nodes"] for value in node.get("widgets_values") or ()]
    assert {value for value in values if isinstance(value, str)} & after_a_run == {"fixed"}


def test_runs_that_are_compared_have_one_seed():
    nodes = workflow("demo")
    seeds = [n["inputs"]["seed"] for n in nodes.values() if n["class_type"] == "ZMagicSampler"]
    assert len(seeds) == 3 and seeds == [seeds[0]] * 3
    assert nodes[seeds[0][0]]["class_type"] == "PrimitiveInt"


@pytest.mark.slow
def test_an_interrupted_run_leaves_the_server_usable_and_repeats_exactly(server):
    def finished(prefix: str) -> np.ndarray:
        nodes = workflow("ksampler")
        by_class(nodes, "SaveImage")["filename_prefix"] = prefix
        by_class(nodes, "KSampler")["seed"] = 7
        outputs = server.run(nodes)
        (image,) = outputs["8"]["images"]
        with Image.open(server.output / image["filename"]) as picture:
            return np.asarray(picture, dtype=int)

    before = finished("before")
    long = workflow("ksampler", steps=200)
    prompt_id = server.submit(long)
    while not server.get("/queue")["queue_running"]:
        time.sleep(0.05)
    time.sleep(3.0)  # into the guided sampling
    server.post("/interrupt", {})
    with pytest.raises(RuntimeError, match="interrupted"):
        server.wait(prompt_id)
    # Another seed in between, so that the host cannot answer from its cache.
    server.run(workflow("ksampler", steps=1))
    # Kernels of accelerators may add up in any order.
    assert np.abs(finished("after") - before).max() <= (0 if server.cpu else 3)


@pytest.mark.slow
def test_the_likeness_and_the_lines_of_a_control_net_act_both(server):
    """The graph with a ControlNet is nearer guided, and other lines make another picture."""

    def run(**control) -> tuple[dict, np.ndarray]:
        nodes = workflow("identity_controlnet_sd15", steps=3)
        by_class(nodes, "ControlNetApplyAdvanced").update(control)
        # Random weights make no face that a detector finds: it is told where to look.
        by_class(nodes, "ZMagicLocateFace").update(
            {"method": "fixed box", "method.reference_is": "cropped to the face"}
            | {f"method.{side}": 0.25 for side in ("x", "y")}
            | {f"method.{side}": 0.5 for side in ("width", "height")}
        )
        (sampler,) = [i for i, n in nodes.items() if n["class_type"] == "ZMagicSampler"]
        nodes[sampler]["inputs"]["compare"] = True
        nodes["91"] = {"class_type": "PreviewAny", "inputs": {"source": [sampler, 2]}}
        outputs = server.run(nodes)
        (image,) = outputs["16"]["images"]
        with Image.open(server.output / image["filename"]) as picture:
            return json.loads(outputs["91"]["text"][0]), np.asarray(picture, dtype=int)

    report, bound = run()
    (identity,) = report["final"]
    assert report["final"][identity][0] < report["unguided"][identity][0]
    _, free = run(strength=0.0)
    assert np.abs(bound - free).mean() > 2.0
