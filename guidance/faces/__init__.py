"""What energies share of faces: points, location, crops, detections, face networks."""
