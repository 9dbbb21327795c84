"""The demos run by name, without anybody at the keyboard, and leave a report that can be read as a walk."""

import html
import re
import sys

import pytest

from fixtures.commands import run
from fixtures.scenario import not_exercised, scenario
from inferencebox import command_line, turns
from inferencebox.paths import project_root, state_dir
from inferencebox.report.model import Step
from inferencebox.report.reading import load
from inferencebox.scenarios import DEMOS, catalogue

ONE_OF_EACH = {catalogue()[name].feature: name for name in ("SEC-08", "SCL-10", "TRF-32", "TEN-06", "OBS-10")}
"""Of each demo a scenario that is soon over: whole demos take minutes, and each scenario is judged by itself."""
MARKERS = " or ".join(catalogue()[name].area for name in ONE_OF_EACH.values())
SECONDS = 600
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
    seconds=60,
)
@pytest.mark.parametrize("part", ["by name", "runs"])
def test_the_demos_run_unattended(platform, part, story, tmp_path):
    """Each of the five demos is found by its name, runs by itself, and leaves a report with all its steps."""
    if part == "runs":
        run_one_of_each(platform, story, tmp_path)
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


def run_one_of_each(platform, story, folder):
    assert set(ONE_OF_EACH) == set(DEMOS), "one scenario of each demo, and of no other"
    with story.when("one scenario of each demo is shown to an audience that nobody sits in"):
        done = run_pytest(
            *("--demo", "--demo-pace", "0", "--reuse", "--instance", platform.instance),
            *("--reports", str(folder), "-m", MARKERS, "-k", " or ".join(ONE_OF_EACH.values()), "tests"),
            **turns.within(state_dir(platform.instance)),
        )
    with story.then("they end by themselves, and nothing was broken"):
        assert done.returncode == 0, f"exit {done.returncode}: {done.stdout[-300:]}"
    with story.then("the audience saw steps, commands and replies"):
        for part in (*ONE_OF_EACH.values(), "When ", "Then ", "$ curl ", "200"):
            assert part in done.stdout, f"{part!r} was not shown"
    results = load(folder).results
    page = html.unescape((folder / "index.html").read_text())
    for demo, name in ONE_OF_EACH.items():
        for item in results[name].items:
            if item.verdict != "not exercised":
                with story.then(f"the report has every step of {demo}'s {item.title}, with exchanges"):
                    assert_walkable(item, page)
    if unseen := [f"{demo} ({name})" for demo, name in ONE_OF_EACH.items() if results[name].verdict != "passed"]:
        not_exercised(f"the others are shown; this platform can't show all of {', '.join(unseen)}")


def assert_walkable(item, page):
    """A test that passed can be read as a walk: its steps are all on the page, and exchanges are in them."""
    assert item.verdict == "passed", f"{item.verdict}: {item.reason}"
    steps = [part for part in item.root.parts if isinstance(part, Step)]
    assert len(steps) >= 2, f"{len(steps)} steps"
    assert any(step.exchanges for step in steps), "no exchange belongs to a step"
    missing = [step.title for step in steps if step.title not in page]
    assert not missing, f"not on the page: {missing}"
