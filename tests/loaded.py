"""Run a command while two busy loops share the machine: ``python -m tests.loaded make test``."""

from __future__ import annotations

import subprocess
import sys
from contextlib import ExitStack

LOOPS = 2
# A loop ends with the driver, even if that is killed: its standard input closes.
LOOP = """
import sys, threading
def busy():
    while True:
        pass
threading.Thread(target=busy, daemon=True).start()
sys.stdin.read()
"""


def main(command: list[str]) -> int:
    """The command's exit code; the loops have ended by then."""
    with ExitStack() as stack:
        for _ in range(LOOPS):
            loop = stack.enter_context(subprocess.Popen([sys.executable, "-c", LOOP], stdin=subprocess.PIPE))
            stack.callback(loop.kill)
        return subprocess.run(command, check=False).returncode


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
