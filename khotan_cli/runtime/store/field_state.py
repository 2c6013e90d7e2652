"""Remote field state: the digest of a field's value at a system, as written and as read back.

`d`: digest d was read. `d>`: d was written and not read since. `w>r`: w was written and read back as r, because the system
formats the value differently (1.5 as "1.50"); while the system returns r, it still has w.
"""

from __future__ import annotations

from collections.abc import Mapping

_THEN = ">"


def holds_value(held: str | None, digest: str) -> bool:
    """Whether the digest is the field's written or read value."""
    return held is not None and digest in held.split(_THEN)


def merge_state(before: Mapping[str, str] | None, digests: Mapping[str, str], *, written: bool) -> dict[str, str]:
    """Return the state after these fields were written or read. Other fields do not change."""
    held = dict(before or {})
    for name, digest in digests.items():
        known = held.get(name)
        if known is None or not holds_value(known, digest):
            held[name] = digest + _THEN if written else _read(known, digest)
        elif not written and known == digest + _THEN:
            held[name] = digest
    return held


def _read(known: str | None, digest: str) -> str:
    """Return the state after a read: the read form of a written value, or a value that was changed at the system."""
    return known + digest if known is not None and known.endswith(_THEN) else digest
