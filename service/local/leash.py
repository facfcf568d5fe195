"""Run a command that dies with its parent: ``python leash.py PARENT_PID COMMAND ...``.

It runs as a file, in place of a hook between fork and exec, because such a hook is not safe in a process that has
threads. The kernel's death signal survives exec, so no server is left behind even where the parent is killed with -9.
Elsewhere than on Linux there is no such signal, and the parent's own tidying has to do.
"""

from __future__ import annotations

import contextlib
import ctypes
import os
import signal
import sys

_PR_SET_PDEATHSIG = 1


def main() -> None:
    """Tie this process to its parent, then become the command."""
    parent, command = int(sys.argv[1]), sys.argv[2:]
    if sys.platform == "linux":
        with contextlib.suppress(OSError):
            ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
    if os.getppid() != parent:  # it died before the signal was asked for
        raise SystemExit(1)
    os.execvp(command[0], command)


if __name__ == "__main__":
    main()
