"""Many variants of one graph on several running hosts; ``scripts/sweep.py`` is the command.

``variations`` makes the variants, ``runs`` has a host make one, ``on_hosts`` and ``on_cluster``
share them out, ``store`` keeps what came, ``results`` writes the table and the sheets.
"""
