"""From traces to a signed, published release; one module for each stage, see docs for the line."""
