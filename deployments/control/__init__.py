"""The control process: the admin and tenant REST API, and what the platform does in the background.

Nothing of it is on the request path of models: while it is away, models answer as before.
"""
