"""The nodes of the pack, and what they share; ``extension`` lists them."""
