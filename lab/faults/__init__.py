"""What breaks while a sweep runs, on purpose: ``python -m lab.faults``.

``sweeping`` runs the command as people do, ``hosts`` and ``cluster`` break what it works on, and
``verdict`` compares what it made with the same variants made by one host alone.
"""

import sys
from pathlib import Path

PACK = Path(__file__).resolve().parents[2]
# These scripts import each other by their names.
sys.path.append(str(PACK / "scripts"))
