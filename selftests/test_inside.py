"""What a command wrote inside a pod came out whole, or it is noticed that it did not."""

import subprocess

import pytest

from inferencebox.errors import SetupProblem
from inferencebox.providers.kubernetes import inside, objects
from inferencebox.providers.kubernetes.platform import KubernetesPlatform


def here(argv: list[str], stdin: bytes | None = None) -> "subprocess.CompletedProcess[bytes]":
    return subprocess.run(argv, input=stdin, capture_output=True, check=False)


@pytest.mark.parametrize(("argv", "code", "written"), [
    (["printf", "%s", "a reply"], 0, b"a reply"),
    (["true"], 0, b""),
    (["sh", "-c", "echo told; exit 7"], 7, b"told\n"),
    (["printf", "two\\nlines\\n"], 0, b"two\nlines\n"),
])  # fmt: skip
def test_what_came_whole_is_as_it_was_written(argv: list[str], code: int, written: bytes) -> None:
    done = inside.whole(here(inside.marked(argv)))
    assert done is not None
    assert (done.returncode, done.stdout) == (code, written)


def test_the_command_reads_what_it_is_given() -> None:
    done = inside.whole(here(inside.marked(["cat"]), b"given"))
    assert done is not None
    assert done.stdout == b"given"


@pytest.mark.parametrize("kept", [0, 3, -1])
def test_an_output_that_was_cut_off_is_noticed(kept: int) -> None:
    done = here(inside.marked(["printf", "a reply"]))
    assert inside.whole(subprocess.CompletedProcess(done.args, 0, done.stdout[:kept], b"")) is None


def test_that_kubectl_itself_failed_is_passed_on() -> None:
    failed = subprocess.CompletedProcess(["kubectl"], 1, b"", b'Error from server (NotFound): pods "x" not found')
    assert inside.whole(failed) is failed


class LosingPlatform(KubernetesPlatform):
    """Of its first commands nothing comes out."""

    def __init__(self, losses: int) -> None:
        self.losses = losses

    def _exec(self, place: inside.Place, argv: list[str], stdin: bytes | None = None, *more: object):  # type: ignore[no-untyped-def, override]
        self.losses -= 1
        return here(argv, stdin) if self.losses < 0 else subprocess.CompletedProcess(argv, 0, b"", b"")


def test_a_command_whose_output_was_lost_is_given_once_more() -> None:
    assert LosingPlatform(1).run_beside(["printf", "a reply"]).stdout == b"a reply"


def test_an_output_that_was_lost_twice_is_told() -> None:
    with pytest.raises(SetupProblem, match=r"what printf wrote in .* was lost on the way out"):
        LosingPlatform(2).run_beside(["printf", "a reply"])


def test_so_is_one_to_prometheus(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(objects, "pod_behind", lambda *_: ("prometheus-1", 9090))
    monkeypatch.setattr(LosingPlatform, "kube", None)
    assert LosingPlatform(1)._in_prometheus("cat", "groups: []") == "groups: []"
    with pytest.raises(SetupProblem, match="Prometheus' pod cannot be told: full"):
        LosingPlatform(0)._in_prometheus("cat > /dev/null; echo full >&2; false", "groups: []")
