"""Release files: what they say, and how mistakes in them are said."""

from pathlib import Path

import pytest
from programs_kit import release

from inferencebox.errors import SetupProblem
from inferencebox.paths import programs_dir
from inferencebox.programs.sources.go import check_pin
from inferencebox.release import DEFAULT_RELEASE, Release
from inferencebox.support import Level, Range, findings

LOCAL_PROGRAMS = {
    "kube-apiserver",
    "kube-controller-manager",
    "kube-scheduler",
    "kubectl",
    "etcd",
    "envoy-gateway",
    "ai-gateway-controller",
    "ai-gateway-extproc",
    "ratelimit",
    "pilot-discovery",
    "pilot-agent",
    "envoy",
    "redis-server",
    "iptables",
    "prometheus",
    "alertmanager",
}


def test_every_release_there_is_loads() -> None:
    assert DEFAULT_RELEASE in Release.names()
    for name in Release.names():
        assert Release.load(name).name == name


def test_the_default_release_has_what_the_local_provider_runs() -> None:
    assert set(Release.load(DEFAULT_RELEASE).programs) >= LOCAL_PROGRAMS


def test_the_default_release_pins_what_go_mod_pins() -> None:
    for item in Release.load(DEFAULT_RELEASE).items.values():
        if item.module:
            check_pin(item, programs_dir())


def test_a_program_has_its_layers_version() -> None:
    chosen = Release.load(DEFAULT_RELEASE)
    assert chosen.programs["kubectl"].version == chosen.layers["kubernetes"].version
    assert chosen.programs["kubectl"].layer == "kubernetes"


def test_an_unknown_release_names_those_there_are() -> None:
    with pytest.raises(SetupProblem, match=rf"unknown release 1999\.01\. Fix: choose one of: .*{DEFAULT_RELEASE}"):
        Release.load("1999.01")


def test_a_path_that_is_not_there_is_said(tmp_path: Path) -> None:
    with pytest.raises(SetupProblem, match="there is no release file"):
        Release.load(tmp_path / "none.yaml")


def test_an_unknown_program_names_those_there_are(tmp_path: Path) -> None:
    chosen = release(tmp_path / "r.yaml", ONE_LAYER)
    with pytest.raises(SetupProblem, match=r"no program other\. Fix: choose from: tool"):
        chosen.select(["other"])


ONE_LAYER = """
    tools:
      version: v1.2.3
      purpose: a test
      programs:
        tool: {purpose: a test, version_check: {pattern: x}}
"""

MISTAKES = {
    "no version": ("tools: {purpose: a test}", "layers.tools.version: Field required"),
    "unknown word": ("tools: {purpose: a, version: v1, colour: red}", "layers.tools.colour: Extra inputs"),
    "no source": ("tools: {purpose: a, version: v1, programs: {tool: {purpose: a}}}", "no source"),
    "package without module": (
        "tools: {purpose: a, version: v1, programs: {tool: {purpose: a, package: example.org/x}}}",
        "program tool has a package, but layer tools no go module",
    ),
    "short digest": (
        "tools: {purpose: a, version: v1, programs: {tool: {purpose: a, image: "
        "{reference: r/x, path: x, digest: 'sha256:12'}}}}",
        "is not sha256: and 64 hexadecimal digits",
    ),
    "a launcher of another name": (
        "tools: {purpose: a, version: v1, programs: {tool: {purpose: a, deb: {packages: [x], launchers: {y: [z]}}}}}",
        "program tool has a deb source without a launcher of that name",
    ),
    "one program twice": (
        "{a: {purpose: a, version: v1, programs: {t: {purpose: a, version_check: {pattern: x}}}}, "
        "b: {purpose: a, version: v1, programs: {t: {purpose: a, version_check: {pattern: x}}}}}",
        "program t is in two layers, a and b",
    ),
}


@pytest.mark.parametrize(("layers", "said"), MISTAKES.values(), ids=MISTAKES)
def test_a_mistake_is_said_in_one_line(tmp_path: Path, layers: str, said: str) -> None:
    with pytest.raises(SetupProblem) as problem:
        release(tmp_path / "r.yaml", layers)
    assert said in problem.value.what
    assert "\n" not in str(problem.value)


def test_a_file_that_is_not_yaml_is_said_in_one_line(tmp_path: Path) -> None:
    path = tmp_path / "r.yaml"
    path.write_text("a: [")
    with pytest.raises(SetupProblem, match="cannot be read") as problem:
        Release.load(path)
    assert "\n" not in str(problem.value)


def layers_at(**versions: str) -> str:
    return "\n".join(f"    {name.replace('_', '-')}: {{version: {v}, purpose: a}}" for name, v in versions.items())


def test_the_default_release_is_refused_nowhere() -> None:
    levels = {finding.level for finding in findings(Release.load(DEFAULT_RELEASE))}
    assert Level.REFUSE not in levels


def test_istio_on_a_kubernetes_it_was_not_tested_on_is_a_warning(tmp_path: Path) -> None:
    chosen = release(tmp_path / "r.yaml", layers_at(istio="v1.26.2", kubernetes="v1.33.4"))
    (finding,) = findings(chosen)
    assert finding.level is Level.WARN
    assert "istio 1.26 is documented for kubernetes 1.29 to 1.32, this release has 1.33" in finding.text


def test_ai_gateway_on_an_older_envoy_gateway_is_refused(tmp_path: Path) -> None:
    chosen = release(tmp_path / "r.yaml", layers_at(ai_gateway="v1.0.0", envoy_gateway="v1.7.1", kubernetes="v1.33.4"))
    refused = [finding.text for finding in findings(chosen) if finding.level is Level.REFUSE]
    assert any("ai-gateway 1.0 is documented for envoy-gateway 1.8 or newer" in text for text in refused)


def test_a_version_that_nobody_looked_up_is_refused(tmp_path: Path) -> None:
    chosen = release(tmp_path / "r.yaml", layers_at(istio="v1.99.0", kubernetes="v1.33.4"))
    (finding,) = findings(chosen)
    assert finding.level is Level.REFUSE
    assert "istio 1.99" in finding.text


def test_versions_are_compared_as_numbers(tmp_path: Path) -> None:
    chosen = release(tmp_path / "r.yaml", layers_at(a="v1.0.0", b="v1.10.0"))
    bounds = Range(layer="a", line="1.0", needs="b", lowest="1.9", outside=Level.REFUSE, source="a test")
    assert findings(chosen, [bounds]) == []


def test_a_release_can_say_only_what_it_has_otherwise(tmp_path: Path) -> None:
    base = release(tmp_path / "base.yaml", ONE_LAYER)
    text = f"""
name: "other"
based_on: {tmp_path / "base.yaml"}
layers:
  tools: {{version: v2.0.0}}
  more: {{version: v1, purpose: a test}}
"""
    (tmp_path / "other.yaml").write_text(text)
    other = Release.load(tmp_path / "other.yaml")
    assert (other.name, other.about) == ("other", base.about)
    assert other.programs["tool"].version == "v2.0.0"
    assert set(other.layers) == {"tools", "more"}


def test_a_release_can_take_away_what_another_has(tmp_path: Path) -> None:
    release(tmp_path / "base.yaml", ONE_LAYER)
    changed = "layers: {tools: {programs: {tool: null}}}"
    (tmp_path / "other.yaml").write_text(f"name: other\nbased_on: {tmp_path / 'base.yaml'}\n{changed}\n")
    assert not Release.load(tmp_path / "other.yaml").programs


def test_a_release_can_be_based_on_one_that_is_based_on_another(tmp_path: Path) -> None:
    release(tmp_path / "base.yaml", ONE_LAYER)
    (tmp_path / "second.yaml").write_text(f"based_on: {tmp_path / 'base.yaml'}\nabout: second\n")
    (tmp_path / "third.yaml").write_text(f"name: third\nbased_on: {tmp_path / 'second.yaml'}\n")
    third = Release.load(tmp_path / "third.yaml")
    assert (third.name, third.about, set(third.programs)) == ("third", "second", {"tool"})


def test_a_release_based_on_itself_is_refused(tmp_path: Path) -> None:
    (tmp_path / "a.yaml").write_text(f"based_on: {tmp_path / 'b.yaml'}\n")
    (tmp_path / "b.yaml").write_text(f"based_on: {tmp_path / 'a.yaml'}\n")
    with pytest.raises(SetupProblem, match="based on itself"):
        Release.load(tmp_path / "a.yaml")
