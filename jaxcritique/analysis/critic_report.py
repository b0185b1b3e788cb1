"""Critics compared, as tables of text."""

from collections.abc import Mapping
from typing import Any

from jaxcritique.analysis.page import Table, bounds_cell, costs_table
from jaxcritique.analysis.table import percent

TABLE2 = {  # Columns with their headings.
    "accuracy_without": "no critic",
    "accuracy_refine_all": "refine all",
    "accuracy_refine_flagged": "refine flagged",
    "accuracy_oracle": "oracle",
    "discriminability": "discrim.",
    "discriminability_right": "of right",
    "discriminability_wrong": "of wrong",
    "helpfulness": "helpful",
    "helpfulness_flagged": "of flagged",
}
_FLOWS = {
    "c2c": "stay right",
    "c2i": "right to wrong",
    "i2c": "wrong to right",
    "i2i": "stay wrong",
}
_LOCALISATION = {
    "accuracy_erroneous": "erroneous found",
    "accuracy_correct": "correct passed",
    "f1": "F1",
}


def critic_tables(results: Mapping[str, Any]) -> list[Table]:
    """Returns Table 2, what refinement did to responses, localisation, and costs.

    Args:
      results: of `evaluate_critic`, as results.json has them.
    """
    tables = []
    if reports := {c["critic"]: c["table2"] for c in results["critics"] if "table2" in c}:
        rows = [("critic", *TABLE2.values(), "unparsable")]
        for critic, report in reports.items():
            rows += _shares(critic, report, TABLE2)
        tables.append(Table("Table 2: shares with 95% intervals", rows))
        rows = [("critic", *_FLOWS.values())]
        rows += [(critic, *(str(r[flow]) for flow in _FLOWS)) for critic, r in reports.items()]
        tables.append(Table("Responses before and after refining all of them", rows))
    if reports := {
        c["critic"]: c["localisation"] for c in results["critics"] if "localisation" in c
    }:
        rows = [("critic", *_LOCALISATION.values(), "unparsable")]
        for critic, report in reports.items():
            rows += _shares(critic, report, _LOCALISATION)
        tables.append(Table("First wrong step: shares with 95% intervals", rows))
    return [*tables, costs_table(results)]


def _shares(
    critic: str, report: Mapping[str, Any], columns: Mapping[str, str]
) -> list[tuple[str, ...]]:
    """A critic's shares, and below them their intervals."""
    unparsable = f"{report['unparsable']} of {report['n']}"
    return [
        (critic, *(percent(report[column]) for column in columns), unparsable),
        ("", *(bounds_cell(report["ci95"][column]) for column in columns), ""),
    ]
