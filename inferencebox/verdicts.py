"""The verdicts on a promise (DESIGN section 1), and what they mean for whoever counts them."""

VERDICTS = ("passed", "failed", "error", "known gap", "not exercised")
"""*known gap*: it failed as `manifests/known-gaps.yaml` says it does with this version of an upstream."""
WORST_FIRST = ("failed", "error", "known gap", "not exercised", "passed")
AS_EXPECTED = ("passed", "known gap", "not exercised")
"""What a run ends well with."""
JUDGED_WELL = ("passed", "known gap")
"""The scenario ran, and saw what it should see on a healthy platform."""
