"""How often one user may call, and how often somebody may try a password. In memory, of a bounded number of users."""

import time
from collections import OrderedDict
from dataclasses import dataclass

USERS = 10_000


@dataclass
class Spent:
    minute: int = 0
    second: int = 0
    in_minute: int = 0
    in_second: int = 0


@dataclass(frozen=True)
class Allowance:
    """What is left for a user after a call."""

    allowed: bool
    limit: int
    remaining: int
    reset: int
    retry_after: int

    @property
    def headers(self) -> dict[str, str]:
        told = {
            "x-ratelimit-limit": str(self.limit),
            "x-ratelimit-remaining": str(self.remaining),
            "x-ratelimit-reset": str(self.reset),
        }
        return told if self.allowed else {**told, "retry-after": str(self.retry_after)}


class UserLimits:
    """So many calls in each minute and each second of the clock, for each user."""

    def __init__(self, per_minute: int, per_second: int) -> None:
        self._per_minute, self._per_second = per_minute, per_second
        self._users: OrderedDict[str, Spent] = OrderedDict()

    def take(self, user: str, now: float | None = None) -> Allowance:
        moment = time.time() if now is None else now
        spent = self._users.setdefault(user, Spent())
        self._users.move_to_end(user)
        if len(self._users) > USERS:
            self._users.popitem(last=False)
        minute, second = int(moment // 60), int(moment)
        if spent.minute != minute:
            spent.minute, spent.in_minute = minute, 0
        if spent.second != second:
            spent.second, spent.in_second = second, 0
        reset = int(60 - moment % 60) + 1
        if spent.in_minute >= self._per_minute:
            return Allowance(False, self._per_minute, 0, reset, reset)
        left = self._per_minute - spent.in_minute
        if spent.in_second >= self._per_second:
            return Allowance(False, self._per_minute, left, reset, 1)
        spent.in_minute += 1
        spent.in_second += 1
        return Allowance(True, self._per_minute, left - 1, reset, 0)


class LoginAttempts:
    """So many wrong passwords for a name within a minute; then nothing is tried for the rest of it."""

    def __init__(self, most: int = 10, seconds: float = 60.0) -> None:
        self._most, self._seconds = most, seconds
        self._failed: OrderedDict[str, list[float]] = OrderedDict()

    def wait(self, name: str, now: float | None = None) -> int:
        """Seconds until the next attempt; 0 if it may be made now."""
        moment = time.monotonic() if now is None else now
        recent = [when for when in self._failed.get(name, ()) if moment - when < self._seconds]
        if len(recent) < self._most:
            return 0
        return max(1, int(self._seconds - (moment - recent[0])) + 1)

    def failed(self, name: str, now: float | None = None) -> None:
        moment = time.monotonic() if now is None else now
        recent = [when for when in self._failed.get(name, ()) if moment - when < self._seconds]
        self._failed[name] = [*recent[-self._most :], moment]
        self._failed.move_to_end(name)
        if len(self._failed) > USERS:
            self._failed.popitem(last=False)

    def succeeded(self, name: str) -> None:
        self._failed.pop(name, None)
