"""A hook that posts to Slack."""

from __future__ import annotations

import os
from typing import Any

import httpx

from khotan_cli.errors import ConfigError
from khotan_cli.runtime.runs.hooks import RunInfo

_MARKS = {"completed": ":white_check_mark:", "partial": ":warning:", "failed": ":x:", "running": ":arrow_forward:"}
_SECONDS = 10.0


class SlackNotifier:
    """Posts one message per run to an incoming webhook (api.slack.com/messaging/webhooks).

        Khotan(__package__, hooks=Hooks(on_failure=SlackNotifier(env="SLACK_WEBHOOK_URL")))

    url: the webhook's URL, a secret. env: the environment variable that holds it, read when a message is sent. link: base
    URL of pages about runs; the run's id is appended. Raises ConfigError if neither `url` nor `env` is given.
    """

    def __init__(self, url: str = "", *, env: str = "", link: str = "", transport: Any = None) -> None:
        if not url and not env:
            raise ConfigError("SlackNotifier needs url or env", hint='Use SlackNotifier(env="SLACK_WEBHOOK_URL").')
        self._url, self._env, self._link, self._transport = url, env, link, transport

    async def __call__(self, run: RunInfo) -> None:
        """Post the message. Raises httpx.HTTPError if Slack rejects it, and ConfigError if the variable is not set."""
        url = self._url or os.environ.get(self._env, "")
        if not url:
            raise ConfigError(f"{self._env} is not set", hint="Set it to the URL of the Slack webhook.")
        async with httpx.AsyncClient(timeout=_SECONDS, transport=self._transport) as client:
            response = await client.post(url, json=message(run, self._link))
            response.raise_for_status()

    def __repr__(self) -> str:
        return "SlackNotifier()"


def message(run: RunInfo, link: str = "") -> dict[str, Any]:
    """Return the Slack message: a text and a block. Markup characters are escaped."""
    name = f"{run.flow} ({run.variant})" if run.variant not in (None, "default") else run.flow
    counts = ", ".join(f"{count:,} {what}" for what, count in run.counts.items() if count)
    took = f" in {run.seconds:.1f} s" if run.seconds is not None else ""
    lines = [f"{_MARKS.get(run.status, '')} *{_escaped(name)}* {run.status}{took}".strip()]
    if counts:
        lines.append(counts)
    if run.error:
        lines.append(f"> {_escaped(str(run.error.get('message', '')))[:500]}")
    if link:
        lines.append(f"<{link.rstrip('/')}/{run.id}|Run {run.id}>")
    text = "\n".join(lines)
    return {"text": text, "blocks": [{"type": "section", "text": {"type": "mrkdwn", "text": text}}]}


def _escaped(text: str) -> str:
    return text.replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")
