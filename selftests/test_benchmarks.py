"""Benchmarks and their history."""

from dataclasses import replace

from inferencebox.benchmarks import REMEMBERED, Benchmark, History, Subject, regressions, typical
from inferencebox.load import Load
from inferencebox.traffic import Sample, Window

SUBJECT = Subject("local", "2026.11", "tenant-a/sklearn-iris", 4)
USUAL = Benchmark(SUBJECT, p95=0.020, throughput=100.0, at=1.0)


def test_what_is_stored_is_found_again_by_its_subject_only(tmp_path):
    history = History(tmp_path)
    assert history.of(SUBJECT) == []
    history.add(USUAL)
    history.add(replace(USUAL, subject=replace(SUBJECT, users=8)))
    assert history.of(SUBJECT) == [USUAL]
    assert history.of(replace(SUBJECT, machine="another")) == []


def test_a_quarter_worse_is_tolerated_and_more_is_told():
    assert regressions(USUAL, []) == []
    assert regressions(replace(USUAL, p95=0.025, throughput=75.0), [USUAL]) == []
    (slow,) = regressions(replace(USUAL, p95=0.0251), [USUAL])
    assert slow == "p95 was 20.0 ms and is 25.1 ms (+26%)"
    (less,) = regressions(replace(USUAL, throughput=74.0), [USUAL])
    assert less == "it gave 100.0 replies a second and gives 74.0 (-26%)"


def test_the_newest_runs_count_and_no_single_one():
    lucky = replace(USUAL, p95=0.001)
    assert regressions(USUAL, [USUAL, lucky, USUAL]) == []
    assert regressions(replace(USUAL, p95=0.040), [USUAL, *[replace(USUAL, p95=0.035)] * REMEMBERED]) == []


def test_of_several_rounds_the_median_counts_however_good_or_bad_one_was():
    rounds = [round_of(seconds) for seconds in (2.0, 0.5, 0.125)]
    assert typical(SUBJECT, rounds).p95 == 0.5
    assert typical(SUBJECT, rounds).throughput == rounds[1].throughput


def round_of(seconds):
    """One user who waits so long for each of ten replies."""
    begins = [number * seconds for number in range(10)]
    samples = tuple(Sample(begin, begin, begin + seconds, 200, None, "pod", "v1", None) for begin in begins)
    return Load(Window(samples), users=1, seconds=10 * seconds)
