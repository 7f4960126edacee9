"""What `deploy/generate.py` writes, one module for each kind of file: path from the repository's root → text."""
