"""Global options of one command line, and the settings derived from them."""

from __future__ import annotations

from contextlib import AbstractContextManager
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from khotan_cli.client import ApiClient
    from khotan_cli.settings import Settings


class Options:
    """The global options `--url` and `--cwd`."""

    def __init__(self) -> None:
        self.reset()

    def reset(self) -> None:
        self.url = ""
        self.cwd = ""

    def settings(self) -> Settings:
        """The project's settings. Raises ConfigError."""
        from khotan_cli.settings import load_settings

        return load_settings(None, url=self.url)

    def client(self, *, engine: bool = False) -> AbstractContextManager[ApiClient]:
        """A client of the management API: the running server's, or the app in this process.

        engine: also run flows in this process, unless another process does.
        """
        from khotan_cli.in_process import open_client

        return open_client(self.settings(), engine=engine)


options = Options()
