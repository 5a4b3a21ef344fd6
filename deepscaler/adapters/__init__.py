"""Everything outside the process: Prometheus, Jaeger and Kubernetes behind the cluster port."""
