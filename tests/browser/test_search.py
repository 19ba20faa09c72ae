"""Words that people search for find the node for them, typed into the search box of ComfyUI."""

import pytest

FIRST = 5
# What nothing is called, so that the results before the next word are none.
NONSENSE = "qxzjvk"

OTHERS_TOO = {  # among all nodes of ComfyUI
    "brand colors": "Color Palette Energy",
    "hex color": "Color Palette Energy",
    "color match": "Color Palette Energy",
    "portrait": "Face Identity Energy",
    "consistent character": "Face Identity Energy",
    "IPAdapter": "Face Identity Energy",
    "InstantID": "Face Identity Energy",
    "PuLID": "Face Identity Energy",
    "face swap": "Face Identity Energy",
    "logo": "Sketch Energy",
    "region": "Region by Prompt",
    "QR code": "Brightness Map Energy",
    "illusion": "Brightness Map Energy",
    "seamless texture": "Seamless Energy",
    "tileable": "Seamless Energy",
    "symmetric": "Symmetry Energy",
    "out of focus": "Sharpness Energy",
    "LPIPS": "Perceptual (LPIPS) Energy",
    "depth map": "Depth Energy",
    "pose": "Pose Energy",
    "aesthetic": "Preference Energy",
}
# ComfyUI has more than five nodes with each of these words in their names, and the frontend puts
# names before other words for a node: these find ours where the box shows extensions only.
OF_EXTENSIONS = {
    "mask": "Segmentation Energy",
    "prompt": "Text Energy",
    "guidance": "Apply Z-Magic",
}
RESULTS = """() => [...document.querySelectorAll('#results-list [role=option]')]
    .map(option => option.innerText.split('\\n')[0].trim())"""


@pytest.fixture(scope="module")
def page(frontend, server):
    """The frontend with its search box open, as a double click on the canvas opens it."""
    with frontend.opened_frontend(server, "canvas") as page:
        frontend.load_graph(page, {"nodes": [], "links": [], "version": 0.4})
        frontend.open_search(page, 800, 500)
        yield page


def first_found(page, word: str) -> list[str]:
    """The names of the first nodes that the search box lists for ``word``."""
    box = page.get_by_placeholder("Add a node")
    box.fill(NONSENSE)
    page.get_by_test_id("no-results").wait_for()
    box.fill(word)
    page.locator("#results-list [role=option]").first.wait_for()
    return page.evaluate(RESULTS)[:FIRST]


@pytest.mark.parametrize(("word", "node"), OTHERS_TOO.items())
def test_a_word_finds_its_node_among_all(page, word, node):
    assert node in first_found(page, word)


def test_common_words_find_theirs_among_the_extensions(page):
    page.get_by_role("button", name="Extensions").click()
    found = {word: first_found(page, word) for word in OF_EXTENSIONS}
    assert {word: node in found[word] for word, node in OF_EXTENSIONS.items()} == dict.fromkeys(
        OF_EXTENSIONS, True
    ), found
