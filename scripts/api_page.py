"""Make the API pages of zmagic.guidance from its docstrings: ``make docs``."""

import pkgutil

import pdoc
from headless import PACK, load_pack

FOLDER = PACK / "output" / "api"


def modules() -> list[str]:
    """What pdoc is to be asked for: of a package with flat exports it shows no module by itself."""
    load_pack()
    import zmagic.guidance as package

    asked, shown = [], set()
    inside = pkgutil.walk_packages(package.__path__, f"{package.__name__}.")
    for name in (package.__name__, *(module.name for module in inside)):
        if name not in shown:
            asked.append(name)
            shown.update(pdoc.extract.walk_specs([name]))
    return asked


def main() -> None:
    """Write the pages and print where they begin."""
    pdoc.render.configure(docformat="google")
    pdoc.pdoc(*modules(), output_directory=FOLDER)
    print(FOLDER / "zmagic" / "guidance.html")


if __name__ == "__main__":
    main()
