"""The migration bench's inside: long streams, replicas that die or freeze, what clients saw."""
