"""The server process: source → window.push → engine.predict → Snapshot → metrics and page, and inference over HTTP."""
