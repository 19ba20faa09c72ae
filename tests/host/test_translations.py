"""The nodes in other languages say what the nodes say, and are made from their phrases."""

import json
from pathlib import Path

import pytest

PACK = Path(__file__).resolve().parents[2]
CODES = sorted(folder.name for folder in (PACK / "locales").iterdir())
# Languages that somebody still translates: the frontend shows English where a phrase is "".
IN_WORK: tuple[str, ...] = ()
HOW = "run 'python scripts/translations.py {}'"


@pytest.fixture(scope="module")
def translations(pytestconfig):
    """The module ``scripts/translations.py``."""
    return pytestconfig.zmagic_script("translations")


@pytest.fixture(scope="module")
def schemas(translations):
    return translations.node_schemas()


@pytest.fixture(params=CODES)
def language(request, translations):
    return translations.Language(request.param)


def test_each_phrase_of_the_nodes_is_there_and_no_other(language, translations, schemas):
    assert list(language.phrases) == translations.phrases_of(schemas), HOW.format(language.code)


def test_what_is_left_to_do_is_known(language, translations):
    """Untranslated phrases, and help pages whose English page has changed since."""
    left = translations.left_to_do(language)
    in_work = language.code in IN_WORK
    assert not [each for each in left if not (in_work and each.startswith("translate: "))]
    assert in_work == bool(left), f"{language.code} is whole: take it out of IN_WORK"


def test_files_are_what_the_phrases_make(language, translations, schemas):
    for file, content in translations.files(language, schemas).items():
        assert file.read_text(encoding="utf-8") == content, HOW.format(language.code)
    pages = {page.name for page in (PACK / "web" / "docs").glob("*/*.md")}
    assert pages <= {f"{code}.md" for code in CODES}


def test_the_keys_are_those_of_the_nodes(language, schemas):
    """What no node has would be dead; a name or tooltip that no key has would stay English."""
    nodes = json.loads((language.folder / "nodeDefs.json").read_text(encoding="utf-8"))
    assert set(nodes) <= set(schemas)
    for name, node in nodes.items():
        schema = schemas[name]
        known = {each.id for each in schema.inputs}
        assert {key for key in node.get("inputs", {}) if key not in known} <= {
            f"{each.id}_{inner}" for each in schema.inputs for inner in inner_names(each)
        }
        assert {int(key) for key in node.get("outputs", {})} <= set(range(len(schema.outputs)))


def inner_names(each) -> set[str]:
    """The names of what an input that grows, or has choices, adds to a node."""
    options = [
        inner.id
        for option in getattr(each, "options", None) or ()
        for inner in getattr(option, "inputs", ())
    ]
    return {*options, *(getattr(getattr(each, "template", None), "names", ()) or ())}


@pytest.mark.parametrize(
    ("there", "fault"),
    [
        ("0.3 bis 3, 1 ist neutral.", None),
        ("0.3 bis 4, 1 ist neutral.", "numbers"),
        ("0.3 bis 3, 1 ist neutral. ", "space"),
        ("0.3 bis 3, 1 ist {neutral}.", "characters"),
        ("0.3~3, 1 ist neutral.", "characters"),
    ],
)
def test_faults_that_show_without_knowing_the_language(translations, there, fault):
    faults = translations.faults_of("1 is neutral, 0.3 to 3.", there)
    assert [fault in each for each in faults] == ([True] if fault else [])


def test_a_page_whose_text_would_be_struck_through_is_told(translations, tmp_path, monkeypatch):
    monkeypatch.setattr(translations.headless, "PACK", tmp_path)
    monkeypatch.setattr(translations.help_pages, "FOLDER", tmp_path)
    marks = f"{translations.help_pages.BEGIN}\n{translations.help_pages.END}\n"
    (tmp_path / "ZMagicText.md").write_text(marks, encoding="utf-8")
    language = translations.Language("zh")
    language.sources = {"ZMagicText": translations.page_digest("ZMagicText")}
    page = language.page("ZMagicText")
    page.parent.mkdir()
    for text, told in (("0.3~3, 4~8", True), ("0.3-3, ~~4~~", False)):
        page.write_text(marks + text, encoding="utf-8")
        assert [" ~, " in each for each in translations.left_to_do(language)] == [True] * told


def test_a_changed_text_loses_its_translation_and_is_told(
    translations, schemas, tmp_path, monkeypatch
):
    """In another folder: one phrase that no node says, and one of the nodes that is missing."""
    monkeypatch.setattr(translations.help_pages, "FOLDER", tmp_path)
    language = translations.Language("zh")
    language.folder = tmp_path / "zh"
    english = "Text Energy"
    old = dict(language.phrases)
    language.phrases = {key: there for key, there in old.items() if key != english}
    language.phrases["An old sentence."] = "\u65e7"
    left = translations.update(language, schemas, [])
    assert left[0] == "gone: 'An old sentence.' = '\u65e7'"
    assert f"translate: {english}" in left
    made = json.loads((tmp_path / "zh" / "nodeDefs.json").read_text(encoding="utf-8"))
    assert "display_name" not in made["ZMagicText"]
    assert made["ZMagicFaceIdentity"]["display_name"] == old["Face Identity Energy"]


def test_comfyui_finds_them(monkeypatch, tmp_path):
    """ComfyUI's own code reads the folder, and has nothing else of the pack in it."""
    import folder_paths
    from app.custom_node_manager import CustomNodeManager

    (tmp_path / "z-magic").symlink_to(PACK, target_is_directory=True)
    monkeypatch.setattr(folder_paths, "get_folder_paths", lambda kind: [str(tmp_path)])
    found = CustomNodeManager().build_translations()
    assert set(found) == set(CODES)
    for code, content in found.items():
        assert set(content) == {"nodeCategories", "nodeDefs"}
        file = PACK / "locales" / code / "nodeDefs.json"
        assert content["nodeDefs"] == json.loads(file.read_text(encoding="utf-8"))
