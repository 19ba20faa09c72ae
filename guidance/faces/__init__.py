"""Faces for all energies that need them: points, location, crops, detections, networks."""
