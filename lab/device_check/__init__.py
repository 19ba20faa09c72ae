"""Does Z-Magic work on this device? ``python -m lab.device_check``, at most eight minutes.

Each part runs in a process of its own, under a time limit of its own, the most important first; one
line for each, and everything in ``output/device_check.json``. On a machine without an accelerator
it does the same on the CPU, at small sizes.
"""
