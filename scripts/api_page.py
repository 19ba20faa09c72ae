"""Make the API pages of zmagic.guidance from its docstrings: ``make docs``."""

import pkgutil
from pathlib import Path

import pdoc
from headless import PACK, load_pack

FOLDER = PACK / "output" / "api"


def modules() -> list[str]:
    """Return what to ask pdoc for: it shows no module of a package with flat exports by itself."""
    load_pack()
    import zmagic.guidance as package

    asked, shown = [], set()
    inside = pkgutil.walk_packages(package.__path__, f"{package.__name__}.")
    for name in (package.__name__, *(module.name for module in inside)):
        if name not in shown:
            asked.append(name)
            shown.update(pdoc.extract.walk_specs([name]))
    return asked


def write(names: list[str], folder: Path) -> None:
    """Write the pages of modules into a folder."""
    pdoc.render.configure(docformat="google")
    pdoc.pdoc(*names, output_directory=folder)


def main() -> None:
    """Write all pages and print where they begin."""
    write(modules(), FOLDER)
    print(FOLDER / "zmagic" / "guidance.html")


if __name__ == "__main__":
    main()
