import sys

import pytest

from jaxcritique.tasks import load_problems


def test_without_its_package_the_extra_is_named(monkeypatch):
    monkeypatch.setitem(sys.modules, "reasoning_gym", None)
    with pytest.raises(ImportError, match=r"pip install 'jaxcritique\[reasoning-gym\]'"):
        load_problems("gsm_symbolic", None, "train", 3, 0)


def test_problems_are_different_and_of_one_split():
    pytest.importorskip("reasoning_gym")
    train = load_problems("gsm_symbolic", None, "train", 200, 0)
    test = load_problems("gsm_symbolic", None, "test", 100, 0)
    assert len({p.id for p in [*train, *test]}) == 300
    assert load_problems("gsm_symbolic", None, "train", 20, 0) == train[:20]
    assert load_problems("gsm_symbolic", None, "train", 20, 1) != train[:20]
    for problem in train:
        assert problem.rationale.endswith(f"\nThe answer is {problem.answer}.")
        assert "####" not in problem.rationale
        float(problem.answer.replace(",", ""))
