"""The documents are there, lead somewhere, and the commands in them work."""

import os
import re
import shlex
import subprocess
import sys
from dataclasses import dataclass

from fixtures.scenario import scenario
from inferencebox.evidence import note
from inferencebox.paths import project_root

DOCUMENTS = (
    "README.md",
    "docs/architecture.md",
    "docs/providers.md",
    "docs/releases.md",
    "docs/results.md",
    "docs/writing-a-scenario.md",
    "manifests/README.md",
)
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


def run(*command):
    path = f"{os.path.dirname(sys.executable)}{os.pathsep}{os.environ['PATH']}"
    outer = {name: value for name, value in os.environ.items() if not name.startswith("PYTEST_")}
    done = subprocess.run(
        command,
        cwd=project_root(),
        env={**outer, "PATH": path, "COLUMNS": "200"},
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=180,
        check=False,
    )
    note(" ".join(command), f"exit {done.returncode}\n{done.stdout[-3000:]}{done.stderr[-1000:]}")
    return done


def complaint(command):
    """Why a command of a document would not work; nothing if it would, or if it is none of ours."""
    program, *words = command.words
    program = os.path.basename(program)
    if program == "ibox":
        return _ibox(words)
    if program == "make":
        done = run("make", "-n", *words)
        return "" if done.returncode == 0 else done.stderr.strip()
    if program == "pytest" or words[:2] == ["-m", "pytest"]:
        arguments = words[2:] if words[:2] == ["-m", "pytest"] else words
        done = run(sys.executable, "-m", "pytest", "-p", "no:cacheprovider", "--collect-only", "-qq", *arguments)
        return "" if done.returncode == 0 else (done.stderr or done.stdout).strip()[-300:]
    return ""


def _ibox(words):
    own = words[: words.index("--")] if "--" in words else words
    if any(own[: len(one.split())] == one.split() for one in HARMLESS) or "--help" in own:
        done = run("ibox", *words)
        return "" if done.returncode == 0 else done.stderr.strip()
    names = []
    for word in own:
        if word.startswith("-") or (names and not _is_group(names)):
            break
        names.append(word)
    asked = run("ibox", *names, "--help")
    if asked.returncode != 0:
        return f"there is no ibox {' '.join(names)}"
    options = [word.partition("=")[0] for word in own if word.startswith("-")]
    unknown = [option for option in options if not re.search(rf"(?<![\w-]){re.escape(option)}(?![\w-])", asked.stdout)]
    return f"ibox {' '.join(names)} knows no {', '.join(unknown)}" if unknown else ""


def _is_group(names):
    return "Commands" in run("ibox", *names, "--help").stdout


@scenario(
    "OPS-13",
    why_no_sabotage="its subject is the documents, not what runs; the test shows that a wrong command is noticed",
    seconds=25,
)
def test_the_documents_hold_what_they_say(story):
    """Every document is there, its links lead somewhere, and the commands in it work as they are written."""
    root = project_root()
    with story.then("the documents are there and say something"):
        missing = [name for name in DOCUMENTS if not (root / name).is_file() or len((root / name).read_text()) < 200]
        assert not missing, f"missing or empty: {', '.join(missing)}"
    texts = {name: (root / name).read_text() for name in DOCUMENTS}
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
        wrong = [f"{command}: {why}" for command in found.values() if (why := complaint(command))]
        assert not wrong, wrong[0] if len(wrong) == 1 else f"{len(wrong)} do not, the first: {wrong[0]}"
    with story.then("and a command that does not would have been noticed"):
        for words in (("ibox", "upp"), ("ibox", "up", "--fast"), ("make", "coffee")):
            assert complaint(Command("nowhere", words)), f"{' '.join(words)} was not noticed"
