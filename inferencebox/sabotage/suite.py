"""The suite as the runner sees it: which scenario claims to notice what, and the verdicts of a run of some of them."""

import json
import tempfile
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from inferencebox.errors import SetupProblem
from inferencebox.journal import RUN_FILE, read
from inferencebox.waiting import SCALE_VARIABLE, timeout_scale

from . import pytests

Event = Mapping[str, object]
OPTIONS = ("-q", "-p", "no:cacheprovider")
ALONE_SECONDS = 8.0
"""Scenarios that take less in all are run by one process."""
START_SECONDS = 60.0
SLOWNESS = 6.0
WORST = ("failed", "error", "known gap", "passed", "not exercised")


@dataclass(frozen=True)
class Claim:
    """What a scenario says of itself."""

    id: str
    test: str
    title: str
    sabotage: tuple[str, ...]
    seconds: float
    tests: tuple[str, ...] = ()
    """All there are of it: one for each of its parameters."""


@dataclass(frozen=True)
class Verdict:
    """What became of a scenario: passed, failed, error, not exercised, or (it gave none) missing.

    Args:
        stayed_green: of a scenario with several tests those that passed although another did not: `[parameter]`.
    """

    verdict: str
    first_line: str = ""
    seconds: float = 0.0
    stayed_green: tuple[str, ...] = ()


def claims() -> dict[str, Claim]:
    """All scenarios there are tests of, by ID."""
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "claims.json"
        (output,) = pytests.run([[*OPTIONS, "--collect-only", "--claims", str(file), "tests"]], {}, START_SECONDS * 2)
        if not file.exists():
            raise SetupProblem(
                f"the scenarios could not be collected: {_last_line(output)}", "run `pytest --collect-only`"
            )
        found = json.loads(file.read_text())
    return {
        name: Claim(
            name,
            entry["test"],
            entry["title"],
            tuple(entry["sabotage"]),
            float(entry["seconds"]),
            tuple(entry["tests"]),
        )
        for name, entry in found.items()
    }


@dataclass(frozen=True)
class Suite:
    """Runs scenarios against one platform.

    Args:
        jobs: how many at the same time, at most.
    """

    claims: Mapping[str, Claim]
    instance: str
    jobs: int

    def run(
        self, names: Iterable[str], patience: float = 1.0, settings: Mapping[str, str] | None = None
    ) -> dict[str, Verdict]:
        """The verdicts of some scenarios; those that gave none (the run hung or died) are `missing`.

        Args:
            patience: waits for what is promised are that much shorter than this machine's (`IBOX_TIMEOUT_SCALE`).
            settings: further environment of the runs.
        """
        chosen = [self.claims[name] for name in dict.fromkeys(names)]
        if not chosen:
            return {}
        seconds = sum(claim.seconds for claim in chosen)
        shares = _shared_out(chosen, self.jobs if seconds > ALONE_SECONDS else 1)
        limit = START_SECONDS + SLOWNESS * (seconds + 30 * len(chosen))
        found: dict[str, Verdict] = {}
        with tempfile.TemporaryDirectory(prefix="inferencebox-sabotage-") as folder:
            folders = [Path(folder) / str(number) for number in range(len(shares))]
            runs = [
                [
                    *OPTIONS,
                    "--reuse",
                    "--instance",
                    self.instance,
                    "--reports",
                    str(own),
                    *(claim.test for claim in share),
                ]
                for own, share in zip(folders, shares, strict=True)
            ]
            scale = patience * timeout_scale()
            pytests.run(runs, {SCALE_VARIABLE: str(scale), **(settings or {})}, limit)
            for own in folders:
                found |= verdicts(own)
        never = Verdict("missing", "the run ended before it had a verdict")
        return {claim.id: found.get(claim.id, never) for claim in chosen}


def verdicts(folder: Path) -> dict[str, Verdict]:
    """Of a run that was recorded in a folder; nothing if there is none."""
    return judged(read(folder)) if (folder / RUN_FILE).exists() else {}


def judged(events: Iterable[Event]) -> dict[str, Verdict]:
    """What a record says: the worst of each scenario's tests, but for those that can't be exercised here.

    One that leaves something out at its end, after steps that held, passed as far as this platform can show it: what
    it claims to notice must break one of those steps.
    """
    found: dict[str, Verdict] = {}
    green: dict[str, list[str]] = {}
    showed: set[object] = set()
    for event in events:
        if event["event"] == "step":
            showed.add(event.get("item"))
        if event["event"] != "verdict":
            continue
        name, seconds = str(event["scenario"]), float(str(event["seconds"]))
        in_part = event["verdict"] == "not exercised" and event.get("item") in showed
        verdict = Verdict("passed" if in_part else str(event["verdict"]), str(event.get("reason", "")), seconds)
        if verdict.verdict == "passed":
            green.setdefault(name, []).append(_parameter(str(event.get("item", ""))))
        known = found.get(name)
        if known is None or WORST.index(verdict.verdict) < WORST.index(known.verdict):
            found[name] = verdict
    return {
        name: seen if seen.verdict == "passed" else replace(seen, stayed_green=tuple(green.get(name, ())))
        for name, seen in found.items()
    }


def _parameter(item: str) -> str:
    """Of a test what tells it from the scenario's others: `[parameter]`, or its name."""
    test = item.rpartition("::")[2]
    return test[test.index("[") :] if "[" in test else test


def _shared_out(chosen: Sequence[Claim], jobs: int) -> list[list[Claim]]:
    """Between processes that run at the same time, the longest first."""
    shares: list[list[Claim]] = [[] for _ in range(min(jobs, len(chosen)))]
    for claim in sorted(chosen, key=lambda claim: -claim.seconds):
        min(shares, key=lambda share: sum(each.seconds for each in share)).append(claim)
    return [share for share in shares if share]


def _last_line(output: str) -> str:
    return next((line for line in reversed(output.splitlines()) if line.strip()), "no output")
