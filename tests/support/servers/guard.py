"""Run a command until standard input closes, so that it cannot outlive whoever started it, however that one ended."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[3]))

from tests.support.children import end_with_parent


def main() -> int:
    # Ctrl-C reaches the guard too. It goes on: the tests close its standard input when they end. A handler, unlike SIG_IGN, is
    # not inherited by the command.
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, lambda *_: None)
    child = subprocess.Popen(sys.argv[1:], stdin=subprocess.DEVNULL, start_new_session=True, preexec_fn=end_with_parent)

    def stop() -> None:
        sys.stdin.buffer.read()
        if child.poll() is None:
            os.killpg(child.pid, signal.SIGTERM)
            try:
                child.wait(3)
            except subprocess.TimeoutExpired:
                os.killpg(child.pid, signal.SIGKILL)

    threading.Thread(target=stop, daemon=True).start()
    return child.wait()


if __name__ == "__main__":
    sys.exit(main())
