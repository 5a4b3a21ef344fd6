"""The Kubernetes HorizontalPodAutoscaler, reproduced as a policy."""
