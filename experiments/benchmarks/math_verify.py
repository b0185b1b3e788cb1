"""math-verify, as its documentation uses it."""

import importlib.metadata


def math_verify_version() -> str | None:
    """Returns the installed version; None if it is not installed (the extra `bench`)."""
    try:
        return importlib.metadata.version("math-verify")
    except importlib.metadata.PackageNotFoundError:
        return None


def verdict(gold: str, prediction: str, kind: str) -> bool:
    """Whether math-verify calls a prediction right; `kind` as in `Grader.grade`."""
    import math_verify

    # A bare answer is LaTeX to it only between dollar signs.
    gold = gold if "$" in gold or "boxed" in gold else f"${gold}$"
    prediction = f"${prediction}$" if kind == "answer" else prediction
    return bool(math_verify.verify(math_verify.parse(gold), math_verify.parse(prediction)))
