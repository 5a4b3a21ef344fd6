"""Labels: the replicas each service would have needed, computed from telemetry."""
