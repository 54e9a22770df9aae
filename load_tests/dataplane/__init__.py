"""The data-plane bench's inside: its systems, its measurement, its rows and marks."""
