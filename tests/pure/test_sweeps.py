"""The variants of a sweep, their store, and who gets which; no host."""

import io
import json
import threading
from pathlib import Path

import pytest
from PIL import Image

PACK = Path(__file__).resolve().parents[2]
GRAPH = PACK / "workflows" / "api" / "text_and_identity_demo.json"
SECONDS = 20.0  # for what takes none


@pytest.fixture(scope="module")
def sweep(pytestconfig):
    """The modules of ``scripts/sweeps``."""
    return pytestconfig.zmagic_script("sweep")


@pytest.fixture
def graph(sweep) -> dict:
    return sweep.read_graph(GRAPH)


def varied(sweep, graph, *texts, seeds=()):
    return sweep.variants_of(graph, [sweep.variation(graph, text) for text in texts], seeds)


def of_class(graph: dict, kind: str) -> dict:
    (node,) = [node for node in graph.values() if node["class_type"] == kind]
    return node["inputs"]


def test_the_product_sets_what_it_says_and_nothing_else(sweep, graph, tmp_path):
    prompts = tmp_path / "prompts.txt"
    prompts.write_text("a man, laughing\n\na woman\n", encoding="utf-8")
    before = json.dumps(graph)
    variants = varied(
        *(sweep, graph, f"Text Energy.prompt=@{prompts}", "ZMagicSettings.strength=0.1,0.2,1"),
        seeds=sweep.seeds_of("2"),
    )
    assert json.dumps(graph) == before and len({each.digest for each in variants}) == 12
    first, last = variants[0], variants[-1]
    assert of_class(first.graph, "ZMagicText")["prompt"] == "a man, laughing"
    assert of_class(last.graph, "ZMagicSettings")["strength"] == 1.0
    seed = of_class(graph, "ZMagicSampler")["seed"]
    assert [of_class(v.graph, "ZMagicSampler")["seed"] for v in (first, last)] == [seed, seed + 1]
    assert last.chosen == {"Text Energy.prompt": "a woman", "ZMagicSettings.strength": 1.0} | {
        "seed": 1
    }
    of_class(last.graph, "ZMagicText")["prompt"] = of_class(graph, "ZMagicText")["prompt"]
    of_class(last.graph, "ZMagicSettings")["strength"] = of_class(graph, "ZMagicSettings")[
        "strength"
    ]
    of_class(last.graph, "ZMagicSampler")["seed"] = seed
    assert last.graph == graph


def test_inputs_of_a_choice_lists_and_ids_are_understood(sweep, graph):
    variants = varied(
        sweep, graph, "Locate Face.method.x=0.2", 'Text Energy.prompt=["a, b"]', "8.compare=true"
    )
    assert len(variants) == 1
    assert of_class(variants[0].graph, "ZMagicLocateFace")["method.x"] == 0.2
    assert of_class(variants[0].graph, "ZMagicText")["prompt"] == "a, b"
    assert of_class(variants[0].graph, "ZMagicSampler")["compare"] is True


def test_one_seed_for_all_samplers_is_counted_once(sweep):
    graph = sweep.read_graph(PACK / "workflows" / "api" / "demo.json")
    seed = of_class(graph, "PrimitiveInt")["value"]
    found = [of_class(v.graph, "PrimitiveInt")["value"] for v in varied(sweep, graph, seeds=(0, 5))]
    assert found == [seed, seed + 5]


def test_the_same_graph_comes_once_and_titles_do_not_matter(sweep, graph):
    assert len(varied(sweep, graph, "Text Energy.prompt=a,a,b")) == 2
    (one,) = varied(sweep, graph)
    graph["4"]["_meta"]["title"] = "Words"
    (other,) = varied(sweep, graph)
    assert one.digest == other.digest and one.prompt_id == other.prompt_id


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        ("Text Energy.prompt", "expected NODE.INPUT=VALUES"),
        ("Nowhere.prompt=a", "expected NODE.INPUT with a node of: Load Z-Magic Demo, "),
        ("Text Energy.words=a", r"an input of 'Text Energy' \(openclip, prompt, .*got 'words'"),
        ("Z-Magic Sampler.vae=a", "connected to node 1"),
        ("Z-Magic Sampler.steps=many", "expected a value like 20, got 'many'"),
        ("Text Energy.prompt=@nowhere.txt", "cannot read nowhere.txt"),
        ("Text Energy.prompt=[a", "expected a JSON list"),
    ],
)
def test_what_cannot_be_varied_is_said_in_a_sentence(sweep, graph, text, sentence):
    with pytest.raises(ValueError, match=sentence):
        sweep.variation(graph, text)


def test_a_graph_of_the_frontend_and_wrong_seeds_are_refused(sweep):
    with pytest.raises(ValueError, match="Export"):
        sweep.read_graph(PACK / "workflows" / "01 Text and face, runs at once.json")
    for text in ("0", "few", "-1,2"):
        with pytest.raises(ValueError, match="--seeds: expected how many"):
            sweep.seeds_of(text)
    graph = {"1": {"class_type": "EmptyImage", "inputs": {"width": 8}}}
    with pytest.raises(ValueError, match="expected a graph with an input 'seed'"):
        sweep.variants_of(graph, [], (0, 1))


def test_the_command_says_what_is_wrong_without_a_trace(sweep, tmp_path, capsys):
    assert sweep.main([str(tmp_path / "no.json"), "--hosts", "http://127.0.0.1:1"]) == 2
    assert "no.json" in capsys.readouterr().err
    for wrong in (["--hosts", "a:8188"], ["--scheduler", "local:0"], []):
        with pytest.raises(SystemExit):
            sweep.main([str(GRAPH), *wrong])
        assert "Traceback" not in capsys.readouterr().err


def made(sweep, variant, content=b"picture"):
    return sweep.Made(variant, "http://a", [content], 1.5, {"Text": [0.25]})


def test_a_store_keeps_a_variant_once_and_goes_on_after_a_cut_line(sweep, graph, tmp_path):
    one, two = varied(sweep, graph, "Text Energy.prompt=a,b")
    store = sweep.SweepStore(tmp_path)
    assert store.add(made(sweep, one)) and not store.add(made(sweep, one, b"again"))
    file = tmp_path / "rows.jsonl"
    whole = file.read_bytes()
    file.write_bytes(whole + b'{"prompt": "half')
    store = sweep.SweepStore(tmp_path)
    assert one in store and two not in store
    assert (tmp_path / store.row(one)["files"][0]).read_bytes() == b"picture"
    assert store.add(made(sweep, two)) and len(file.read_text().splitlines()) == 2
    (tmp_path / store.row(one)["files"][0]).unlink()
    assert one not in sweep.SweepStore(tmp_path)  # a picture that was removed is made again
    file.write_text("something else\n")
    with pytest.raises(ValueError, match="no row of a sweep"):
        sweep.SweepStore(tmp_path)


@pytest.fixture
def pile(pytestconfig, sweep, graph):
    """A function from where variants were found to a pile of three for two hosts, and the three."""
    module = pytestconfig.zmagic_script("sweeps.pile")
    variants = varied(sweep, graph, "Text Energy.prompt=a,b,c")

    def opened(*found: str):
        at = {variant.digest: host for variant, host in zip(variants, found, strict=False)}
        return module.Pile(variants, ["A", "B"], 2, at), variants

    return opened


def test_what_fails_on_one_host_is_tried_on_another_and_given_up_in_the_end(pile):
    pile, (one, two, three) = pile()
    assert pile.take("A") is one and pile.give_back("A")
    assert pile.take("A") is two  # not the one that it has failed in
    assert pile.take("B") is one and not pile.give_back("B")
    assert pile.take("B") is three
    pile.settle("A")
    pile.settle("B")
    assert pile.take("A") is None and pile.is_over()


def test_the_only_host_that_is_up_tries_again(pile):
    pile, (one, *_) = pile()
    pile.take("A")
    pile.down("B")
    pile.give_back("A")
    assert pile.take("A") is one


def test_what_a_host_has_begun_earlier_is_left_to_it_while_it_is_up(pile):
    pile, (one, two, three) = pile("B", "B")
    assert pile.take("A") is three and pile.take("B") is one
    pile.down("B")
    pile.settle("A")
    assert pile.take("A") is two


def test_a_host_waits_for_the_last_variant_of_another_and_takes_it_over(pile):
    pile, (one, two, three) = pile()
    for each in (one, two):
        assert pile.take("A") is each
        pile.settle("A")
    assert pile.take("B") is three
    taken = []
    waiting = threading.Thread(target=lambda: taken.append(pile.take("A")), daemon=True)
    waiting.start()
    pile.down("B")
    pile.give_back("B")
    waiting.join(SECONDS)
    assert taken == [three]


def test_no_picture_is_left_out_of_the_sheets(pytestconfig, sweep, graph, tmp_path):
    results = pytestconfig.zmagic_script("sweeps.results")
    seeds = results.ROWS + 3
    variants = varied(sweep, graph, "Text Energy.prompt=a,b", seeds=tuple(range(seeds)))
    store = sweep.SweepStore(tmp_path)
    for number, variant in enumerate(variants):
        store.add(made(sweep, variant, _png((number, 0, 0))))
    (sheet,) = results.write_sheets(store, variants, tmp_path)
    with Image.open(sheet) as opened:
        reds = {red for _, (red, green, blue) in opened.getcolors(1 << 16) if green == blue == 0}
    assert reds >= set(range(2 * seeds))
    results.write_table(store, variants, tmp_path / "table.csv")
    lines = (tmp_path / "table.csv").read_text(encoding="utf-8").splitlines()
    assert lines[0].startswith("file,Text Energy.prompt,seed,energy Text,seconds,host")
    assert len(lines) == 1 + 2 * seeds and ",b,26,0.25,1.5,http://a," in lines[-1]


def _png(color: tuple[int, int, int]) -> bytes:
    stream = io.BytesIO()
    Image.new("RGB", (8, 8), color).save(stream, "png")
    return stream.getvalue()
