"""Runs in the Job, beside the suite: prints the record as it grows, with all that lies beside it.

One event a line, each with its number before it, so that whoever reads on after a break knows where they were.

Its argument is the folder of the results. It ends when the suite has.
"""

import json
import signal
import sys
import time
from collections.abc import Iterator
from pathlib import Path

from inferencebox.job.inside import ENDED
from inferencebox.journal import RUN_FILE, attachment_text

PAUSE = 0.3


def events(folder: Path) -> Iterator[dict[str, object]]:
    """Events as they are written, until the suite has ended; a line that is not whole yet is waited for."""
    position = 0
    while True:
        ended = (folder / ENDED).exists()
        whole, position = _grown(folder / RUN_FILE, position)
        for line in whole:
            event: dict[str, object] = json.loads(line)
            if event.get("event") == "attachment" and "file" in event:
                event["body"] = attachment_text(folder, event)
                del event["file"]
            yield event
        if ended:
            return
        time.sleep(PAUSE)  # files tell nobody that they have grown


def _grown(file: Path, position: int) -> tuple[list[bytes], int]:
    try:
        with file.open("rb") as record:
            record.seek(position)
            new = record.read()
    except FileNotFoundError:
        return [], position
    end = new.rfind(b"\n") + 1
    return new[:end].splitlines(), position + end


def main() -> None:
    signal.signal(signal.SIGTERM, lambda *_: None)  # the suite's last words come after the pod was told to end
    for number, event in enumerate(events(Path(sys.argv[1])), 1):
        print(number, json.dumps(event, ensure_ascii=False, separators=(",", ":")), flush=True)


if __name__ == "__main__":
    main()
