import itertools

from experiments.pretraining.corpus import documents
from jaxcritique.prompts.critique import parse_critique
from jaxcritique.prompts.templates import COMPACT
from jaxcritique.tasks.word_problems import generate


def take(seed: int, count: int = 600):
    return list(itertools.islice(documents(COMPACT, seed, (1, 1, 1, 1, 1)), count))


def test_the_same_seed_gives_the_same_documents_and_another_others():
    assert take(0) == take(0)
    assert not {repr(d) for d in take(0)} & {repr(d) for d in take(1)}


def test_the_three_tasks_are_there_and_the_critic_sees_right_and_wrong():
    corpus = take(0)
    critiques = [reply for _, reply in corpus if "Final answer:" in reply]
    refinements = [reply for messages, reply in corpus if len(messages) == 3]
    assert len(corpus) - len(critiques) - len(refinements) > 200
    assert len(critiques) > 120
    assert len(refinements) > 60
    verdicts = [parse_critique(critique).says_correct for critique in critiques]
    assert 0.2 < verdicts.count(True) / len(verdicts) < 0.4
    assert verdicts.count(None) == 0


def test_no_test_question_is_in_the_corpus():
    texts = "\n".join(message["content"] for messages, _ in take(0) for message in messages)
    assert not any(problem.question in texts for problem in generate("test", 1000, 0))
