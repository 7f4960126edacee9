"""The compression study: a grid of networks, splits, seeds and prunings, cell by cell, and the report made of it."""
