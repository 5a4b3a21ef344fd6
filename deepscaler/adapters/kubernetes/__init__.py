"""A real Kubernetes cluster: its API, its Deployments and pods, its measurements, its Lease."""
