"""What is compared at test time: methods as values, and the metrics they are scored by."""

import dataclasses
from typing import Literal

# The actor alone is also scored at 2K and 3K samples, since a critique and a refinement may each
# cost as much as a response.
MULTIPLES = (1, 2, 3)
METRICS = {"maj": "Maj@K", "pass": "Pass@K", "final": "Final answer", "greedy": "Greedy answer"}
# Of K responses before and after a round each (Figure 10):
SHARE = "share"  # the share that is right;
VOTE = "vote"  # whether the vote of all of them is.


@dataclasses.dataclass(frozen=True)
class Method:
    """A way to answer a problem. `str` gives its name, in tables and in JSON."""

    # "alone": without a critic. A round of critique and refinement after one response, or after
    # each of K in parallel; K rounds in sequence after one response. "named": any other.
    kind: Literal["alone", "one round", "parallel", "sequential", "named"]
    what: str = ""  # Which answers are refined, a key of `testtime.rounds.PROTOCOLS`; or the name.
    multiple: int = 1  # For "alone": K times this many samples,
    tokens_of: "Method | None" = None  # or, if set, as many as generate this method's tokens.

    def __str__(self) -> str:
        if self.kind == "alone":
            if self.tokens_of is not None:
                return f"no critic, tokens of {self.tokens_of}"
            return "no critic" if self.multiple == 1 else f"no critic, {self.multiple}K"
        if self.kind in ("parallel", "sequential"):
            return f"{self.kind}, {self.what}"
        return self.what


BASELINES = tuple(Method("alone", multiple=multiple) for multiple in MULTIPLES)
ALONE = BASELINES[0]
