"""The split test keeps both error rates it states, stops early, and never passes for lack of evidence."""

import math
import random
from collections.abc import Callable, Mapping

import httpx
import pytest

from inferencebox.probes.http import Observation, Transport
from inferencebox.splits import SplitVerdict, by_version, judge_split

CANARY = {"v1": 0.9, "v2": 0.1}


def drawing(shares: Mapping[str, float], dice: random.Random) -> Callable[[], str]:
    arms, weights = list(shares), list(shares.values())
    return lambda: dice.choices(arms, weights)[0]


def runs(
    n: int, real: Mapping[str, float], promised: Mapping[str, float], delta: float, rate: float = 1e-3
) -> list[SplitVerdict]:
    dice = random.Random(20261121)
    return [judge_split(drawing(real, dice), promised, delta, cap=20_000, alpha=rate, beta=rate) for _ in range(n)]


def share(verdicts: list[SplitVerdict], decision: str) -> float:
    return sum(verdict.decision == decision for verdict in verdicts) / len(verdicts)


def tolerable(rate: float, n: int) -> float:
    """The stated rate, and three standard deviations of what n runs can show of it."""
    return rate + 3 * math.sqrt(rate * (1 - rate) / n)


@pytest.mark.parametrize("off", [-0.06, 0.06])
def test_a_split_off_by_delta_passes_no_more_often_than_stated(off: float) -> None:
    real = {"v1": 0.5 + off, "v2": 0.5 - off}
    assert share(runs(400, real, {"v1": 0.5, "v2": 0.5}, 0.06, rate=0.05), "within") <= tolerable(0.05, 400)


def test_a_good_split_fails_no_more_often_than_stated() -> None:
    assert share(runs(400, CANARY, CANARY, 0.05, rate=0.05), "outside") <= tolerable(0.05, 400)


def test_the_canary_of_the_specification_is_judged_rightly_each_time() -> None:
    good = runs(60, CANARY, CANARY, 0.03)
    assert share(good, "within") == 1
    assert 800 < sum(verdict.n for verdict in good) / len(good) < 2600
    for real in (0.07, 0.13, 0.0, 0.5):
        bad = runs(40, {"v1": 1 - real, "v2": real}, CANARY, 0.03)
        assert share(bad, "outside") == 1


def test_a_gross_error_is_noticed_within_few_replies() -> None:
    verdicts = runs(50, {"v1": 0.5, "v2": 0.5}, CANARY, 0.03)
    assert max(verdict.n for verdict in verdicts) < 200


def test_three_arms_are_judged_together_and_keep_both_rates() -> None:
    promised = {"a": 0.2, "b": 0.3, "c": 0.5}
    assert share(runs(300, promised, promised, 0.08, rate=0.05), "outside") <= tolerable(0.05, 300)
    off = {"a": 0.28, "b": 0.22, "c": 0.5}
    assert share(runs(300, off, promised, 0.08, rate=0.05), "within") <= tolerable(0.05, 300)


def test_all_to_one_is_refuted_by_a_single_other_reply() -> None:
    replies = iter(["v2"] * 99 + ["v1"])
    verdict = judge_split(replies.__next__, {"v2": 1.0}, delta=0.01)
    assert (verdict.ok, verdict.n) == (False, 100)
    assert verdict.reason == "reply 100 came from 'v1', which is to have none"


def test_all_to_one_is_believed_once_one_percent_would_have_shown() -> None:
    verdict = judge_split(lambda: "v2", {"v1": 0.0, "v2": 1.0}, delta=0.01)
    assert verdict.ok
    assert verdict.n == math.ceil(math.log(1e-3) / math.log(0.99))


def test_lack_of_evidence_is_a_failure() -> None:
    verdict = judge_split(drawing(CANARY, random.Random(1)), CANARY, 0.03, cap=50)
    assert (verdict.ok, verdict.decision, verdict.n) == (False, "undecided", 50)
    assert str(verdict.reason).startswith("undecided after 50 replies")
    assert judge_split(iter(["v1"]).__next__, CANARY, 0.03).decision == "undecided"
    assert judge_split(iter([]).__next__, CANARY, 0.03).shares == {}


def test_the_path_ends_beyond_a_bound() -> None:
    good = judge_split(drawing(CANARY, random.Random(2)), CANARY, 0.03)
    assert len(good.path) == good.n
    assert good.path[-1] <= good.lower < min(good.path[:-1])
    assert max(good.path) < good.upper
    assert str(good).startswith("within: v1 89.9%, v2 10.1% of 1699 replies")


def test_shares_that_do_not_add_up_are_the_authors_mistake() -> None:
    with pytest.raises(ValueError, match="add up"):
        judge_split(lambda: "a", {"a": 0.5}, 0.1)
    with pytest.raises(ValueError, match="nothing to tell apart"):
        judge_split(lambda: "a", {"a": 0.5, "b": 0.5}, 0.6)


def test_a_reply_that_is_no_200_is_an_arm_nobody_promised() -> None:
    good = Observation(200, httpx.Headers({"x-model-version": "v2"}))
    assert by_version(lambda: good)() == "v2"
    assert by_version(lambda: Observation(503, body=b"no healthy upstream"))() == "503 by no-healthy-upstream at tier-1"
    assert by_version(lambda: Observation(None, error=Transport.RESET))() == "no reply: reset"
