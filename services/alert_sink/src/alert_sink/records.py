"""What arrived, in the order of arrival."""

import time
from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass, field

REMEMBERED = 1000


@dataclass(frozen=True)
class Notification:
    """One message.

    Args:
        at: when it arrived, seconds since 1970.
        channel: ``slack`` or ``email``.
        title: of a Slack message's attachments, or a mail's subject.
        text: everything else that a person would read.
    """

    at: float
    channel: str
    sender: str
    recipients: tuple[str, ...]
    title: str
    text: str


@dataclass
class Records:
    """The last notifications."""

    kept: deque[Notification] = field(default_factory=lambda: deque(maxlen=REMEMBERED))

    def add(self, channel: str, sender: str, recipients: Sequence[str], title: str, text: str) -> None:
        self.kept.append(Notification(time.time(), channel, sender, tuple(recipients), title, text))

    def find(self, since: float = 0, channel: str = "", contains: str = "") -> list[Notification]:
        """Those that arrived since then, by this channel (default: any), with this text in them."""
        return [
            each
            for each in self.kept
            if each.at >= since and channel in ("", each.channel) and contains in f"{each.title}\n{each.text}"
        ]
