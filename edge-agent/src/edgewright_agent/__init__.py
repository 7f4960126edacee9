"""The agent of an edge node: a supervisor without an engine, and the server process that it starts."""
