"""Z-Magic guidance in pure PyTorch: no host, no widgets, usable and testable by itself."""
