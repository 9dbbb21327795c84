"""Who has which address in the box. The control plane's are fixed, and what tier 1 dials itself; other workloads get
the next free one."""

NODE = "10.99.0.1"
KUBERNETES_PORT = 6443

PODS = {
    "envoy-gateway": "10.99.0.2",
    "ai-gateway-controller": "10.99.0.3",
    "ratelimit": "10.99.0.4",
    "redis": "10.99.0.5",
    "istiod": "10.99.0.6",
    "istio-system.istio-ingressgateway": "10.99.0.10",
    "jwt-server": "10.99.0.20",
    "default.management": "10.99.0.21",
    "alert-sink": "10.99.0.31",
}

# what Services outside the mesh resolve to; Services inside it resolve to their cluster addresses
NAMES = {
    "envoy-ratelimit.envoy-gateway-system.svc.cluster.local": PODS["ratelimit"],
    "envoy-gateway.envoy-gateway-system.svc.cluster.local": PODS["envoy-gateway"],
    "ai-gateway.ai-gateway.svc.cluster.local": PODS["envoy-gateway"],
    "ai-gateway-controller.envoy-ai-gateway-system.svc.cluster.local": PODS["ai-gateway-controller"],
    "redis.envoy-gateway-system.svc.cluster.local": PODS["redis"],
    "istiod.istio-system.svc": PODS["istiod"],
    "istio-ingressgateway.istio-system.svc.cluster.local": PODS["istio-system.istio-ingressgateway"],
    "jwt-server.default.svc.cluster.local": PODS["jwt-server"],
    "management-service.default.svc.cluster.local": PODS["default.management"],
}

WORKLOAD_NETWORK = "10.99.1.0/24"
