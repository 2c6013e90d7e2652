"""What `make bench` prints, and how it ends."""

from __future__ import annotations

import json
import subprocess
from pathlib import Path

import pytest

from bench._report import report

ROOT = Path(__file__).resolve().parents[1]


@pytest.mark.parametrize(
    ("ratio", "code"), [(0.49, 1), (0.5, 0), (2.0, 0), (2.01, 1)], ids=["below", "lower", "upper", "above"]
)
def test_a_report_is_one_line_with_ratios_bounds_and_machine(
    ratio: float, code: int, capsys: pytest.CaptureFixture[str]
) -> None:
    bound = {"ofPeer": 0.5}
    assert report("x", {"ofPeer": ratio, "other": 1.0}, at_least=bound, at_most={"ofPeer": 2.0}, rows=3) == code
    [line] = capsys.readouterr().out.splitlines()
    document = json.loads(line)
    assert document["ok"] is (code == 0) and document["missed"] == (["ofPeer"] if code else [])
    assert document["ratios"] == {"ofPeer": ratio, "other": 1.0} and document["rows"] == 3
    assert document["bounds"] == {"ofPeer": {"atLeast": 0.5, "atMost": 2.0}}
    assert document["machine"]["cores"] and document["machine"]["processor"] and document["machine"]["python"]


@pytest.mark.parametrize(
    ("endings", "failed"), [([0, 0], []), ([1, 0], [0]), ([0, 3], [1]), ([1, 0, 1], [0, 2])], ids=str
)
def test_every_benchmark_runs_and_the_failed_ones_are_named(
    tmp_path: Path, endings: list[int], failed: list[int]
) -> None:
    scripts = [tmp_path / f"bench_{number}.py" for number in range(len(endings))]
    for script, code in zip(scripts, endings, strict=True):
        script.write_text(f"import sys\nprint({script.name!r})\nsys.exit({code})\n")
    command = ["make", "--no-print-directory", "benches", f"BENCHES={' '.join(map(str, scripts))}"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.stdout.split() == [script.name for script in scripts]
    assert (done.returncode == 0) == (not failed)
    assert [number for number, script in enumerate(scripts) if str(script) in done.stderr] == failed


def test_every_script_prints_its_report() -> None:
    scripts = [path for path in (ROOT / "bench").glob("*.py") if not path.name.startswith("_")]
    assert len(scripts) >= 5
    for script in scripts:
        text = script.read_text("utf-8")
        assert "from bench._report import report" in text and "sys.exit(main())" in text, script.name
