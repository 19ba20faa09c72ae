"""Pictures for all energies: regions, references, crops, color spaces, preprocessing."""
