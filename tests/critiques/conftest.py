import pytest

from jaxcritique.records import Problem
from jaxcritique.tasks.word_problems import generate


@pytest.fixture(scope="session")
def problems() -> list[Problem]:
    return generate("train", 300, seed=0)
