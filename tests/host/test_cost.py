"""What guidance costs: the counts of its parts and of the engine, and the command around both."""

import json
import re
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from comfy.taesd.taesd import TAESD
from torch import nn

from zmagic.guidance.evaluation import DENOISER
from zmagic.guidance.settings import PRESETS, preset
from zmagic.host.decoders import Decoder
from zmagic.host.memory import need_of
from zmagic.lab.evaluations import DECODER, STEPS, evaluations
from zmagic.lab.multiples import Prices, guidance_of
from zmagic.lab.operations import META, Work, work_of
from zmagic.lab.random_models import ARCHITECTURES
from zmagic.lab.subjects import decoder_module

from . import architectures

pytestmark = [pytest.mark.lab, pytest.mark.slow]

PACK = Path(__file__).resolve().parents[2]
CONDITIONS = 3
# What `auto` decodes with: an installed TAESD, else the connected VAE, at half size.
AUTOMATIC = ("vae_half", "taesd")
# What the presets promise for a picture with three conditions, in plain ones.
PROMISED = {"balanced": 4.0, "quality": 12.0, "fast": 1.5, "few steps": 4.25}
# What the default really takes: it may only become cheaper.
AT_MOST = {
    ("SD1.5", "vae_half"): 3.87,
    ("SD1.5", "taesd"): 3.25,
    ("SDXL", "vae_half"): 2.7,
    ("SDXL", "taesd"): 2.4,
    ("Flux", "vae_half"): 2.44,
    ("Flux", "taesd"): 2.38,
    ("Z-Image", "vae_half"): 2.4,
    ("Z-Image", "taesd"): 2.33,
}


@pytest.fixture(scope="module")
def command(tmp_path_factory) -> tuple[str, dict]:
    """The lines and the file of the command, as people start it."""
    path = tmp_path_factory.mktemp("cost") / "cost.json"
    arguments = ["--presets", *PROMISED, "--conditions", str(CONDITIONS)]
    done = subprocess.run(
        [sys.executable, "-m", "lab.cost", *arguments, "--json", str(path)],
        capture_output=True,
        text=True,
        timeout=1200,  # on a busy machine
        cwd=PACK,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout, json.loads(path.read_text("utf-8"))


def test_a_convolution_and_a_linear_layer_of_known_size():
    """The weights are constants: the backward to the input is one product as well."""
    layer = nn.Conv2d(3, 5, 3, padding=1, device=META).requires_grad_(False)
    work = work_of(layer, layer, torch.empty(2, 3, 8, 8, device=META))
    assert work.forward == work.backward == 2 * (2 * 8 * 8) * 5 * (3 * 3 * 3)
    assert work.saved == work.checkpointed == 0
    layer = nn.Linear(7, 11, device=META).requires_grad_(False)
    work = work_of(nn.Sequential(layer), lambda x: layer(x).sin(), torch.empty(4, 7, device=META))
    assert work.forward == work.backward == 2 * 4 * 7 * 11
    assert work.saved == 4 * 4 * 11  # what the sine saves: its input; no weight


def test_attention_saves_no_matrix():
    tokens, width = 512, 64

    def attend(x):
        return nn.functional.scaled_dot_product_attention(x, x, x)

    work = work_of(nn.Module(), attend, torch.empty(1, 1, tokens, width, device=META))
    product = 2 * tokens * tokens * width
    assert work.forward == 2 * product
    assert work.backward == 5 * product  # one of them makes the matrix anew
    assert work.saved < 4 * tokens * tokens


def test_the_meta_device_counts_as_one_that_computes():
    """A decoder that writes into what autograd has saved."""
    works = []
    for device in ("cpu", META):
        with torch.device(device):
            decoder = TAESD(latent_channels=4).requires_grad_(False)
            works.append(work_of(decoder, decoder.decode, torch.zeros(1, 4, 8, 8)))
    assert works[0] == works[1]
    assert works[0].saved > 0


def test_the_parts_are_as_large_as_published(command):
    parts = {part["model"]: part for part in command[1]["parts"]}
    sd15 = parts["SD1.5"]
    assert sd15["denoiser"]["forward"] == pytest.approx(1607e9, rel=0.01)
    assert sd15["decoders"]["vae"]["forward"] == pytest.approx(2515e9, rel=0.01)
    assert sd15["decoders"]["taesd"]["forward"] == pytest.approx(141e9, rel=0.01)
    assert parts["SDXL"]["denoiser"]["forward"] == pytest.approx(13522e9, rel=0.01)
    assert parts["Flux"]["denoiser"]["forward"] == pytest.approx(69467e9, rel=0.01)
    networks = {name: work["forward"] / 1e9 for name, work in sd15["networks"].items()}
    assert networks == pytest.approx(
        {"CLIP ViT-L-14": 162, "ArcFace R50": 12.6, "BiSeNet": 27.5}, rel=0.01
    )
    for part in parts.values():
        for work in (part["denoiser"], *part["decoders"].values(), *part["networks"].values()):
            assert 0.9 < work["backward"] / work["forward"] < 1.4
            assert 0 < work["checkpointed"] <= work["saved"]


@pytest.mark.parametrize("name", PRESETS)
@pytest.mark.parametrize("conditions", [1, 3])
def test_the_engine_is_counted_as_it_counts_itself(name, conditions):
    found = evaluations(PRESETS[name], conditions, steps=4)
    totals = found.trace.totals()
    for part in (DENOISER, DECODER):
        forwards = totals["forwards"].get(part, 0) + totals["forwards"].get(f"{part} check", 0)
        forwards += totals["plain_denoiser_forwards"] * (part == DENOISER)
        # The finished picture is decoded once more, for its final energies.
        assert found.picture[part, "forward"] == forwards + (part == DECODER)
        assert found.picture[part, "backward"] == totals["backwards"].get(part, 0)
        records = [record for record in found.trace.steps if record.step == 0]
        assert found.step[part, "forward"] == sum(r.forwards.get(part, 0) for r in records)
        assert found.step[part, "backward"] == sum(r.backwards.get(part, 0) for r in records)
    looks = sum(found.picture[j, "forward"] for j in range(conditions))
    assert looks == totals["energy_calls"] + conditions


def test_a_window_of_time_travel_makes_a_picture_cheaper_and_its_dearest_step_not():
    always, half = (
        evaluations(preset("quality", travel_end=end), 2, steps=8) for end in (1.0, 0.5)
    )
    assert half.step == always.step
    assert half.picture.total() < 0.8 * always.picture.total()


def test_a_double_backward_is_refused():
    with pytest.raises(ValueError, match="double backward is not counted"):
        evaluations(preset("faithful", dependence="exact"), 2)


@pytest.mark.parametrize("name", ["balanced", "fast"])
def test_a_multiple_is_the_sum_of_what_the_engine_ran(command, name):
    totals = evaluations(PRESETS[name], CONDITIONS).trace.totals()
    forwards, backwards = totals["forwards"], totals["backwards"]
    looks = totals["energy_calls"] // CONDITIONS
    parts = {part["model"]: part for part in command[1]["parts"]}
    rows = [row for row in command[1]["guidance"] if row["preset"] == name]
    assert len(rows) == 4 * 4
    for row in rows:
        part = parts[row["model"]]
        denoiser, decoder = part["denoiser"], part["decoders"][row["decoder"]]
        checks = forwards.get("denoiser check", 0)
        model = (forwards[DENOISER] + checks) * denoiser["forward"]
        model += totals["plain_denoiser_forwards"] * denoiser["forward"]
        model += backwards.get(DENOISER, 0) * denoiser["backward"]
        decoded = (forwards[DECODER] + 1) * decoder["forward"]
        decoded += backwards[DECODER] * decoder["backward"]
        looked = sum(
            (looks + 1) * network["forward"] + looks * network["backward"]
            for network in part["networks"].values()
        )
        plain = STEPS * denoiser["forward"]
        shares = {"model": model, "decoder": decoded, "networks": looked}
        expected = {share: taken / plain for share, taken in shares.items()}
        picture = row["picture"]
        assert picture == pytest.approx(expected | {"total": sum(expected.values())})


def test_the_default_costs_no_more_than_it_did(command):
    rows = {
        (row["model"], row["decoder"]): row["picture"]["total"]
        for row in command[1]["guidance"]
        if row["preset"] == "balanced"
    }
    for which, most in AT_MOST.items():
        assert rows[which] <= most, which


@pytest.mark.parametrize("name", PROMISED)
def test_a_preset_costs_what_it_promises_on_every_model(command, name):
    rows = [
        row
        for row in command[1]["guidance"]
        if row["preset"] == name and row["decoder"] in AUTOMATIC
    ]
    assert len(rows) == 4 * len(AUTOMATIC)
    for row in rows:
        assert row["picture"]["total"] <= PROMISED[name], (row["model"], row["decoder"])


def test_half_the_side_is_a_quarter_of_the_decoder(command):
    for part in command[1]["parts"]:
        whole, half = part["decoders"]["vae"], part["decoders"]["vae_half"]
        for work in ("forward", "backward", "saved", "checkpointed"):
            assert half[work] == pytest.approx(whole[work] / 4, rel=0.1), part["model"]


TITLES = {"vae_half": "VAE at half size", "taesd": "TAESD", "vae": "VAE"}


def shown_in(page: str, line: str) -> list[str]:
    """The cells of the one line of a page's table that begins so."""
    (cells,) = re.findall(rf"^\| {line} \| (.*) \|$", (PACK / page).read_text("utf-8"), re.M)
    return cells.split(" | ")


def test_the_page_of_the_evaluation_says_what_is_counted(command):
    found: dict[tuple[str, str], list[float]] = {}
    for row in command[1]["guidance"]:
        found.setdefault((row["preset"], row["decoder"]), []).append(row["picture"]["total"])
    for preset_name in PROMISED:
        for decoder, title in TITLES.items():
            cells = shown_in("docs/evaluation.md", f"`{preset_name}`, {title}")
            shown = [float(cell) for cell in cells]
            assert shown == pytest.approx(found[preset_name, decoder], rel=0.005)


@pytest.mark.parametrize("kind", ARCHITECTURES, ids=lambda kind: kind.title)
def test_the_readme_says_what_a_model_and_a_card_need(command, kind):
    """A step of ``balanced`` keeps a pass of the model, twice with cfg, and one of the decoder."""
    side = 512 if kind.title == "SD1.5" else 1024
    *times, fast, balanced = shown_in("README.md", f"{re.escape(kind.title)}, {side} pixels")
    totals = {
        row["preset"]: row["picture"]["total"]
        for row in command[1]["guidance"]
        if (row["model"], row["decoder"]) == (kind.title, "vae_half")
    }
    counted = [totals[name] for name in ("fast", "balanced", "quality")]
    assert [float(cell) for cell in times] == pytest.approx(counted, rel=0.005)
    part = next(part for part in command[1]["parts"] if part["model"] == kind.title)
    denoiser, decoder = part["denoiser"], part["decoders"]["vae_half"]
    passes = 1 if kind.cfg == 1.0 else 2
    for cell, model in ((fast, 0), (balanced, passes)):
        kept = [model * denoiser[mode] + decoder[mode] for mode in ("saved", "checkpointed")]
        shown = [float(figure) for figure in re.findall(r"[\d.]+", cell)]
        assert shown == pytest.approx([each / 2**30 for each in kept], abs=0.06)


@pytest.mark.parametrize("steps", [4, 8])
def test_a_picture_of_few_steps_takes_what_the_pages_say(command, steps):
    """README.md has the numbers, the page of Z-Magic Settings their limits."""
    counted = [
        Prices(
            part["model"],
            part["side"],
            Work(**part["denoiser"]),
            *(
                {k: Work(**work) for k, work in part[name].items()}
                for name in ("decoders", "networks")
            ),
        )
        for part in command[1]["parts"]
    ]
    rows = guidance_of(counted, ["few steps"], [CONDITIONS], steps)
    found = {row.model: row.picture.total for row in rows if row.decoder == "vae_half"}
    shown = [float(cell) for cell in shown_in("README.md", f"{steps} steps")]
    assert shown == pytest.approx([found[kind.title] for kind in ARCHITECTURES], rel=0.005)
    limits = {"SD1.5": 4.25, "SDXL": 2.0, "Flux": 1.25, "Z-Image": 1.25}
    assert all(found[model] < most for model, most in limits.items())


def test_the_tables_say_what_the_file_says(command):
    lines = command[0].splitlines()
    row = next(
        row
        for row in command[1]["guidance"]
        if (row["model"], row["preset"], row["decoder"]) == ("SDXL", "fast", "vae")
    )
    picture = lines[lines.index("| SDXL: a picture of 20 steps | n = 3 |") :]
    found = next(line for line in picture if line.startswith("| `fast`, vae | "))
    figures = re.findall(r"[\d.]+", found.split(" | ")[1])
    names = ("total", "model", "decoder", "networks")
    shown = dict(zip(names, map(float, figures), strict=True))
    assert shown == pytest.approx(row["picture"], abs=0.006)


def test_what_blocks_save_fits_on_small_cards(command):
    """One gradient of one picture, as ``small`` takes it, beside what it saves otherwise.

    docs/evaluation.md and the tooltip of the setting have these figures.
    """
    gib = 2**30
    parts = {part["model"]: part for part in command[1]["parts"]}
    limits = {"SD1.5": (0.3, 4.5), "SDXL": (1.0, 9.0), "Flux": (1.9, 10.0), "Z-Image": (1.8, 10.0)}
    for name, (most, times_less) in limits.items():
        denoiser, decoders = parts[name]["denoiser"], parts[name]["decoders"]
        assert denoiser["checkpointed"] <= most * gib, name
        assert denoiser["saved"] >= times_less * denoiser["checkpointed"], name
        assert decoders["vae"]["saved"] >= 1.95 * decoders["vae"]["checkpointed"]
        if name != "SD1.5":  # at 1024 pixels
            assert decoders["vae"]["checkpointed"] <= 3.5 * gib
            assert decoders["taesd"]["checkpointed"] <= 0.65 * gib


def test_a_decoder_in_tiles_saves_one_tile(command):
    """docs/evaluation.md has these figures."""
    parts = {part["model"]: part for part in command[1]["parts"]}
    for name, part in parts.items():
        decoders = part["decoders"]
        assert decoders["linear_rgb"]["tiled"] is part["denoiser"]["tiled"] is None
        if name == "SD1.5":
            assert decoders["vae_half"]["tiled"] is None  # a picture of 256 pixels is one tile
            continue
        for decoder, most in {"vae": 1.0, "vae_half": 0.6, "taesd": 0.15}.items():
            work = decoders[decoder]
            assert work["tiled"] <= most * 2**30
            assert work["tiled"] < 0.65 * work["checkpointed"]


@pytest.mark.parametrize("kind", ARCHITECTURES, ids=lambda kind: kind.title)
def test_the_estimate_is_what_is_saved_and_at_most_twice_that(command, kind):
    """With three conditions, each with a network of its own."""
    part = next(part for part in command[1]["parts"] if part["model"] == kind.title)
    model = kind.built(kind.dtype, META)
    shape = (1, kind.channels, kind.side // 8, kind.side // 8)
    for name, work in part["decoders"].items():
        modules = () if name == "linear_rgb" else (decoder_module(name, kind.channels),)
        patchers = tuple(map(architectures.patcher, modules))
        decoder = Decoder(name, lambda *_: None, patchers, 2 if name == "vae_half" else None)
        need = need_of(model, decoder, shape, 1 if kind.cfg == 1.0 else 2)
        for way, column in (("fast", "saved"), ("small", "checkpointed")):
            counted = [part["denoiser"], work, *part["networks"].values()]
            share = getattr(need, way) / sum(each[column] for each in counted)
            print(f"{kind.title}, {name}, {way}: {share:.2f}")
            assert 1.0 <= share <= 2.0
