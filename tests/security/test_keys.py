"""Keys: whose signatures the entrance believes, while keys come, go, and cannot be fetched."""

import json
import uuid
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from fixtures.entrances import Issuer
from fixtures.scenario import scenario
from inferencebox.checks import answered, contains, equals, refused, served_by
from inferencebox.identity import SigningKey, token
from inferencebox.platform import Platform, Workload, WorkloadSpec
from inferencebox.probes.http import Call
from inferencebox.traffic import stream
from inferencebox.waiting import Timeouts, confirm, consistently, eventually

PARTNER = "https://login.partner.example"
JWKS = "/.well-known/jwks.json"


@scenario(
    "SEC-14",
    needs=("gateway.jwt", "mesh"),
    sabotage=("jwt.issuers-mixed", "jwt.foreign-jwks", "jwt.removed"),
    seconds=6,
)
def test_a_second_issuer_is_believed_with_its_own_keys_only(tenant_a, own_entrance, forger, story):
    """A partner's tokens are accepted beside ours; neither's key can sign for the other's issuer."""
    partner = SigningKey.generate("partner-1")
    ours = Issuer("inference-in-a-box", {"tenant": "tenant-a", "aud": "tenant-a"})
    theirs = Issuer("partner", {"tenant": "tenant-a"}, PARTNER, json.dumps(partner.jwks), audiences=("models",))
    with story.given("an entrance to A's model that trusts our JWT server and a partner with keys of its own"):
        entrance = own_entrance(tenant_a.model, ours, theirs)
    welcome = entrance.predict(tenant_a.model, token(partner, label="the partner's", iss=PARTNER, aud="models"))

    with story.then("both issuers' tokens reach the model"):
        eventually(entrance.predict(tenant_a.model, tenant_a.token), answered(200) & served_by(tenant_a.model))
        seen = eventually(welcome, answered(200) & served_by(tenant_a.model))
        eventually(tenant_a.model.arrivals(request_id=seen.request_id), equals(1), within=5)

    disguised = SigningKey(partner.private, forger.key.kid)
    forgeries = {
        "our issuer, signed by the partner's key": token(partner, label="our issuer, partner's key"),
        "the same under our key's name": token(disguised, label="our issuer and kid, partner's key"),
        "the partner's issuer, signed by our key": token(
            forger.key, label="partner, our key", iss=PARTNER, aud="models"
        ),
    }
    for what, forged in forgeries.items():
        with story.then(f"refused: {what}"):
            seen = confirm(entrance.predict(tenant_a.model, forged)(), refused(401, by="jwt", at="tier-1"))
            confirm(tenant_a.model.arrivals(request_id=seen.request_id)(), equals(0))
    with story.then("and at the platform's own entrance the partner is a stranger"):
        stranger = welcome.with_(host="localhost")
        consistently(stranger, refused(401, by="jwt", at="tier-1"), seconds=0.5)


@scenario("SEC-15", needs=("gateway.jwt", "mesh"), sabotage=("jwt.removed", "authz.any-tenant"), seconds=6)
def test_each_tenant_may_have_keys_of_its_own(tenant_a, tenant_b, own_entrance, story):
    """With keys per tenant, tenant B's key cannot make a token for tenant A, however the token is written."""
    keys = {each.name: SigningKey.generate(f"{each.name}-key") for each in (tenant_a, tenant_b)}
    issuers = [
        Issuer(name, {"tenant": name, "aud": name}, jwks=json.dumps(key.jwks), audiences=(name,))
        for name, key in keys.items()
    ]
    with story.given("an entrance to A's model that knows the key of each tenant, and one to B's"):
        to_a = own_entrance(tenant_a.model, *issuers[:1])
        to_both = own_entrance(tenant_a.model, *issuers)
        to_b = own_entrance(tenant_b.model, *issuers[1:])

    with story.then("each tenant's own key opens its own model"):
        for entrance, tenant in ((to_a, tenant_a), (to_both, tenant_a), (to_b, tenant_b)):
            genuine = token(keys[tenant.name], tenant.name)
            status = entrance.get(f"/v1/models/{tenant.model.name}", genuine)
            eventually(status, answered(200) & served_by(tenant.model))

    key_b = keys["tenant-b"]
    as_a = SigningKey(key_b.private, keys["tenant-a"].kid)
    forgeries = {
        "a token of A signed by B's key": token(key_b, "tenant-a", label="A's, by B's key"),
        "the same under the name of A's key": token(as_a, "tenant-a", label="A's, by B's key named as A's"),
        "B's audience, A's tenant claim": token(key_b, "tenant-a", label="B's audience, A's tenant", aud="tenant-b"),
        "both audiences, A's tenant claim": token(
            key_b, "tenant-a", label="both audiences", aud=["tenant-a", "tenant-b"]
        ),
    }
    for what, forged in forgeries.items():
        with story.then(f"refused at A's model: {what}"):
            for entrance in (to_a, to_both):
                call = entrance.predict(tenant_a.model, forged)
                wanted = refused(401, 403, by=("jwt", "audience", "rbac"), at="tier-1")
                seen = confirm(call(), wanted)
                confirm(tenant_a.model.arrivals(request_id=seen.request_id)(), equals(0))


READ_KEYS = (
    "import json, pathlib, sys; "
    "print(json.dumps({f.name: f.read_text() for f in pathlib.Path(sys.argv[1]).iterdir() if f.is_file()}))"
)


@dataclass(frozen=True)
class KeyServer:
    """A JWT server of the test's own.

    Args:
        keys: its directory of keys, as it sees it.
        copies: where copies of them are put here.
    """

    platform: Platform
    workload: Workload
    keys: Path
    copies: Path

    @property
    def url(self) -> str:
        return f"http://{self.workload.address}:8080{JWKS}"

    def rotate(self) -> SigningKey:
        """As an operator would: `jwt-server keys rotate`. Gives the new key."""
        self._ask("rotate")
        return self.newest()

    def newest(self) -> SigningKey:
        done = self.platform.run_in(self.workload, ["python3", "-c", READ_KEYS, str(self.keys)])
        assert done.returncode == 0, done.stderr.decode()
        for name, text in json.loads(done.stdout).items():
            (self.copies / name).write_text(text)
        return SigningKey.newest(self.copies)

    def retire(self, key: SigningKey) -> None:
        self._ask("retire", key.kid)

    def _ask(self, action: str, *words: str) -> None:
        command = ["jwt-server", "keys", action, "--keys", str(self.keys), *words]
        done = self.platform.run_in(self.workload, command)
        assert done.returncode == 0, done.stderr.decode()


@pytest.fixture
def key_server(platform: Platform, tmp_path: Path) -> Iterator[KeyServer]:
    """A JWT server that nobody else uses."""
    name = f"keys-{uuid.uuid4().hex[:6]}"
    keys = Path("/tmp") / name
    spec = WorkloadSpec(
        "default",
        name,
        name,
        program="jwt-server",
        mesh=False,
        service_account="default",
        env={"JWT_SERVER_KEYS": str(keys)},
    )
    workloads = platform.add_workloads([spec])
    yield KeyServer(platform, workloads[0], keys, tmp_path)
    platform.run_in(workloads[0], ["rm", "-rf", str(keys)])
    platform.remove_workloads(workloads)


@scenario("SEC-17", needs=("gateway.jwt", "workloads", "mesh"), sabotage="jwt.cache-forever", seconds=75)
def test_keys_roll_over_without_a_refusal(tenant_a, key_server, own_entrance, story):
    """While keys roll over, tokens of both keys are good; those of a dropped key are refused within 5 minutes."""
    old = key_server.newest()
    with story.given("a JWT server whose key has been rotated: the old and the new key are both published"):
        new = key_server.rotate()
    with story("and an entrance that fetches its keys there and keeps them as long as the platform's entrances do"):
        rolling = Issuer("rolling", {"tenant": "tenant-a"}, url=key_server.url)
        entrance = own_entrance(tenant_a.model, rolling, apart=True)
    by_old, by_new = (entrance.predict(tenant_a.model, token(key, label=key.kid)) for key in (old, new))
    with story.then("tokens of both keys are good"):
        for call in (by_old, by_new):
            eventually(call, answered(200) & served_by(tenant_a.model), streak=2)

    with stream(by_new, rate=4) as meanwhile:
        with story.when("a third key is added and the oldest is dropped"):
            newest = key_server.rotate()
            key_server.retire(old)
        with story.then("within 5 minutes the dropped key's tokens are refused"):
            limit = Timeouts.current().key_dropped
            eventually(by_old, refused(401, by="jwt", at="tier-1"), streak=3, within=limit, every=1)
        with story.then("by then the newest key's are good"):
            eventually(entrance.predict(tenant_a.model, token(newest, label=newest.kid)), answered(200), within=5)
        with story.then("and the remaining key's were good all the time"):
            window = meanwhile.window()
            assert window.errors == 0, f"tokens of a valid key were refused during the rollover: {window}"
            assert window.requests >= 4, f"too few requests to tell: {window}"


@scenario(
    "SEC-16",
    needs=("gateway.jwt", "outages"),
    sabotage=("jwt.removed", "jwt-server.forgets-keys"),
    seconds=12,
)
def test_without_the_jwt_server_the_door_stays_shut_to_strangers(
    platform, gateway, tenant_a, forger, own_entrance, alone, story
):
    """With the JWT server down, its tokens stay good, bad ones are refused, and without keys nobody gets in."""
    good = gateway.predict(tenant_a.model, tenant_a.token)
    bad = gateway.predict(tenant_a.model, forger.foreign_key()).called("a prediction with a forged token")
    none = gateway.predict(tenant_a.model).called("a prediction without a token")
    with story.given("a token that works, with the JWT server up"):
        eventually(good, answered(200))
    with story("and an entrance that never could fetch any keys"):
        nowhere = Issuer("never-seen", {"tenant": "tenant-a"}, url="http://127.0.0.1:9/jwks.json")
        unknowing = own_entrance(tenant_a.model, nowhere).predict(tenant_a.model, tenant_a.token)
        eventually(unknowing, refused(401, by="jwt", at="tier-1"), streak=2)
        eventually(good, answered(200), streak=3)
    with story("and one that fetches its keys every second"):
        ours = Issuer("inference-in-a-box", {"tenant": "tenant-a"}, keep="1s")
        curious = own_entrance(tenant_a.model, ours, apart=True)
        eventually(curious.predict(tenant_a.model, tenant_a.token), answered(200), streak=3)
    alone()
    platform.stop("jwt-server")
    try:
        with story.when("the JWT server is down"):
            consistently(good, answered(200) & served_by(tenant_a.model), seconds=1)
        for call in (bad, none):
            with story.then(f"refused all the same: {call}"):
                seen = consistently(call, refused(401, by="jwt", at="tier-1"), seconds=0.5)
                confirm(tenant_a.model.arrivals(request_id=seen.request_id)(), equals(0))
        with story.then("the entrance that has no keys refuses even genuine tokens, rather than none"):
            consistently(unknowing, refused(401, by="jwt", at="tier-1"), seconds=0.5)
        with story.then("and the platform's own entrance still knows its keys"):
            consistently(good, answered(200), seconds=0.5)
        with story.then("and so does the one that would have fetched them again by now, and opens to nobody else"):
            consistently(curious.predict(tenant_a.model, tenant_a.token), answered(200), seconds=2)
            consistently(curious.predict(tenant_a.model, bad.token), refused(401, by="jwt", at="tier-1"), seconds=0.5)
    finally:
        platform.start("jwt-server")
    with story.when("it is back"):
        eventually(good, answered(200) & served_by(tenant_a.model), streak=3)
    with story.then("it signs with the same key as before: old tokens are as good as new ones"):
        same = SigningKey.newest(platform.signing_keys).public_jwk == forger.key.public_jwk
        assert same, "the JWT server came back with another key: tokens from before are worth nothing to it"
        seen = eventually(Call("GET", platform.endpoint("jwt-server"), JWKS), answered(200))
        published = [(each["kid"], each["n"]) for each in seen.json()["keys"]]
        confirm(published, contains((forger.key.kid, forger.key.public_jwk["n"])))
    with story("an entrance that is new, and fetches its keys only now, takes an old token and no forged one"):
        anew = own_entrance(tenant_a.model, Issuer("inference-in-a-box", {"tenant": "tenant-a"}), apart=True)
        eventually(anew.predict(tenant_a.model, tenant_a.token), answered(200) & served_by(tenant_a.model))
        for call in (bad, anew.predict(tenant_a.model, bad.token)):
            consistently(call, refused(401, by="jwt", at="tier-1"), seconds=0)
