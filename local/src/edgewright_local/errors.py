"""What can go wrong on the way to a running platform, each with a sentence that says what to do."""


class LocalPlatformError(Exception):
    """Base of every error that this package raises on purpose; its text is meant for a person."""


class BuildError(LocalPlatformError):
    """A server binary could not be built; nothing was left in the cache."""


class ProcessError(LocalPlatformError):
    """A process did not start, did not become ready, or did not end; the text quotes its log."""


class ClusterError(LocalPlatformError):
    """The API server refused or did not finish what was asked; the text holds its own sentence."""
