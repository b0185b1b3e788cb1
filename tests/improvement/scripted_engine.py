"""An engine whose models follow a script, so that a whole experiment takes a second."""

import dataclasses
import random
import zlib

from jaxcritique.models.huggingface import ModelFolder
from jaxcritique.records import digest
from jaxcritique.rollout.engines import Engine, EngineConfig
from jaxcritique.rollout.sampler import Completion
from jaxcritique.tasks.word_problems import generate


class ScriptedModel:
    """Solves stories, some wrongly, and criticises at random.

    A text is a function of model and request.
    """

    def __init__(self, key: str, asked: list[str], solutions: dict[str, str], wrong: float):
        self.key, self._asked, self._solutions, self._wrong = key, asked, solutions, wrong

    def generate(self, requests, progress=None):
        for request in requests:
            self._asked.append(request.id)
            for sample in range(request.n):
                rng = random.Random(zlib.crc32(f"{self.key}/{request.id}/{sample}".encode()))
                text = request.prefix + self._reply(request, rng)
                yield Completion(request.id, sample, text, "stop", 9, 4)

    def _reply(self, request, rng: random.Random) -> str:
        first, last = request.messages[0]["content"], request.messages[-1]["content"]
        if last.endswith("Check each step."):
            return f"Final answer: {rng.choice(['Wrong', 'Correct'])}"
        solution = self._solutions[first.removesuffix("\nThink aloud.")].split("\n")
        if rng.random() < self._wrong:
            solution[-1] = f"The answer is {rng.randrange(1000, 2000)}."
        return "\n".join(solution[request.prefix.count("\n") :])

    def close(self):
        pass


class ScriptedEngine(Engine):
    """Its fine-tuned models have a key and no weights."""

    def fine_tune(self, store, name, base, examples, config, seed):
        stage = store.stage(name, base.key, config, seed, digest(*examples))
        if not stage.finished:
            stage.finish()
        return ModelFolder(stage.folder / "model", stage.key)


@dataclasses.dataclass(frozen=True, kw_only=True)
class ScriptedEngineConfig(EngineConfig):
    """Stories of `problems` training and test problems with seed 0 can be solved."""

    problems: tuple[int, int]
    wrong: float = 1 / 3  # Share of wrong answers.
    asked: list[str] = dataclasses.field(default_factory=list)  # Ids of all requests.

    def start(self) -> Engine:
        stories = [
            *generate("train", self.problems[0], 0),
            *generate("test", self.problems[1], 1_000_003),
        ]
        solutions = {story.question: story.rationale for story in stories}
        return ScriptedEngine(
            self, lambda m: ScriptedModel(m.key, self.asked, solutions, self.wrong)
        )
