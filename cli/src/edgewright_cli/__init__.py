"""The person's door: `edgewright …` and the kubectl plugin. Commands parse, call one function of a part, and print."""
