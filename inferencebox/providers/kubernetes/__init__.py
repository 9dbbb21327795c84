"""Platforms on a Kubernetes cluster, whoever made the cluster."""
