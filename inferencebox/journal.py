"""The record of a run: `run.jsonl`, one JSON event per line, appended to by all processes of the run.

Every report is a rendering of this file. Each event is one append under a lock, so lines of workers never mix,
and their order is the order in which things happened. Long attachments lie beside it, named by their content.
"""

import fcntl
import hashlib
import json
import os
import shutil
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from inferencebox.errors import SetupProblem
from inferencebox.redaction import redact
from inferencebox.replacing import replace_file

RUN_FILE = "run.jsonl"
ATTACHMENTS = "attachments"
INLINE_LIMIT = 4_096
"""Bytes up to which an attachment stays inside its event."""
_SUFFIXES = {"application/json": ".json", "image/svg+xml": ".svg", "text/html": ".html", "application/yaml": ".yaml"}


def reports_problem(folder: Path, error: OSError) -> SetupProblem:
    """A report folder that can't be written to, as everybody says it."""
    why = (error.strerror or type(error).__name__).lower()
    return SetupProblem(
        f"Reports can't be written to {folder} ({why})", "make room there, or choose another folder with --reports=DIR"
    )


@dataclass(frozen=True)
class Journal:
    """Writes events of one run. Make one per process: `create` where the run begins, `attach` elsewhere."""

    folder: Path

    @classmethod
    def create(cls, folder: Path) -> "Journal":
        """Begins a new run in a folder: what an earlier run left there is replaced.

        Raises:
            SetupProblem: the folder can't be written to.
        """
        try:
            folder.mkdir(parents=True, exist_ok=True)
            shutil.rmtree(folder / ATTACHMENTS, ignore_errors=True)
            replace_file(folder / RUN_FILE, b"")
        except OSError as error:
            raise reports_problem(folder, error) from error
        return cls(folder)

    @classmethod
    def attach(cls, folder: Path) -> "Journal":
        """Continues the run that another process began."""
        return cls(folder)

    @property
    def path(self) -> Path:
        return self.folder / RUN_FILE

    def write(self, event: Mapping[str, object]) -> None:
        """Appends one event, without secrets.

        Raises:
            SetupProblem: the disk is full, the folder read-only or gone.
        """
        clean = redact(event)
        assert isinstance(clean, dict)
        try:
            if clean.get("event") == "attachment":
                self._move_body(clean)
            _append(self.path, json.dumps(clean, ensure_ascii=False, separators=(",", ":")).encode() + b"\n")
        except OSError as error:
            raise reports_problem(self.folder, error) from error

    def _move_body(self, event: dict[str, object]) -> None:
        """A long body goes into a file of its own; the event says which."""
        body = event.get("body")
        text = body if isinstance(body, str) else json.dumps(body, ensure_ascii=False)
        content = text.encode()
        if len(content) <= INLINE_LIMIT:
            return
        name = hashlib.sha256(content).hexdigest()[:32] + _SUFFIXES.get(str(event.get("mime")), ".txt")
        target = self.folder / ATTACHMENTS / name
        target.parent.mkdir(exist_ok=True)
        if not target.exists():
            replace_file(target, content)
        del event["body"]
        event["file"] = f"{ATTACHMENTS}/{name}"


def _append(path: Path, line: bytes) -> None:
    """One line, whole or not at all, also when several processes write."""
    handle = os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o644)
    try:
        fcntl.flock(handle, fcntl.LOCK_EX)
        before = os.fstat(handle).st_size
        try:
            while line:
                line = line[os.write(handle, line) :]
        except OSError:
            os.ftruncate(handle, before)
            raise
    finally:
        os.close(handle)


def read(path: Path) -> list[dict[str, object]]:
    """All events of a recorded run: of a `run.jsonl`, or of the one in a folder. A torn last line is left out.

    Raises:
        SetupProblem: there is no run, or the file is not one.
    """
    file = path / RUN_FILE if path.is_dir() else path
    try:
        lines = file.read_text(encoding="utf-8").split("\n")
    except (OSError, UnicodeDecodeError) as error:
        raise SetupProblem(f"There is no recorded run in {file}", "run the suite first, or name a run.jsonl") from error
    events = []
    for number, line in enumerate(lines, 1):
        if not line.strip():
            continue
        try:
            event = json.loads(line)
            if not isinstance(event, dict):
                raise TypeError(line)
        except (ValueError, TypeError) as error:
            if number == len(lines):
                break
            raise SetupProblem(
                f"{file} is not a recorded run (line {number})", "name a run.jsonl that the suite wrote"
            ) from error
        events.append(event)
    return events


def attachment_text(folder: Path, event: Mapping[str, object]) -> object:
    """The body of an attachment event, from the event or from its file. Empty when the file is gone."""
    if "body" in event:
        return event["body"]
    try:
        text = (folder / str(event["file"])).read_text(encoding="utf-8")
    except (OSError, KeyError):
        return ""
    return json.loads(text) if event.get("mime") == "application/json" else text
