"""From a CompressedModel to the nodes: observe, decide, apply; and the model gateway beside it."""
