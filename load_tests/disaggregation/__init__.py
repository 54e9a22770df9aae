"""Disaggregation in the simulator: traffic, fleets and rules, and what is made of the runs."""
