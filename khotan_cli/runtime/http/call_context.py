"""What one call carries: found by auth strategies in `request.extensions["khotan"]`."""

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

    `vars` are the resolved values (name → value); `base_url` is the plug's, variables filled in, without a trailing
    slash in its path; `reload` reads the vars afresh from the store, replaces `vars`, and returns them.
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
        """The text itself, or the value of the var. Raises AuthError naming the var where it has none."""
        if isinstance(text, str):
            return text
        found = self.vars.get(text.name)
        if found is None:
            # Without a database that is migrated no plug is bound to one, and there is nowhere to store the value.
            first = ["khotan migrate"] if isinstance(self.store, EnvVarStore) else []
            raise AuthError(
                f"Plug {self.plug!r} has no value for its variable {text.name!r}",
                plug=self.plug,
                endpoint=self.endpoint,
                code="var_missing",
                hint=f"Set it, or the environment variable {text.env_name(self.plug)}.",
                next=[*first, f"khotan plug vars {self.plug} set {text.name} --stdin"],
            )
        return found

    def template(self, text: str | Var) -> str:
        """Like `value`, with `{name}` in the text replaced by that var's value."""
        found = self.value(text)
        for name, value in self.vars.items():
            found = found.replace("{" + name + "}", value)
        return found


def context_of(request: httpx.Request) -> CallContext:
    """The context of a request; a bare one where the auth is used on a plain httpx client."""
    found = request.extensions.get(EXTENSION)
    if isinstance(found, CallContext):
        return found

    async def nothing() -> Mapping[str, str]:
        return {}

    base = request.url.copy_with(raw_path=b"/")
    return CallContext("", "", {}, base, EnvVarStore(), TokenCache(), nothing)
