"""The servers of `khotan dev`: a server that ends with its parent process, and a reloader that ends with its server."""

from __future__ import annotations

import logging
import multiprocessing
import os
import sys
import threading
from multiprocessing.connection import wait
from socket import socket
from typing import Any

import uvicorn
from uvicorn.supervisors.watchfilesreload import WatchFilesReload

from khotan_cli.runtime.redaction.log_filter import mask_stream

STOP_SECONDS = 10.0
"""How long a server may take to answer open requests and shut the app down. After that its process is killed."""

logger = logging.getLogger("uvicorn.error")


def _mask_output() -> None:
    """Mask the secrets that the process knows in what the app writes and logs."""
    mask_stream("stdout")
    mask_stream("stderr")


class ChildServer(uvicorn.Server):
    """A server that stops when its parent process ends, even if the parent is killed.

    multiprocessing gives each process that it starts a sentinel of its parent: a pipe that the system closes when the parent
    ends (a process handle on Windows). No signal is needed, so SIGKILL makes no difference.
    """

    def run(self, sockets: list[socket] | None = None) -> None:
        """Serve until stopped, or until the parent process ends."""
        parent = multiprocessing.parent_process()
        if parent is not None:
            threading.Thread(target=self._follow, args=(parent.sentinel,), daemon=True).start()
        _mask_output()
        self.config.configure_logging()  # again: its handlers must write to the masked streams
        super().run(sockets)

    def _follow(self, sentinel: int) -> None:
        wait([sentinel])
        self.should_exit = True
        # A request that never ends, or an app that blocks its event loop, must not keep the process alive.
        threading.Event().wait(STOP_SECONDS)
        os._exit(1)


class Reloader(WatchFilesReload):
    """uvicorn's reloader, with a limit on how long it waits for its server to stop."""

    def restart(self) -> None:
        """Stop the server and start it again. Kills a server that does not stop in time."""
        self._stop_server()
        super().restart()

    def shutdown(self) -> None:
        """Stop the server for good. Kills a server that does not stop in time."""
        self._stop_server()
        super().shutdown()

    def _stop_server(self) -> None:
        if sys.platform == "win32":  # uvicorn stops it with Ctrl-C there
            return
        self.process.terminate()
        self.process.join(STOP_SECONDS)
        if self.process.is_alive():
            logger.warning("The app did not stop within %.0f seconds. Its process is killed.", STOP_SECONDS)
            self.process.kill()
            self.process.join()


def serve(app: str, *, reload: bool, **options: Any) -> None:
    """Serve an app ("module:attribute") with uvicorn's options until a signal ends it.

    Raises SystemExit if the app cannot be served. No server process is left when this function returns or raises.
    """
    if sys.platform == "win32":
        options["loop"] = "khotan_cli.runtime.event_loop:new_event_loop"
    if not reload:
        _mask_output()
        uvicorn.run(app, **options)
        return
    config = uvicorn.Config(app, reload=True, **options)
    listener = config.bind_socket()
    try:
        Reloader(config, target=ChildServer(config).run, sockets=[listener]).run()
    except KeyboardInterrupt:
        return  # Ctrl-C is the normal way to stop
    finally:
        for child in multiprocessing.active_children():
            child.kill()
