"""The provider ``kind``: Kubernetes nodes as containers of this machine's engine."""
