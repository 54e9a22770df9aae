"""Days of traffic in seconds: autoscaling policies over a fluid model of a fleet."""
