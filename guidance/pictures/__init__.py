"""What energies share of pictures: regions, references, crops, colour spaces, preprocessing."""
