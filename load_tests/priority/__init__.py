"""The priority bench's parts: its streams of requests, its three experiments."""
