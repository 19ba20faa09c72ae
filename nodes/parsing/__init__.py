"""Texts that people write into widgets: prompts, colors, classes, points, numbers."""
