"""What is compared at test time: methods as values, and the metrics they are scored by."""

import dataclasses
from typing import Literal

MULTIPLES = (1, 2, 3)  # Of K samples without a critic: what a critique and a refinement may cost.
METRICS = {"maj": "Maj@K", "pass": "Pass@K", "final": "Final answer", "greedy": "Greedy answer"}
# Of K responses before and after a round each (Figure 10):
SHARE = "share"  # the share that is right;
VOTE = "vote"  # whether the vote of all of them is.


@dataclasses.dataclass(frozen=True)
class Method:
    """A way to answer a problem. `str` gives its name, in tables and in JSON."""

    kind: Literal["alone", "one round", "parallel", "sequential", "named"]
    protocol: str = ""  # Which answers are refined: a key of `testtime.rounds.PROTOCOLS`.
    multiple: int = 1  # "alone": so many times K samples;
    tokens_of: "Method | None" = None  # or as many as generate the tokens of this method.
    name: str = ""  # "named": anything else.

    def __str__(self) -> str:
        if self.kind == "alone":
            if self.tokens_of is not None:
                return f"no critic, tokens of {self.tokens_of}"
            return "no critic" if self.multiple == 1 else f"no critic, {self.multiple}K"
        if self.kind in ("parallel", "sequential"):
            return f"{self.kind}, {self.protocol}"
        return self.protocol or self.name


ALONE = Method("alone")


def one_round(protocol: str) -> Method:
    """One response with a round of critique and refinement."""
    return Method("one round", protocol)


def in_parallel(protocol: str) -> Method:
    """K responses with a round each."""
    return Method("parallel", protocol)


def in_sequence(protocol: str) -> Method:
    """K rounds after one response."""
    return Method("sequential", protocol)


def multiple(times: int) -> Method:
    """The actor alone, with `times` K samples."""
    return Method("alone", multiple=times)


def equal_tokens(method: Method) -> Method:
    """The actor alone, with as many samples as generate the tokens of `method`."""
    return Method("alone", tokens_of=method)


def named(name: str) -> Method:
    """Any other method."""
    return Method("named", name=name)
