"""The model gateway: verifies releases for the operator and serves their files to the nodes, by digest."""
