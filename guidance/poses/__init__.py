"""Poses of people: key points in heat maps, the orders of networks, and people in pictures."""
