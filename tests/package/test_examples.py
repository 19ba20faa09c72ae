"""The examples outside ComfyUI, as their files stand: the docstring of the package, diffusers."""

import ast
import doctest
import importlib.util
import pkgutil
import re
from pathlib import Path

import pdoc
import pytest
import torch

import zmagic.guidance
from zmagic.guidance import GuidanceSettings

EXAMPLES = Path(__file__).resolve().parents[2] / "extras"


@pytest.fixture(scope="module")
def example():
    """The module ``extras/diffusers_pipeline.py``."""
    file = EXAMPLES / "diffusers_pipeline.py"
    spec = importlib.util.spec_from_file_location(file.stem, file)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_the_example_in_the_packages_docstring_runs_as_printed():
    result = doctest.testmod(zmagic.guidance)
    assert result.attempted > 5 and result.failed == 0


def test_without_guidance_it_ends_as_the_docstring_says():
    (example,) = doctest.DocTestFinder(recurse=False).find(zmagic.guidance)
    unguided = "conditions, GuidanceSettings(strength=0.0), decode"
    *code, last = [e.source.replace("conditions, decode", unguided) for e in example.examples]
    assert unguided in "".join(code)
    known = {"GuidanceSettings": GuidanceSettings}
    exec("".join(code), known)  # noqa: S102  # the package's own docstring
    energies = " and ".join(f"{energy}" for energy in eval(last, known).values())  # noqa: S307
    assert f"energies of {energies}." in " ".join(zmagic.guidance.__doc__.split())


def test_its_page_has_the_same_example():
    page = (EXAMPLES.parent / "docs" / "library.md").read_text(encoding="utf-8")
    printed = re.findall(r"^    >>> import.*?^$", page, re.DOTALL | re.MULTILINE)
    assert len(printed) == 1 and printed[0] in zmagic.guidance.__doc__


def test_the_guided_pipeline_satisfies_both_conditions_better(example, capsys):
    example.main()
    lines = capsys.readouterr().out.splitlines()
    assert [line.split(":")[0] for line in lines] == ["strength 0.0", "strength 0.2"]
    unguided, guided = (ast.literal_eval(line.partition(": ")[2]) for line in lines)
    assert set(guided) == {"text", "style"}
    assert guided["text"] < unguided["text"] and guided["style"] < unguided["style"]


def test_without_strength_or_conditions_it_is_plain_diffusers_bit_for_bit(example):
    plain = example.sampled(example.small_pipeline())
    conditions = example.conditions_of(example.small_towers(), torch.rand(1, 3, 32, 32))
    for given, strength in ((conditions, 0.0), ([], 0.2)):
        pipeline = example.small_pipeline()
        scheduler = example.GuidedDDIM.from_config(pipeline.scheduler.config)
        scheduler.follow(pipeline, given, GuidanceSettings(strength=strength))
        assert torch.equal(example.sampled(pipeline), plain)


def test_classifier_free_guidance_is_the_pipelines(example):
    """The engine asks the model as the pipeline does: its prediction is the pipeline's own."""
    pipeline = example.small_pipeline()
    scheduler = example.GuidedDDIM.from_config(pipeline.scheduler.config)
    conditions = example.conditions_of(example.small_towers(), torch.rand(1, 3, 32, 32))
    scheduler.follow(pipeline, conditions, GuidanceSettings(strength=1e-9, time_travel=1))
    plain = example.sampled(example.small_pipeline())
    assert torch.allclose(example.sampled(pipeline), plain, rtol=1e-3, atol=1e-3)


def test_the_api_pages_show_every_module_and_its_docstrings(pytestconfig, tmp_path):
    pages = pytestconfig.zmagic_script("api_page")
    shown = pdoc.extract.walk_specs(pages.modules())
    inside = pkgutil.walk_packages(zmagic.guidance.__path__, "zmagic.guidance.")
    assert set(shown) == {"zmagic.guidance", *(module.name for module in inside)}
    pages.write(["zmagic.guidance.schedule"], tmp_path)
    page = (tmp_path / "zmagic" / "guidance" / "schedule.html").read_text(encoding="utf-8")
    assert "rectified flow and flow matching" in page and "Arguments:" in page
