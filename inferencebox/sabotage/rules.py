"""Changes of an object that are more than a value at a place. Each changes the document it is given."""

import json
from collections.abc import Callable, Mapping
from functools import cache
from types import MappingProxyType
from typing import Any

from inferencebox.identity import SigningKey

from .documents import Document

WIDE = 4_000_000_000


def lift_limit(document: Document, which: str) -> None:
    """Make one of the rate limits too wide to be met: that per tenant, per JWT, of all together, or of tokens."""
    for rule in _limits(document, which):
        rule["limit"]["requests"] = WIDE


def share_bucket(document: Document) -> None:
    """All tenants have the requests of one: what the limit per tenant counts, it counts of all together."""
    for rule in _limits(document, "tenant"):
        rule["clientSelectors"] = [{"headers": [{"name": "x-tenant", "type": "RegularExpression", "value": ".+"}]}]


def _limits(document: Document, which: str) -> list[Document]:
    rules = document.get("spec", {}).get("rateLimit", {}).get("global", {}).get("rules", [])
    return [rule for rule in rules if _kind_of(rule) == which]


def _kind_of(rule: Mapping[str, Any]) -> str:
    selectors = rule.get("clientSelectors", [])
    headers = frozenset(header["name"] for selector in selectors for header in selector.get("headers", []))
    if "response" in rule.get("cost", {}):
        return "tokens"
    kinds = {frozenset({"x-tenant"}): "tenant", frozenset({"x-tenant", "x-jwt-sub"}): "jwt", frozenset[str](): "global"}
    return kinds.get(headers, "")


def swap_shares(document: Document) -> None:
    """Each version gets the share of another."""
    for shares in _splits(document):
        weights = [share.get("weight", 0) for share in shares]
        for share, weight in zip(shares, reversed(weights), strict=True):
            share["weight"] = weight


def freeze_shares(document: Document) -> None:
    """The first version keeps everything, whatever is asked for."""
    for shares in _splits(document, everything=True):
        for number, share in enumerate(shares):
            share["weight"] = 0 if number else 100


def swap_canary(document: Document) -> None:
    """Of an InferenceService: canary and old version get each other's share."""
    predictor = document.get("spec", {}).get("predictor", {})
    share = predictor.get("canaryTrafficPercent", 0)
    if 0 < share < 100:
        predictor["canaryTrafficPercent"] = 100 - share


def _splits(document: Document, everything: bool = False) -> list[list[Document]]:
    """The lists of destinations among which traffic is really shared (or could be)."""
    routes = [route.get("route", []) for route in document.get("spec", {}).get("http", [])]
    least = 1 if everything else 2
    return [
        shares for shares in routes if len(shares) > 1 and sum(share.get("weight", 0) > 0 for share in shares) >= least
    ]


def ignore_headers(document: Document) -> None:
    """Of a route: nothing is chosen by a header any more."""
    spec = document.get("spec", {})
    for rule in spec.get("rules", []):
        matches = rule.get("matches", [])
        rule["matches"] = [match for match in matches if not match.get("headers")] or matches
    entries = spec.get("http", [])
    plain = [entry for entry in entries if not any("headers" in match for match in entry.get("match", []))]
    if plain:
        spec["http"] = plain


def first_provider_only(document: Document) -> None:
    """Of a route to AI providers: the one that is asked first is the only one."""
    for rule in document.get("spec", {}).get("rules", []):
        backends = rule.get("backendRefs", [])
        rule["backendRefs"] = sorted(backends, key=lambda backend: backend.get("priority", 0))[:1]


def any_audience(document: Document) -> None:
    """Of a SecurityPolicy: what a token was made for is not asked."""
    for rule in document.get("spec", {}).get("authorization", {}).get("rules", []):
        jwt = rule.get("principal", {}).get("jwt", {})
        if "claims" in jwt:
            jwt["claims"] = [claim for claim in jwt["claims"] if claim["name"] != "aud"]


def foreign_keys(document: Document) -> None:
    """Of a SecurityPolicy: signatures are checked with keys of somebody else."""
    for provider in document.get("spec", {}).get("jwt", {}).get("providers", []):
        if provider.pop("remoteJWKS", None):
            provider["localJWKS"] = {"type": "Inline", "inline": json.dumps(_somebody_elses().jwks)}


@cache
def _somebody_elses() -> SigningKey:
    return SigningKey.generate()


def drop_claim_header(document: Document, name: str) -> None:
    """Of a SecurityPolicy: a claim does not replace this header."""
    for provider in document.get("spec", {}).get("jwt", {}).get("providers", []):
        claims = provider.get("claimToHeaders", [])
        provider["claimToHeaders"] = [claim for claim in claims if claim["header"] != name]


def keep_client_header(document: Document, name: str) -> None:
    """Of a ClientTrafficPolicy: this header of the client's stays."""
    early = document.get("spec", {}).get("headers", {}).get("earlyRequestHeaders", {})
    if "remove" in early:
        early["remove"] = [header for header in early["remove"] if header != name]


def tokens_for_all(document: Document) -> None:
    """Of the default backend's route: the JWT server answers where nobody did."""
    for rule in document.get("spec", {}).get("rules", []):
        if any(filter_.get("type") == "ExtensionRef" for filter_ in rule.get("filters", [])):
            rule.pop("filters")
            rule["backendRefs"] = [{"group": "gateway.envoyproxy.io", "kind": "Backend", "name": "sabotage-jwt-server"}]


def forget_namespace(document: Document, name: str) -> None:
    """Of a NetworkPolicy: who is in namespaces of this name, or in this role, is listed neither as a caller nor as
    somebody to call.
    """
    for way, peers in (("ingress", "from"), ("egress", "to")):
        rules = document.get("spec", {}).get(way, [])
        document["spec"][way] = [rule for rule in rules if not any(_is_in(peer, name) for peer in rule.get(peers, []))]


def _is_in(peer: Mapping[str, Any], namespace: str) -> bool:
    labels = peer.get("namespaceSelector", {}).get("matchLabels", {})
    return namespace in labels.values()


def logs_of_another(document: Document, tenant: str, other: str) -> None:
    """Of the viewers' route: a tenant is led to another's logs."""
    for rule in document.get("spec", {}).get("rules", []):
        for modified in (each.get("requestHeaderModifier", {}) for each in rule.get("filters", [])):
            for header in modified.get("set", []):
                if header == {"name": "X-Scope-OrgID", "value": tenant}:
                    header["value"] = other


RULES: Mapping[str, Callable[..., None]] = MappingProxyType(
    {
        rule.__name__: rule
        for rule in (
            lift_limit,
            share_bucket,
            swap_shares,
            swap_canary,
            freeze_shares,
            ignore_headers,
            first_provider_only,
            any_audience,
            foreign_keys,
            drop_claim_header,
            keep_client_header,
            tokens_for_all,
            forget_namespace,
            logs_of_another,
        )
    }
)
