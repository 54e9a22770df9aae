"""What one replica of a model needs and can do, computed from the model's ``config.json``.

:mod:`weir.cards.attention` reads what each layer keeps per token, :mod:`weir.cards.shape` counts
parameters, :mod:`weir.cards.weights` turns them into bytes, and :mod:`weir.cards.card` answers the
questions: how many tokens fit, what a prompt costs, what a decode step reads.
"""

from weir.cards.card import Card, make_card, read_card
from weir.cards.shape import CardError, ModelShape, read_shape

__all__ = ["Card", "CardError", "ModelShape", "make_card", "read_card", "read_shape"]
