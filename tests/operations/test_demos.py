"""The demos run by name, without anybody at the keyboard, and leave a report that can be read as a walk."""

import re
import sys

import pytest

from fixtures.commands import run
from fixtures.scenario import not_exercised, scenario
from inferencebox import command_line, journal, turns
from inferencebox.paths import project_root, state_dir
from inferencebox.scenarios import catalogue

DEMOS = ("security", "autoscaling", "canary", "multitenancy", "observability")
ONE = "INF-01"
SECONDS = 300
WRITTEN = re.compile(r'@scenario\(\s*"([A-Z]+-\d+)".*?^def (test_\w+)', re.DOTALL | re.MULTILINE)


# one process collects for all demos: most of the time goes into starting
COLLECT = """
import sys, pytest
for demo in sys.argv[1:]:
    print(f"== {demo}", flush=True)
    pytest.main(["-p", "no:cacheprovider", "--collect-only", "-q", "-k", demo, "tests"])
"""


def collected():
    """The tests that `-k` finds for each demo."""
    parts = run(sys.executable, "-c", COLLECT, *DEMOS, timeout=SECONDS).stdout.split("== ")[1:]
    return {part.split()[0]: set(re.findall(r"::(test_\w+)", part)) for part in parts}


def run_pytest(*arguments, **environment):
    return run(*command_line.pytest("-p", "no:cacheprovider", *arguments), timeout=SECONDS, **environment)


def written():
    """Each scenario's tests, as they stand in the files: ID -> names."""
    found = {}
    for file in sorted((project_root() / "tests").rglob("test_*.py")):
        for name, test in WRITTEN.findall(file.read_text()):
            found.setdefault(name, set()).add(test)
    return found


@scenario(
    "OPS-12",
    needs=("gateway", "models"),
    why_no_sabotage="its subject is how the suite is started; what the started scenarios notice is proved with them",
    seconds=12,
)
@pytest.mark.parametrize("part", ["by name", "a run"])
def test_the_demos_run_unattended(platform, part, story, tmp_path):
    """Each of the five demos is found by its name, and a demo runs by itself and leaves a report with all its steps."""
    if part == "a run":
        run_one(platform, story, tmp_path)
        return
    with story.when("pytest is asked for each demo by its name"):
        found = collected()
    tests = written()
    empty = []
    for demo in DEMOS:
        belonging = {name for name, promise in catalogue().items() if promise.feature == demo}
        wanted = {test for name in belonging for test in tests.get(name, ())}
        with story.then(f"-k {demo} finds the {len(wanted)} scenarios of the demo that are written"):
            assert belonging, f"no scenario of the specification belongs to the demo {demo}"
            assert not wanted - found[demo], f"not found: {', '.join(sorted(wanted - found[demo]))}"
        if not wanted:
            empty.append(demo)
    if empty:
        not_exercised(f"the others are found; none of the scenarios of the demo {', '.join(empty)} is written yet")


def run_one(platform, story, folder):
    with story.when(f"{ONE} is shown to an audience that nobody sits in"):
        done = run_pytest(
            *("--demo", "--demo-pace", "0", "--reuse", "--instance", platform.instance),
            *("--reports", str(folder), "-m", "demo", "-k", ONE, "tests/traffic"),
            **turns.within(state_dir(platform.instance)),
        )
    with story.then("it ends by itself, and nothing was broken"):
        assert done.returncode == 0, f"exit {done.returncode}: {done.stdout[-300:]}"
    with story.then("the audience saw steps, commands and replies"):
        for part in (f"{ONE} ", "When ", "Then ", "$ curl ", "200"):
            assert part in done.stdout, f"{part!r} was not shown"
    with story.then("and the report has every step with its exchange"):
        events = journal.read(folder)
        steps = [event for event in events if event["event"] == "step" and event["phase"] == "end"]
        assert len(steps) >= 4, f"{len(steps)} steps"
        assert any(event["event"] == "exchange" and event["step"] for event in events), "no exchange belongs to a step"
        verdicts = [event["verdict"] for event in events if event["event"] == "verdict"]
        assert verdicts == ["passed"], f"verdicts {verdicts}"
        page = (folder / "index.html").read_text()
        missing = [step["title"] for step in steps if str(step["title"]) not in page.replace("&#x27;", "'")]
        assert not missing, f"not on the page: {missing}"
