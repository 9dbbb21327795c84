"""Evidence for CNCF Kubernetes AI Conformance. Says how many requirements were verified here; never "conformant"."""

from functools import cache
from pathlib import Path
from typing import Any

import yaml

from inferencebox.report.model import Run

_SOURCE = Path(__file__).parent.parent / "data" / "cncf.yaml"


@cache
def _requirements() -> dict[str, Any]:
    loaded: dict[str, Any] = yaml.safe_load(_SOURCE.read_text(encoding="utf-8"))
    return loaded


def fragments(run: Run) -> dict[str, str]:
    """File name to YAML: one per requirement that scenarios speak to, and a summary."""
    source = _requirements()
    found = [_fragment(run, requirement) for requirement in source["requirements"]]
    files = {f"{entry['id']}.yaml": _dump(entry) for entry in found if entry["scenarios"]}
    musts = [entry for entry in found if entry["level"] == "MUST"]
    verified = [entry["id"] for entry in musts if entry["verified"]]
    summary = {
        "conformance": f"CNCF Kubernetes AI Conformance {source['version']}",
        "statement": f"{len(verified)} of {len(musts)} MUST verified here",
        "verified": verified,
        "not verified": {entry["id"]: entry["notes"] for entry in found if not entry["verified"]},
        "run": run.facts.get("run"),
        "digest": f"sha256:{run.digest}",
    }
    return {"summary.yaml": _dump(summary), **files}


def statement(run: Run) -> str:
    """One honest line."""
    return str(yaml.safe_load(fragments(run)["summary.yaml"])["statement"])


def _fragment(run: Run, requirement: dict[str, Any]) -> dict[str, Any]:
    verdicts = {
        name: run.results[name].verdict if name in run.results else "not tested" for name in requirement["scenarios"]
    }
    missing = [f"{name} {verdict}" for name, verdict in verdicts.items() if verdict != "passed"]
    return {
        "id": requirement["id"],
        "description": requirement["description"],
        "level": requirement["level"],
        "verified": bool(verdicts) and not missing,
        "scenarios": verdicts,
        "evidence": [f"index.html#{name}" for name in verdicts if name in run.results],
        "notes": requirement.get("why") or ", ".join(missing) or "all scenarios passed",
    }


def _dump(data: object) -> str:
    return yaml.safe_dump(data, sort_keys=False, allow_unicode=True, width=120)
