"""What a system is known to hold in a field, as it is kept with its ref: what was written there, and as what it came back.

`d` is a digest that was read. `d>` was written, and nothing has been read since. `w>r` was written as w, and came back as r:
the system writes it down differently (1.5 as "1.50"), and as long as it sends r it still has w.
"""

from __future__ import annotations

from collections.abc import Mapping

_THEN = ">"


def holds_value(held: str | None, digest: str) -> bool:
    """Whether the field holds the value, written or read."""
    return held is not None and digest in held.split(_THEN)


def merge_state(before: Mapping[str, str] | None, digests: Mapping[str, str], *, written: bool) -> dict[str, str]:
    """What is held after these fields were written, or read; other fields stay."""
    held = dict(before or {})
    for name, digest in digests.items():
        known = held.get(name)
        if known is None or not holds_value(known, digest):
            held[name] = digest + _THEN if written else _read(known, digest)
        elif not written and known == digest + _THEN:
            held[name] = digest
    return held


def _read(known: str | None, digest: str) -> str:
    """What was written and not read yet has come back in this form; else somebody has changed it."""
    return known + digest if known is not None and known.endswith(_THEN) else digest
