"""The start-up bench's inside: one timed start, and the stages it went through."""
