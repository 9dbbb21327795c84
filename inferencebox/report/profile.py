"""The conformance profile: a small YAML file that says what was shown, for which versions, with digests."""

import hashlib
from datetime import UTC, datetime
from pathlib import Path

import yaml

from inferencebox.report.model import Run
from inferencebox.verdicts import VERDICTS

_DATA = Path(__file__).parent.parent / "data" / "scenarios.yaml"


def profile(run: Run) -> dict[str, object]:
    """The profile as data. Promises without a test in the run are listed as *not tested*."""
    return {
        "kind": "ConformanceProfile",
        "suite": "inference-in-a-box",
        "run": run.facts.get("run"),
        "date": datetime.fromtimestamp(run.began, UTC).isoformat(timespec="seconds"),
        "complete": run.exit_code is not None,
        "platform": {
            "release": run.platform.get("release") or run.facts.get("release"),
            "provider": run.facts.get("provider"),
            "versions": dict(run.versions),
            **({"seen running": dict(run.seen)} if run.seen else {}),
        },
        "machine": run.facts.get("machine"),
        "summary": {**{verdict: run.counts[verdict] for verdict in VERDICTS}, "not tested": len(run.untested())},
        "scenarios": {
            name: {"verdict": result.verdict, **({"reason": result.reason} if result.reason else {})}
            for name, result in run.results.items()
        },
        "not tested": [promise.id for promise in run.untested()],
        "digests": {
            "run.jsonl": f"sha256:{run.digest}",
            "scenarios.yaml": f"sha256:{hashlib.sha256(_DATA.read_bytes()).hexdigest()}",
        },
    }


def profile_yaml(run: Run) -> str:
    return yaml.safe_dump(profile(run), sort_keys=False, allow_unicode=True, width=120)
