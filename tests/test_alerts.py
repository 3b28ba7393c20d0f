"""The alerts of ``ops/alerts.yml``: promtool reads them, and they fire on a recorded crawl."""

from __future__ import annotations

import json
import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest
import servers

TREE = Path(__file__).resolve().parent.parent
ALERTS = TREE / "ops" / "alerts.yml"
CRAWL = Path(__file__).with_name("alerts") / "crawl.json"
#: Metrics that have no label of a set.
SERVER = ("redset_up", "redset_sets", "redset_sets_dropped", "redset_server_warnings")
#: The alerts that fire at a time of the crawl, in minutes. Its worker is killed at 3, another one
#: begins at 21, and the server ends at 25. Pages that never load are dead letters.
FIRING = {
    2: {"RedsetDeadLetters"},
    12: {"RedsetDeadLetters"},
    14: {"RedsetDeadLetters", "RedsetNoConsumer", "RedsetLateLeases"},
    # The server evicts keys.
    20: {"RedsetNoConsumer", "RedsetLateLeases", "RedsetServer"},
    # The oldest pages wait for ten minutes even after the new worker began.
    22: {"RedsetDeadLetters", "RedsetServer", "RedsetTooSlow"},
    26: {"RedsetDeadLetters"},
    28: {"RedsetDeadLetters", "RedsetDown"},
}
#: Made up: a queue that grows, whose consumers were paused; and a set of which a fifth fails.
GROWING = {
    "redset_queued_items": "9000+10x300",
    "redset_available_items": "9000+10x300",
    "redset_consumer_seen_timestamp_seconds": "0x300",
    "redset_paused": "1x300",
}
FAILING = {"redset_failures_total": "0+2x300", "redset_leases_total": "0+10x300"}

pytestmark = pytest.mark.slow(1)


@pytest.fixture
def promtool() -> str:
    found = shutil.which("promtool")
    if found is None:
        raise servers.Missing("alerts: no promtool is installed here (Debian: prometheus)")
    return found


def ran(promtool: str, *arguments: str) -> str:
    """Return the output of promtool, which must succeed."""
    ended = subprocess.run(
        [promtool, *arguments], capture_output=True, text=True, timeout=50, check=False
    )
    assert ended.returncode == 0, ended.stdout + ended.stderr
    return ended.stdout


def test_promtool_finds_the_rules_well_formed(promtool: str) -> None:
    assert "SUCCESS: 8 rules found" in ran(promtool, "check", "rules", str(ALERTS))


def firing(promtool: str, path: Path, interval: str, series: Any, expected: Any) -> None:
    """Check which alerts fire at some minutes, on these series."""
    tests = {
        "interval": interval,
        "input_series": [
            {
                "series": name + '{job="redset"' + ("}" if name in SERVER else ',set="crawl"}'),
                "values": values,
            }
            for name, values in series.items()
        ],
        "promql_expr_test": [
            {
                "expr": 'count by (alertname) (ALERTS{alertstate="firing"})',
                "eval_time": f"{minutes}m",
                "exp_samples": [
                    {"labels": f'{{alertname="{name}"}}', "value": 1} for name in sorted(names)
                ],
            }
            for minutes, names in expected.items()
        ],
    }
    file = {"rule_files": [str(ALERTS)], "evaluation_interval": interval, "tests": [tests]}
    path /= "tests.yml"  # JSON is YAML, too
    path.write_text(json.dumps(file), encoding="utf-8")
    assert "SUCCESS" in ran(promtool, "test", "rules", str(path))


def test_alerts_fire_while_a_worker_of_a_recorded_crawl_is_dead(
    promtool: str, tmp_path: Path
) -> None:
    recorded = json.loads(CRAWL.read_text(encoding="utf-8"))
    firing(promtool, tmp_path, f"{recorded['interval']}s", recorded["series"], FIRING)


@pytest.mark.parametrize(
    ("series", "expected"),
    [
        (GROWING, {90: set(), 240: {"RedsetTooSlow"}}),
        (FAILING, {8: set(), 30: {"RedsetFailing"}}),
    ],
    ids=["growing", "failing"],
)
def test_alerts_fire_on_a_queue_that_grows_and_on_jobs_that_fail(
    promtool: str, tmp_path: Path, series: Any, expected: Any
) -> None:
    firing(promtool, tmp_path, "1m", series, expected)
