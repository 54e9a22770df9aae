"""The autoscaler on a running platform: replicas come and go under load."""
