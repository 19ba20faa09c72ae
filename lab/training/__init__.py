"""How the demo models and the evaluators of the tables are made; see README.md in this folder.

The pack is loaded as ``zmagic``, so that what is trained here and what runs in the host share one
code for crops, preprocessing and networks.
"""

import sys

if "zmagic" not in sys.modules:
    from scripts.headless import load_pack

    load_pack()
