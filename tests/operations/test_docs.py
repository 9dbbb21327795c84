"""The documents are there, lead somewhere, and the commands in them work."""

import contextlib
import io
import json
import os
import re
import shlex
import sys
from dataclasses import dataclass

import typer

from fixtures.commands import run
from fixtures.scenario import scenario
from inferencebox.cli import app
from inferencebox.paths import project_root

DOCUMENTS = (
    "README.md",
    "docs/architecture.md",
    "docs/figures.md",
    "docs/providers.md",
    "docs/releases.md",
    "docs/results.md",
    "docs/telemetry.md",
    "docs/writing-a-scenario.md",
    "manifests/README.md",
)
SECONDS = 180
SHELLS = {"sh", "bash", "shell", "console"}
HARMLESS = ("doctor", "releases")
"""Subcommands that change nothing: they are run as they stand. Of others it is checked that they are understood."""
FENCE = re.compile(r"^```(\S*)[^\n]*\n(.*?)^```", re.DOTALL | re.MULTILINE)
LINK = re.compile(r"\[[^\]]*\]\(([^)#\s]+)(?:#[^)]*)?\)")
PLACEHOLDER = re.compile(r"[A-Z]{2,}|<[^>]+>|\.\.\.|\$")


@dataclass(frozen=True)
class Command:
    """One command of a document."""

    document: str
    words: tuple[str, ...]

    def __str__(self):
        return f"{' '.join(self.words)} (in {self.document})"


def commands(text, document):
    """The commands in a document's shell blocks; of a console's block only what is typed."""
    for language, body in FENCE.findall(text):
        if language not in SHELLS:
            continue
        for line in body.replace("\\\n", " ").splitlines():
            typed = line.removeprefix("$ ").strip()
            if language == "console" and not line.startswith("$ "):
                continue
            try:
                words = shlex.split(typed, comments=True)
            except ValueError:
                continue
            while words and re.fullmatch(r"\w+=\S*", words[0]):
                words = words[1:]
            if words[:2] == ["uv", "run"]:
                words = words[2:]
            if words and not any(PLACEHOLDER.search(word) for word in words):
                yield Command(document, tuple(words))


def asked(*command, stdin=""):
    path = f"{os.path.dirname(sys.executable)}{os.pathsep}{os.environ['PATH']}"
    return run(*command, timeout=SECONDS, stdin=stdin, PATH=path)


def complaints(commands):
    """Why commands of a document would not work; nothing of those that would, or that are none of ours."""
    ask = {"ibox": _ibox, "make": _make}
    programs = [(command, *_program(command.words)) for command in commands]
    for command, program, words in programs:
        if program in ask and (why := ask[program](words)):
            yield f"{command}: {why}"
    asked = [(command, words) for command, program, words in programs if program == "pytest"]
    for (command, _), why in zip(asked, _pytest([words for _, words in asked]), strict=True):
        if why:
            yield f"{command}: {why}"


def _program(words):
    """What a command starts, and its arguments."""
    program, *arguments = words
    if arguments[:2] == ["-m", "pytest"]:
        return "pytest", arguments[2:]
    return os.path.basename(program), arguments


def _make(words):
    done = asked("make", "-n", *words)
    return "" if done.returncode == 0 else done.stderr.strip()


def _ibox(words):
    """Harmless ones are run; the others are only read, by the command line's own parser."""
    if any(words[: len(one.split())] == one.split() for one in HARMLESS):
        done = asked("ibox", *words)
        return "" if done.returncode == 0 else done.stderr.strip()
    command, rest = typer.main.get_command(app), list(words)
    try:
        with contextlib.redirect_stdout(io.StringIO()):
            while rest and hasattr(command, "get_command"):
                name = rest.pop(0)
                command = command.get_command(command.context_class(command), name)
                if command is None:
                    return f"there is no command {name}"
            command.make_context("ibox", rest)
    except typer.Exit:  # it was asked for help
        return ""
    except typer.TyperException as problem:
        return str(problem)
    return ""


# one process collects for all: most of the time goes into starting
COLLECT = """
import contextlib, io, json, sys, pytest
for words in json.load(sys.stdin):
    said = io.StringIO()
    with contextlib.redirect_stdout(said), contextlib.redirect_stderr(said):
        code = pytest.main(["-p", "no:cacheprovider", "--collect-only", "-qq", *words])
    print(json.dumps(said.getvalue().strip()[-300:] if code else ""))
"""


def _pytest(commands):
    """What pytest says against each of its commands."""
    done = asked(sys.executable, "-c", COLLECT, stdin=json.dumps(commands))
    return [json.loads(line) for line in done.stdout.splitlines()]


@scenario(
    "OPS-13",
    why_no_sabotage="its subject is the documents, not what runs; the test shows that a wrong command is noticed",
    seconds=8,
)
def test_the_documents_hold_what_they_say(story):
    """Every document is there, its links lead somewhere, and the commands in it work as they are written."""
    root = project_root()
    with story.then("the documents are there and say something"):
        missing = [name for name in DOCUMENTS if not (root / name).is_file() or len((root / name).read_text()) < 200]
        assert not missing, f"missing or empty: {', '.join(missing)}"
    more = {str(path.relative_to(root)) for path in (root / "docs").glob("*.md")}
    texts = {name: (root / name).read_text() for name in sorted({*DOCUMENTS, *more})}
    with story.then("their links to other files lead there"):
        broken = [
            f"{name} -> {target}"
            for name, text in texts.items()
            for target in LINK.findall(text)
            if "://" not in target
            and not target.startswith("mailto:")
            and not (root / name).parent.joinpath(target).exists()
        ]
        assert not broken, "; ".join(broken)
    found = {command.words: command for name, text in texts.items() for command in commands(text, name)}
    with story.then(f"the {len(found)} different commands in them work as written"):
        assert "ibox" in {os.path.basename(words[0]) for words in found} | {
            "ibox" for words in found if words[0] == "make"
        }, "no document says how to start"
        wrong = list(complaints(found.values()))
        assert not wrong, wrong[0] if len(wrong) == 1 else f"{len(wrong)} do not, the first: {wrong[0]}"
    with story.then("and a command that does not would have been noticed"):
        wrong = [
            ("ibox", "upp"),
            ("ibox", "up", "--fast"),
            ("make", "coffee"),
            ("pytest", "--fast"),
            ("pytest", "nowhere"),
        ]
        unnoticed = len(wrong) - len(list(complaints(Command("nowhere", words) for words in wrong)))
        assert not unnoticed, f"{unnoticed} of {len(wrong)} wrong commands were not noticed"
