"""Running: the Ray Serve deployments (gateway, model replicas) and the composition root."""
