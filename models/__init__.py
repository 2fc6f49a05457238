"""Networks that come with graphprune: a small trained one, and seeded reference networks.

>>> from graphprune.models import accuracy, digits_path, digits_test
>>> accuracy(digits_path(), digits_test()) > 0.98
True
"""

from graphprune.models.digits import Labelled, accuracy, digits_path, digits_test

__all__ = ["Labelled", "accuracy", "digits_path", "digits_test"]
