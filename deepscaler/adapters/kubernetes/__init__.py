"""A real Kubernetes cluster: its API, its Deployments and pods, its metrics, its Lease."""
