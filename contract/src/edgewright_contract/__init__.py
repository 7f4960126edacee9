"""The words that every part of Edgewright shares, as types: no I/O, no engine, importable anywhere."""
