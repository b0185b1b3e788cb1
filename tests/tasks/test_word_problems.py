import re

import pytest

from jaxcritique.critiques.arithmetic import calculations
from jaxcritique.records import Problem
from jaxcritique.tasks import load_problems, word_problems
from jaxcritique.tasks.word_problems import generate


@pytest.fixture(scope="module")
def problems() -> list[Problem]:
    return generate("train", 500, seed=0)


def values(problem: Problem) -> tuple[str, ...]:
    """What a story is about but for its words: start and amounts, and every operation."""
    operations = (mark.expression for mark in calculations(problem.rationale))
    return *re.findall(r"\d+", problem.question), *operations


def test_the_same_seed_gives_the_same_problems_and_another_others(problems):
    assert generate("train", 500, seed=0) == problems
    other = generate("train", 500, seed=1)
    assert len({p.question for p in problems} & {p.question for p in other}) < 25


def test_fewer_problems_are_the_first_of_more(problems):
    assert generate("train", 20, seed=0) == problems[:20]


def test_train_and_test_share_no_values_whatever_the_seeds():
    train = {values(p) for seed in range(3) for p in generate("train", 3000, seed, (4, 3, 1, 1, 1))}
    test = {values(p) for seed in range(3) for p in generate("test", 500, seed, (4, 3, 1, 1, 1))}
    assert len(train) > 5000
    assert len(test) > 700
    assert not train & test


def test_questions_and_ids_are_unique(problems):
    assert len({p.question for p in problems}) == len({p.id for p in problems}) == 500


def test_rationales_calculate_right_and_lead_to_the_answer(problems):
    for problem in problems:
        *steps, last = problem.rationale.split("\n")
        marks = calculations(problem.rationale)
        assert len(steps) == len(marks) == problem.level
        assert all(mark.right for mark in marks)
        assert marks[-1].stated == problem.answer
        assert last == f"The answer is {problem.answer}."
        numbers = re.findall(r"\d+", problem.question + problem.rationale)
        assert all(1 <= int(number) <= 200 for number in numbers)


def test_every_operand_is_in_the_question_or_an_earlier_result(problems):
    for problem in problems:
        known = set(re.findall(r"\d+", problem.question))
        for mark in calculations(problem.rationale):
            assert set(re.findall(r"\d+", mark.expression)) <= known
            known.add(mark.stated)


def test_levels_are_drawn_by_their_weights():
    levels = [p.level for p in generate("train", 1000, 0, level_weights=(3, 0, 0, 0, 1))]
    assert set(levels) == {1, 5}
    assert 680 < levels.count(1) < 820


def test_unknown_split_is_refused():
    with pytest.raises(ValueError, match="'train' or 'test', not 'dev'"):
        generate("dev", 1, 0)  # pyright: ignore[reportArgumentType]


def test_more_problems_than_there_are_is_refused(monkeypatch):
    monkeypatch.setattr(word_problems, "_TEST_SHARE", 10**12)  # There are millions otherwise.
    with pytest.raises(ValueError, match="fewer than 10 different test problems"):
        generate("test", 10, 0)


@pytest.mark.parametrize(("task", "count", "message"), [
    ("word_problems", 0, "`train_problems=0`: word_problems is generated; say how many"),
    ("trivia", 1, "`task=trivia`: there are .*gsm8k"),
])  # fmt: skip
def test_tasks_that_cannot_be_loaded_are_refused(task, count, message):
    with pytest.raises(ValueError, match=message):
        load_problems(task, None, "train", count, 0)


def test_stories_need_no_data():
    assert load_problems("word_problems", None, "test", 5, 3) == generate("test", 5, 3)
