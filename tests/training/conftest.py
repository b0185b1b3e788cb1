import numpy as np
import pytest

from jaxcritique.training.data import TokenizedExample


@pytest.fixture(scope="session")
def examples() -> list[TokenizedExample]:
    """Eight examples of 3 to 20 tokens, two thirds prompt, with beta weights."""
    rng = np.random.default_rng(0)
    lengths = (20, 4, 15, 18, 6, 9, 14, 3)
    return [
        TokenizedExample(rng.integers(0, 48, n).tolist(), 2 * n // 3, (1.0, 0.25)[i % 2])
        for i, n in enumerate(lengths)
    ]
