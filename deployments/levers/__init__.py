"""Every lever of the engine, tried on the engine that is there.

One function per lever, registered by name (:mod:`~deployments.levers.registry`), runs two engines
one after the other in a process of its own: without the lever and with it. The list of
:class:`Outcome` says whether it works, whether the answers stay equal, and what it gains.
"""
