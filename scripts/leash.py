"""Run a command that ends with whoever started it, even one that is killed.

    python scripts/leash.py COMMAND...

Standard input is the leash: its end is the end of the process that holds the other side. To end
the command, close it: on Windows a process that is told to end has no time to end another one.
"""

import os
import signal
import subprocess
import sys
import threading

# Seconds that a command has to end by itself before it is killed; a frozen one cannot.
GRACE = 20.0


def main(command: list[str]) -> int:
    """Return the command's exit status."""
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(1))
    child = subprocess.Popen(command, stdin=subprocess.DEVNULL)
    threading.Thread(target=_end_with_input, args=(child,), daemon=True).start()
    try:
        return child.wait()
    except KeyboardInterrupt:  # the terminal has told the child, too
        return 1
    finally:
        _end(child)


def _end_with_input(child: subprocess.Popen) -> None:
    while os.read(sys.stdin.fileno(), 1):
        pass
    _end(child)


def _end(child: subprocess.Popen) -> None:
    if child.poll() is not None:
        return
    child.terminate()
    try:
        child.wait(GRACE)
    except subprocess.TimeoutExpired:
        child.kill()


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
