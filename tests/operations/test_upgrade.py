"""Another version of a part takes the place of the one that runs, and nobody who asks notices."""

from collections.abc import Mapping
from pathlib import Path

import yaml

from fixtures.limits import LimitedFactory
from fixtures.releases import Releases
from fixtures.scenario import not_exercised, scenario
from fixtures.story import Story
from fixtures.tenants import Tenant
from inferencebox.checks import at_least, contains, equals, refused, that
from inferencebox.errors import SetupProblem
from inferencebox.platform import Platform
from inferencebox.release import Release
from inferencebox.traffic import Stream
from inferencebox.waiting import Timeouts, confirm, eventually

LIMITER = "ratelimit"
REPLACED = (LIMITER, "envoy-gateway")
"""The limiter; and, where that starts the limiter, the control plane of tier 1, which learns its version anew."""
EARLIER: Mapping[str, object] = yaml.safe_load((Path(__file__).parent / "earlier_limiter.yaml").read_text())
LONGEST = 1800.0
PER_MINUTE = 3


@scenario(
    "OPS-14",
    needs=("gateway", "models", "ratelimit", "upgrade"),
    sabotage="limiter.fails-closed",
    exclusive=True,
    seconds=60,
)
def test_a_part_is_upgraded_by_its_pin_and_no_request_fails(
    platform: Platform, limited: LimitedFactory, releases: Releases, tenant_a: Tenant, story: Story
) -> None:
    """The limiter, which tier 1 asks about every request, is upgraded by its pin under traffic: no request fails.

    The platform is first given an earlier version of it, by a release with that one pin otherwise, then its own again:
    both under traffic. Which one runs is asked of the processes; that it limits is seen.
    """
    own, earlier = releases.as_it_is, releases.with_pins("earlier-limiter", EARLIER)
    try:
        releases.build(earlier, LIMITER)
    except SetupProblem as problem:
        not_exercised(f"no earlier version of the limiter can be had here: {problem.what}")
    wide = limited("demo", tenant_requests_per_minute=100_000)
    narrow = limited("strict", tenant_requests_per_minute=PER_MINUTE)
    ask = wide.gateway.predict(tenant_a.model, tenant_a.token).called("a prediction during the upgrade")
    beyond = narrow.gateway.predict(tenant_a.model, tenant_a.token).called("more than a tenant may ask in a minute")
    limits = refused(429, by="ratelimit", at="tier-1")

    def versions() -> set[str]:
        return {program.told for program in platform.running(LIMITER)}

    def runs(release: Path) -> None:
        pinned = _pinned(Release.load(release))
        is_it = that(f"only {' or '.join(sorted(pinned))}", lambda told: bool(told) and told <= pinned)
        story.note("running", ", ".join(eventually(versions, is_it, within=Timeouts.current().upgraded)))
        eventually(beyond, limits, streak=2, within=Timeouts.current().limiter_return)

    with story.given("an earlier version of the limiter, and the platform's own: two"):
        confirm(_pinned(Release.load(earlier)) & _pinned(Release.load(own)), equals(set()))
    with Stream(ask, rate=10, seconds=LONGEST) as traffic:
        traffic.collect(30)
        try:
            with story.given("the platform, brought up with an earlier version of its limiter, which limits"):
                releases.bring_up(earlier, REPLACED)
                runs(earlier)
        finally:
            with story.when("it is brought up with the pin of its own release"):
                traffic.mark("upgrade")
                said = releases.bring_up(own, REPLACED)
        with story.then("that version runs, and limits"):
            confirm(said, contains("changed now"))
            runs(own)
        with story.then("the same command again changes nothing"):
            confirm(releases.bring_up(own), contains("nothing changed"))
        traffic.collect(30)
    story.plot("requests during the upgrade", traffic.plot())
    with story.then("not one request failed, on the way there and back"):
        window = traffic.window()
        story.note("traffic", f"{window}; of it since the upgrade began: {traffic.window('upgrade')}")
        confirm(window.requests, at_least(100))
        confirm(window.errors, equals(0))


def _pinned(release: Release) -> set[str]:
    """What a process of its limiter says of itself, or its node of it."""
    pin = release.programs[LIMITER]
    module = {f"{pin.module.module} {pin.module.version or pin.version}"} if pin.module else set()
    return module | {release.images[LIMITER].reference}
