"""The nightly matrix: releases x providers, and what does not go together is said, not hidden."""

import json
import re
from functools import partial

import pytest

from fixtures.commands import run_ibox
from fixtures.scenario import scenario
from inferencebox.paths import manifests_dir
from inferencebox.release import DEFAULT_RELEASE, Release

SEED_A = {
    "knative-serving": "v1.14.1",
    "kserve": "v0.15.0",
}  # SPEC appendix B, D2: the first architecture's versions are a leg
NO_PLATFORM_NEEDED = "SEC-36"


@pytest.fixture
def ibox():
    """Runs ibox."""
    return partial(run_ibox, timeout=300)


@pytest.fixture
def mismatched(tmp_path):
    """A release like the default one, but with an Istio that nobody has looked up."""
    shipped = (manifests_dir() / "releases" / f"{DEFAULT_RELEASE}.yaml").read_text()
    istio = Release.load(DEFAULT_RELEASE).layers["istio"].version
    file = tmp_path / "mismatched.yaml"
    file.write_text(re.sub(rf"(?m)^    version: {re.escape(istio)}$", "    version: v1.99.0", shipped))
    return file


@scenario(
    "OPS-07",
    why_no_sabotage="its subject is how runs are arranged, not the platform; a mismatch made for it must be reported",
    seconds=20,
)
def test_the_night_runs_each_release_and_reports_what_does_not_go_together(ibox, mismatched, tmp_path, story):
    """Each release on each provider is a leg, the first architecture's versions too; a mismatch is said and not run."""
    with story.given("the legs that a night consists of"):
        listed = ibox("nightly", "--list").stdout
        for name in Release.names():
            assert re.search(rf"(?m)^{re.escape(name)}-", listed), f"release {name} is no leg of the night"
    with story.then("the versions of the first architecture are among them"):
        pinned = [{name: pin.version for name, pin in Release.load(each).layers.items()} for each in Release.names()]
        assert any(SEED_A.items() <= versions.items() for versions in pinned), f"no release has {SEED_A}"
    with story.when("a night has a leg that goes together and one that does not"):
        wanted = ("--release", DEFAULT_RELEASE, "--release", str(mismatched), "--provider", "local")
        selection = ("--", "tests", "-k", NO_PLATFORM_NEEDED, "-p", "no:randomly")
        night = ibox("nightly", *wanted, "--reports", str(tmp_path / "night"), *selection)
        outcomes = {each["leg"]: each for each in json.loads((tmp_path / "night" / "nightly.json").read_text())}
    with story.then("the first has been run and has a report of its own"):
        ran = outcomes[f"{DEFAULT_RELEASE}-local"]
        assert (ran["word"], ran["verdicts"]) == ("held", {NO_PLATFORM_NEEDED: "passed"}), f"got {ran}"
        assert (tmp_path / "night" / f"{DEFAULT_RELEASE}-local" / "index.html").exists()
    with story.then("the other was not, and the page and the summary say why"):
        refused = outcomes["mismatched-local"]
        assert (refused["word"], refused["verdicts"]) == ("refused", {}), f"got {refused}"
        assert "istio 1.99" in refused["reason"]
        for file in ("index.html", "summary.md"):
            assert refused["reason"] in (tmp_path / "night" / file).read_text()
    with story.then("what was tried held, so the night ends well"):
        assert night.returncode == 0, f"exit code {night.returncode}"
