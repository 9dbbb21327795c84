"""What is wrong with the machine is said early, in one line, with what to do."""

import os
from pathlib import Path

import pytest

from fixtures.commands import run_ibox
from fixtures.scenario import scenario

EARLY_SECONDS = 20
OLD_GO = "#!/bin/sh\necho 'go version go1.10 linux/amd64'\n"


@pytest.fixture
def machine(tmp_path):
    """Runs our command line with every tool of this machine, but without some, and with others in place."""

    def run(*command, without=(), instead=None):
        folder = tmp_path / f"bin-{len(list(tmp_path.iterdir()))}"
        folder.mkdir()
        for entry in reversed(os.environ["PATH"].split(os.pathsep)):
            for tool in Path(entry).glob("*") if os.access(entry, os.R_OK | os.X_OK) else ():
                link = folder / tool.name
                link.unlink(missing_ok=True)
                if tool.name not in without:
                    link.symlink_to(tool)
        for name, script in (instead or {}).items():
            (folder / name).unlink(missing_ok=True)
            (folder / name).write_text(script)
            (folder / name).chmod(0o755)
        state = str(tmp_path / "state")
        return run_ibox(*command, timeout=120, without=", ".join(without), PATH=str(folder), IBOX_STATE=state)

    run.state = tmp_path / "state"
    return run


@scenario(
    "OPS-01",
    why_no_sabotage="its subject is the machine before a platform exists; the test takes tools away itself",
    seconds=10,
    exclusive=True,  # it times a command, most of whose seconds are the start of Python
)
def test_a_missing_tool_is_said_at_once(machine, story):
    """A tool that is missing or too old is named in one line with what to do, before anything is begun."""
    with story.given("with everything there, the doctor is content"):
        healthy = machine("doctor")
        assert healthy.returncode == 0, f"exit {healthy.returncode}: {healthy.stderr}"
    with story.when("nsenter and curl are missing, and Go is one of long ago"):
        done = machine("doctor", without=["nsenter", "curl"], instead={"go": OLD_GO})
    with story.then("the doctor says so in one line, with what to do first"):
        assert done.returncode == 2, f"exit {done.returncode}"
        assert_one_line(done.stderr, "install util-linux")
    with story.then("and of each tool what is wrong with it"):
        said = {line.split(":")[0].split(maxsplit=1)[1]: line for line in done.stdout.splitlines()}
        assert "install util-linux" in said["user namespaces"], said["user namespaces"]
        assert "Fix: install curl" in said["curl"], said["curl"]
        assert "none on PATH that is new enough" in said["go"], said["go"]
    with story.then(f"ibox up says so within {EARLY_SECONDS} s, and leaves nothing behind"):
        done = machine("up", "--instance", "nowhere", without=["nsenter"])
        assert done.returncode == 2, f"exit {done.returncode}: {done.stderr}"
        assert_one_line(done.stderr, "install util-linux")
        assert done.seconds < EARLY_SECONDS, f"it took {done.seconds:.1f} s"
        assert not list(machine.state.glob("*")), f"left behind: {list(machine.state.glob('*'))}"


def assert_one_line(text, fix):
    lines = text.strip().splitlines()
    assert len(lines) == 1, f"wanted one line, got {len(lines)}: {text!r}"
    assert lines[0].startswith("ibox: "), f"it says {lines[0]!r}"
    assert f"Fix: {fix}" in lines[0], f"no fix {fix!r} in {lines[0]!r}"
