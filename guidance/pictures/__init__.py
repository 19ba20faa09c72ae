"""What energies share of pictures: regions, references, crops, color spaces, preprocessing."""
