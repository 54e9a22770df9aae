"""Days of requests on a Zipf workload, and nights in which generation catches up with the tail."""
