"""What mechanisms need to know of a platform on Kubernetes."""

from collections.abc import Mapping
from types import MappingProxyType
from typing import TYPE_CHECKING

import httpx

from inferencebox.providers.kubernetes.objects import is_ready, workload

if TYPE_CHECKING:
    from inferencebox.providers.kubernetes.platform import KubernetesPlatform

WHERE: Mapping[str, tuple[str, str, int]] = MappingProxyType(
    {
        "tier-1": ("envoy-gateway-system", "gateway.envoyproxy.io/owning-gateway-name=ai-inference-gateway", 19000),
        "istiod": ("istio-system", "app=istiod", 15014),
    }
)
"""Part -> its namespace, its pods' labels, and the port on its own loopback on which it tells of itself."""
ASKING_SECONDS = 10.0


def inside(platform: "KubernetesPlatform", part: str, path: str) -> str:
    """What tier 1's Envoy (``tier-1``) or ``istiod`` answers on its own loopback; nothing while it does not."""
    namespace, labels, port = WHERE[part]
    for pod in platform.kube.quietly().list("pods", namespace, labels).items:
        if not is_ready(pod) or "deletionTimestamp" in pod["metadata"]:
            continue
        try:
            url = platform.forward(workload(pod), port).url + path
            return httpx.get(url, timeout=ASKING_SECONDS, trust_env=False).text
        except httpx.HTTPError:
            return ""
    return ""
