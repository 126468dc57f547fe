"""What happened, as the service itself tells it: the table, the lineage of the predictions, and `verify`."""

import os
import subprocess
import sys
from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Any

from rich.table import Table
from scene import Demo, console


def account(demo: Demo) -> bool:
    """The table, the lineage of the predictions, and `verify`; whether the last is clean."""
    events = {item["id"]: item for item in demo.get("events", limit=200)["items"]}
    table = Table("event", "rule", "decision", "run", "outputs", "took", box=None, pad_edge=False)
    for decision in reversed(demo.get("decisions", limit=200)["items"]):
        event = events[decision["event_id"]]
        found = [item for item in demo.runs(decision["rule"]) if item["run_key"] == decision["run_key"]]
        table.add_row(
            f"{event['type']} {event['subject']}",
            decision["rule"],
            f"{decision['outcome']} ({decision['reason']})",
            f"{decision['run_key']} {found[0]['state']}" if found else "",
            "\n".join(_outputs(demo, decision["run_key"])),
            _took(event, found[0]) if found else "",
        )
    console.rule("event → rule → decision → run → outputs", align="left")
    console.print(table)
    scored = demo.runs("score-new-users")[0]
    console.rule("where the predictions came from", align="left")
    uri = f"s3://predictions/{scored['params']['output_file_name']}"
    print(kfp_triggers(demo, "lineage", "show", uri)[0], flush=True)
    console.rule("kfp-triggers verify", align="left")
    said, code = kfp_triggers(demo, "verify")
    print(said, flush=True)
    return code == 0


def _outputs(demo: Demo, run_key: str) -> Sequence[str]:
    if not run_key:
        return []
    edges = demo.get("lineage", uri=f"run:{run_key}")["downstream"]
    return sorted({edge["target"] for edge in edges if edge["relation"] == "wrote" and edge["run_key"] == run_key})


def _took(event: Mapping[str, Any], run: Mapping[str, Any]) -> str:
    """From the event's arrival to the submission, and from there to the end."""
    arrived, submitted, ended = (
        datetime.fromisoformat(moment) if moment else None
        for moment in (event["received_at"], run["started_at"], run["ended_at"])
    )
    if arrived is None or submitted is None or ended is None:
        return ""
    return f"{(submitted - arrived).total_seconds():.1f} s + {(ended - submitted).total_seconds():.1f} s"


def kfp_triggers(demo: Demo, *argv: str) -> tuple[str, int]:
    """The command line on the demo's home."""
    env = {**os.environ, "KFP_TRIGGERS_HOME": str(demo.stack.home), "KFP_TRIGGERS_LOG__LEVEL": "error"}
    done = subprocess.run(
        [sys.executable, "-m", "service.cli", *argv], env=env, capture_output=True, text=True, check=False
    )
    return done.stdout + done.stderr, done.returncode
