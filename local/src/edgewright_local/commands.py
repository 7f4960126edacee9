"""Runs `edgewright` commands for the demo as a person would type them: their progress is told on, their answer read."""

import json
import os
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from edgewright_local.errors import LocalPlatformError
from edgewright_local.processes import ManagedProcess, ProcessSpec

POLL_SECONDS = 0.5
# Standard output is the answer and goes to a file of its own; standard error is the progress and goes to the log.
_APART = 'out=$1; shift; exec "$@" >"$out"'


@dataclass(frozen=True, slots=True)
class Commands:
    """Each command is a managed process recorded in `directory`, so that stopping the demo ends it too."""

    root: Path
    """Where it runs: the clone."""
    directory: Path
    say: Callable[[str], None]

    def answer(self, *arguments: str) -> dict[str, Any]:
        """The object in the last line of what `edgewright ARGUMENTS` printed.

        Raises:
            LocalPlatformError: the command did not print one; quotes what it said.
        """
        written, said = self.run(*arguments)
        try:
            return dict(json.loads(written.splitlines()[-1]))
        except (IndexError, ValueError):
            raise LocalPlatformError(f"edgewright {arguments[0]} failed:\n{said}") from None

    def run(self, *arguments: str) -> tuple[str, str]:
        """What the command printed, and the end of its log, of which each line is told as it comes."""
        answer = self.directory / "answer"
        command = (sys.executable, "-m", "edgewright_cli.main", *arguments)
        wrapped = ("/bin/sh", "-c", _APART, "sh", str(answer), *command)
        # matplotlib's list of fonts would go into the home of whoever runs the demo
        environment = {"MPLCONFIGDIR": str(self.directory.parent / "matplotlib"), **os.environ}
        spec = ProcessSpec(arguments[0], wrapped, self.directory, environment, working_directory=self.root)
        spec.log.unlink(missing_ok=True)
        process = ManagedProcess.start(spec)
        seen, running = 0, True
        while running:
            running = process.running
            lines = spec.log.read_text(errors="replace").splitlines()
            for line in lines[seen:]:
                self.say(f"  {line}")
            seen = len(lines)
            if running:
                time.sleep(POLL_SECONDS)
        process.stop()
        return answer.read_text(errors="replace") if answer.exists() else "", process.log_tail()
