"""Start of a child process: `python -m edgewright_agent.tied PARENT MODULE ARGUMENTS...`. It dies with its parent.

Without this a server whose supervisor was killed alone would keep the socket and serve beside its successor.
"""

import ctypes
import os
import runpy
import signal
import sys
from typing import Final

_PR_SET_PDEATHSIG: Final = 1


def tie(parent: int) -> bool:
    """Have the kernel kill this process when its parent ends; false where the parent has ended already."""
    library = ctypes.CDLL(None, use_errno=True)
    if library.prctl(_PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0):
        raise OSError(ctypes.get_errno(), "prctl(PR_SET_PDEATHSIG) was refused")
    return os.getppid() == parent


def command(module: str, *arguments: str) -> list[str]:
    """The command line of a child of this process."""
    return [sys.executable, "-m", "edgewright_agent.tied", str(os.getpid()), module, *arguments]


def main() -> None:
    """Become the module, tied to the parent."""
    parent, module = int(sys.argv[1]), sys.argv[2]
    if not tie(parent):
        sys.exit(f"{module}: the process that started it has ended")
    sys.argv = sys.argv[2:]
    runpy.run_module(module, run_name="__main__", alter_sys=True)


if __name__ == "__main__":
    main()
