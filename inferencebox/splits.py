"""Is traffic split as promised? A sequential test that stops as soon as the evidence suffices.

The maths. Replies are independent draws, of which a share p belongs to an arm (a version). The promise is p = p0; a
share that is off by `delta` or more must be noticed; what lies between is tolerated either way. For each arm and each
side there is a sequential probability ratio test (A. Wald, "Sequential Tests of Statistical Hypotheses", Annals of
Mathematical Statistics 16(2), 1945) of H0: p = p0 against H1: p = p1, with p1 = p0 + delta or p0 - delta. After each
reply the log-likelihood ratio L = ln P(replies | H1) / P(replies | H0) grows by ln(p1/p0) for a reply of the arm and by
ln((1-p1)/(1-p0)) for another.

- Outside, as soon as any L reaches ln(m / alpha), with m the number of tests (Bonferroni). Under H0 the ratio is a
  martingale of mean 1, so by Ville's inequality the probability that a good split is ever called bad is at most alpha.
- Within, as soon as every L is at ln(beta) or below at the same time. Under an H1 the inverse ratio is such a
  martingale, so the probability that a split off by delta (or more) is called good is at most beta.

Both bounds hold at any sample size, so looking after each reply costs nothing. A share of exactly 1 needs no statistics
to be refuted: one reply of another arm ends it. Reaching the cap without a decision is a failure, with that reason.
A right canary of 10 % to within 3 points takes 2000 replies on average at error rates of 1e-3, a right 50/50 to within
5 points 1900; one of 20 % in place of 10 % is noticed within 300.
"""

import contextlib
import math
from collections import Counter, deque
from collections.abc import Callable, Generator, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field

from inferencebox import evidence
from inferencebox.probes.http import Observation, quietly

ERROR_RATE = 1e-3
PLOT_LIMIT = 50.0


@dataclass(frozen=True)
class SplitVerdict:
    """What was found. `path` is the largest log-likelihood ratio after each reply, for the plot, with both bounds."""

    ok: bool
    decision: str
    """within, outside or undecided"""
    reason: str | None
    n: int
    counts: Mapping[str, int]
    expected: Mapping[str, float]
    delta: float
    upper: float
    lower: float
    path: tuple[float, ...] = field(repr=False)

    @property
    def shares(self) -> dict[str, float]:
        return {arm: count / self.n for arm, count in self.counts.items()} if self.n else {}

    @property
    def plot(self) -> dict[str, object]:
        """For `story.plot`: the shares that came, with the promised ones and the tolerated band."""
        band = {
            arm: [max(0.0, share - self.delta), min(1.0, share + self.delta)] for arm, share in self.expected.items()
        }
        shares = {arm: self.shares.get(arm, 0.0) for arm in (*self.expected, *self.counts)}
        return {"kind": "split", "requests": self.n, "shares": shares, "expected": dict(self.expected), "band": band}

    def __str__(self) -> str:
        seen = ", ".join(f"{arm} {share:.1%}" for arm, share in sorted(self.shares.items())) or "no reply"
        wish = ", ".join(f"{arm} {share:.0%}" for arm, share in sorted(self.expected.items()))
        return f"{self.decision}: {seen} of {self.n} replies; promised {wish}, to within {self.delta:.0%}"


@dataclass
class _OneSided:
    """One arm's test against one side."""

    arm: str
    hit: float
    miss: float
    ratio: float = 0.0

    @classmethod
    def against(cls, arm: str, p0: float, p1: float) -> "_OneSided":
        return cls(arm, _log_ratio(p1, p0), _log_ratio(1 - p1, 1 - p0))

    def add(self, arm: str) -> None:
        self.ratio += self.hit if arm == self.arm else self.miss


def _log_ratio(p1: float, p0: float) -> float:
    """ln(p1/p0), where a thing that can't be refutes the hypothesis under which it can't be."""
    if p0 == 0:
        return math.inf
    return -math.inf if p1 == 0 else math.log(p1 / p0)


class SequentialSplit:
    """The running test: give it one arm after another until `decision` is not None."""

    def __init__(
        self, expected: Mapping[str, float], delta: float, alpha: float = ERROR_RATE, beta: float = ERROR_RATE
    ) -> None:
        if not math.isclose(sum(expected.values()), 1.0, abs_tol=1e-9) or min(expected.values()) < 0:
            raise ValueError(f"shares must add up to 1: {dict(expected)}")
        self.expected = dict(expected)
        self.delta = delta
        self.counts: Counter[str] = Counter()
        self.path: list[float] = []
        self._tests = _tests(self.expected, delta)
        if not self._tests:
            raise ValueError(f"delta {delta} leaves nothing to tell apart for {dict(expected)}")
        self.upper = math.log(len(self._tests) / alpha)
        self.lower = math.log(beta)
        self.decision: str | None = None
        self.reason: str | None = None

    def add(self, arm: str) -> str | None:
        """Count one reply; within or outside when that is now clear."""
        self.counts[arm] += 1
        if not self.expected.get(arm):
            self.path.append(PLOT_LIMIT)
            return self._decide("outside", f"reply {self.counts.total()} came from {arm!r}, which is to have none")
        for test in self._tests:
            test.add(arm)
        worst = max(self._tests, key=lambda test: test.ratio)
        self.path.append(max(-PLOT_LIMIT, min(PLOT_LIMIT, worst.ratio)))
        if worst.ratio >= self.upper:
            return self._decide("outside", self._off(worst.arm))
        return self._decide("within", None) if worst.ratio <= self.lower else None

    def _off(self, arm: str) -> str:
        n = self.counts.total()
        return f"wanted {self.expected[arm]:.0%} from {arm!r}, got {self.counts[arm] / n:.1%} of {n} replies"

    def _decide(self, decision: str, reason: str | None) -> str:
        self.decision, self.reason = decision, reason
        return decision

    def verdict(self) -> SplitVerdict:
        n = self.counts.total()
        undecided = f"undecided after {n} replies: {dict(self.counts)} for promised {self.expected}"
        return SplitVerdict(
            ok=self.decision == "within",
            decision=self.decision or "undecided",
            reason=self.reason if self.decision else undecided,
            n=n,
            counts=dict(self.counts),
            expected=self.expected,
            delta=self.delta,
            upper=self.upper,
            lower=self.lower,
            path=tuple(self.path),
        )


def _tests(expected: Mapping[str, float], delta: float) -> list[_OneSided]:
    """The one-sided tests. Of two arms one suffices: the other's share is the rest."""
    arms = [arm for arm, share in expected.items() if share > 0]
    judged = arms[:1] if len(arms) <= 2 else arms
    return [
        _OneSided.against(arm, expected[arm], side)
        for arm in judged
        for side in (expected[arm] - delta, expected[arm] + delta)
        if -1e-12 <= side <= 1 + 1e-12
    ]


def judge_split(
    sample: Callable[[], str],
    expected: Mapping[str, float],
    delta: float,
    cap: int = 10_000,
    alpha: float = ERROR_RATE,
    beta: float = ERROR_RATE,
) -> SplitVerdict:
    """Draw replies until it is clear whether the shares are as promised.

    Args:
        sample: draws one reply and names its arm; StopIteration means there are no more.
        expected: promised share of each arm; an arm not named here is to have none.
        delta: a share off by this much must be noticed (0.03 for "7 to 13 %" of a promised 10 %).
        cap: draws after which it is undecided, which is a failure.
        alpha, beta: probability that a good split is called bad, and that one off by delta is called good.
    """
    test = SequentialSplit(expected, delta, alpha, beta)
    while test.decision is None and test.counts.total() < cap:
        try:
            arm = sample()
        except StopIteration:
            break
        test.add(arm)
    verdict = test.verdict()
    evidence.note("split", str(verdict))
    return verdict


def judge_replies(
    call: Callable[[], Observation],
    expected: Mapping[str, float],
    delta: float,
    cap: int = 10_000,
    parallel: int = 8,
    arm: Callable[[Observation], str] | None = None,
    alpha: float = ERROR_RATE,
    beta: float = ERROR_RATE,
) -> SplitVerdict:
    """`judge_split` of the replies to a call, asked so many times at once.

    Replies are counted in the order of asking, not of answering, so that a slow arm is not counted too late.

    Args:
        arm: names the arm of a reply; default its model version. A reply that is no answer is an arm of its own.
    """
    with contextlib.closing(_replies(quietly(call), parallel)) as replies:
        name = arm or version_of
        return judge_split(lambda: name(next(replies)), expected, delta, cap, alpha, beta)


def _replies(probe: Callable[[], Observation], parallel: int) -> Generator[Observation]:
    """Replies without end, with so many requests under way."""
    with ThreadPoolExecutor(parallel, thread_name_prefix="split") as pool:
        under_way = deque(pool.submit(probe) for _ in range(parallel))
        while True:
            seen = under_way.popleft().result()
            under_way.append(pool.submit(probe))
            yield seen


def by_version(call: Callable[[], Observation]) -> Callable[[], str]:
    """A sampler that names the model version of a 200 reply; anything else is an arm that nobody promised."""
    probe = quietly(call)
    return lambda: version_of(probe())


def version_of(seen: Observation) -> str:
    """The arm of a reply: the model version that gave it, or what it is if it is no answer."""
    good = seen.status == 200 and seen.error is None and seen.model_version
    return str(seen.model_version) if good else str(seen)
