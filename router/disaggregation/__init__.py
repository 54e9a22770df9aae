"""Whether a request is prefilled on one replica and decoded on another, and on which.

:mod:`~router.disaggregation.placing` decides and remembers, :mod:`~router.disaggregation.ways` says
what each way would take, and a registered rule (:mod:`~router.disaggregation.rules`) chooses. Which
replicas have another role for a while, :mod:`~router.disaggregation.roles` knows.
"""
