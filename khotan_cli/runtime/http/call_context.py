"""The context of one call, which auth strategies read from `request.extensions["khotan"]`."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass

import httpx

from khotan_cli.errors import AuthError
from khotan_cli.runtime.http.token_cache import TokenCache
from khotan_cli.runtime.http.variables import EnvVarStore, Var, VarStore

EXTENSION = "khotan"


@dataclass
class CallContext:
    """One call of a plug.

    `vars` are the resolved values (name → value). `base_url` is the plug's, with variables filled in and without a
    trailing slash. `reload` reads the variables from the store again, replaces `vars`, and returns them.
    """

    plug: str
    endpoint: str
    vars: Mapping[str, str]
    base_url: httpx.URL
    store: VarStore
    tokens: TokenCache
    reload: Callable[[], Awaitable[Mapping[str, str]]]
    secret_names: frozenset[str] = frozenset()

    def secrets(self) -> list[str]:
        """Values of secret variables, which must not be shown."""
        return [self.vars[name] for name in self.secret_names if name in self.vars]

    def value(self, text: str | Var) -> str:
        """The text itself, or the value of the variable. Raises AuthError (var_missing) for a variable without a value."""
        if isinstance(text, str):
            return text
        value = self.vars.get(text.name)
        if value is None:
            # A plug without a migrated database cannot store the value.
            first = ["khotan migrate"] if isinstance(self.store, EnvVarStore) else []
            raise AuthError(
                f"Variable {text.name!r} of plug {self.plug!r} is not set",
                plug=self.plug,
                endpoint=self.endpoint,
                code="var_missing",
                hint=f"Set it, or the environment variable {text.env_name(self.plug)}.",
                next=[*first, f"khotan plug vars {self.plug} set {text.name} --stdin"],
            )
        return value

    def template(self, text: str | Var) -> str:
        """Like `value`, with each `{name}` in the text replaced by that variable's value."""
        result = self.value(text)
        for name, value in self.vars.items():
            result = result.replace("{" + name + "}", value)
        return result


def context_of(request: httpx.Request) -> CallContext:
    """The context of a request; an empty one if the auth is used with a plain httpx client."""
    context = request.extensions.get(EXTENSION)
    if isinstance(context, CallContext):
        return context

    async def nothing() -> Mapping[str, str]:
        return {}

    base = request.url.copy_with(raw_path=b"/")
    return CallContext("", "", {}, base, EnvVarStore(), TokenCache(), nothing)
