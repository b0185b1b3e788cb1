"""The worker process: reads one comparison a line from stdin, writes one decision a line.

It is started with an empty environment, limits its resources before it reads anything, and only
compares: its input is never executed. `pool` kills it when a comparison takes too long.
"""

import json
import resource
import sys

from jaxcritique.grading.compare import Decision, compare
from jaxcritique.grading.symbolic import SymbolicAlgebra


def limit_resources(memory: int) -> None:
    """Bounds memory (bytes), and forbids writing files, starting processes and core dumps."""
    resource.setrlimit(resource.RLIMIT_AS, (memory, memory))
    resource.setrlimit(resource.RLIMIT_FSIZE, (0, 0))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    resource.setrlimit(resource.RLIMIT_NPROC, (0, 0))


def _limit_time(seconds: float) -> None:
    """Ends this process after `seconds` more of CPU time, in case the parent dies first."""
    usage = resource.getrusage(resource.RUSAGE_SELF)
    budget = int(usage.ru_utime + usage.ru_stime + seconds) + 2
    resource.setrlimit(resource.RLIMIT_CPU, (budget, resource.RLIM_INFINITY))


def decide(request: dict) -> Decision:
    """Compares the two answers of a request."""
    strict = request["strict"]
    try:
        decision = compare(request["gold"], request["answer"], SymbolicAlgebra(strict), strict)
    except MemoryError:
        return Decision("timeout", "memory")
    # Undecided only if it is nested too deep for this process.
    return decision if decision.verdict else Decision("unparsable", "nested too deep")


def main() -> None:
    """Serves requests until stdin closes. `argv`: memory in bytes, seconds for one comparison."""
    memory, seconds = int(sys.argv[1]), float(sys.argv[2])
    limit_resources(memory)
    print("ready", flush=True)
    for line in sys.stdin:
        _limit_time(seconds)
        verdict, rule = decide(json.loads(line))
        print(json.dumps([verdict, rule]), flush=True)


if __name__ == "__main__":
    main()
