"""The front door bench's inside: the processes of a running platform, and traffic beside a kill."""
