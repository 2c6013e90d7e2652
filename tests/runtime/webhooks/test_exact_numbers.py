"""Numbers of an event's JSON reach the handler as they were sent, however long they are."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from khotan_cli.runtime.content.json_text import NotJson, load_json
from tests.support.flows import connection
from tests.support.webhooks import send, served_app, wait_for, webhook_project

NUMBERS = [0, -1, 2**53 + 1, 2**63 - 1, 2**63, -(2**63) - 1, 2**64, 10**19 + 1, -(10**40) - 7, int("9" * 400)]
HANDLER = """
import json

@wire.catch("order.exact")
async def exact(event: Event[Any]) -> None:
    kinds = {type(number).__name__ for number in event.data["deep"][0]["numbers"]}
    values = {"id": json.dumps([event.data["deep"][0]["numbers"], sorted(kinds), event.data["half"]])}

    async def save(session: Any) -> None:
        await session.execute(text("INSERT INTO seen (id, amount) VALUES (:id, 0)"), values)

    await event.ctx.write("save", save)
"""


@pytest.mark.timeout(120)
def test_integers_of_any_length_stay_integers(database_url: str, tmp_path: Path) -> None:
    project = webhook_project(tmp_path, database_url, wire=HANDLER)
    document = {"id": "evt_1", "type": "order.exact", "amount": 1, "deep": [{"numbers": NUMBERS}], "half": 0.5}
    ours = "SELECT id FROM seen WHERE amount = 0"
    with served_app(project) as served, connection(database_url) as run:
        assert send(served.url, document).status_code == 202
        wait_for(lambda: len(run(ours)) == 1, "the first delivery")
        (event,) = run("SELECT id FROM khotan_webhook_events")
        replayed = project.khotan("wire", "replay", str(event[0]), "--handler", "shop.exact")
        assert replayed.code == 0, replayed.stdout
        wait_for(lambda: len(run(ours)) == 2, "the replay")
        kept = [json.loads(row[0]) for row in run(ours)]
        served.stop()
    assert kept == [[NUMBERS, ["int"], 0.5]] * 2


def wrapped(number: str) -> bytes:
    return b'{"text": "123456789012345678901234567890 \\" 1", "n": ' + number.encode() + b"}"


@pytest.mark.parametrize("digits", [1, 18, 19, 20, 308, 309, 400, 4300])
@pytest.mark.parametrize("sign", ["", "-"])
def test_integers_are_read_exactly(digits: int, sign: str) -> None:
    text = sign + "9" * digits
    found = load_json(wrapped(text))
    assert (type(found["n"]), found["n"]) == (int, int(text))
    assert found["text"] == '123456789012345678901234567890 " 1'


@pytest.mark.parametrize(
    "number",
    [
        "9" * 4301,
        "9" * 400 + ".5",
        "9" * 400 + "e1",
        "0" * 20,
        "0" * 19 + "1",
        "9" * 20 + "x",
        "1e999",
        "--" + "9" * 20,
    ],
)
def test_what_is_no_number_is_refused(number: str) -> None:
    with pytest.raises(NotJson):
        load_json(wrapped(number))
