"""What of an assurance argument a report answers: fifteen evidence items, each with the objectives it speaks to.

The objective numbers are those of EASA's concept paper "Guidance for Level 1 and 2 machine learning applications",
issue 2 (LM: learning management, IMP: implementation, CM: configuration management). The mapping is ours. An item is
derived from the records alone: "given" if they hold it, "part" if they hold a part of it, "absent" otherwise.

Not claimed: that any authority accepts this evidence for an objective, or that a listed objective is fully met by it.
"""

from collections.abc import Callable
from dataclasses import dataclass

from verify.report import words
from verify.report.records import NetworkReport

GIVEN, PART, ABSENT = "given", "part", "absent"
Answer = tuple[str, str]


@dataclass(frozen=True)
class Evidence:
    """One evidence item of one network: its number, name, the objectives, whether it is there, and in words what is."""

    item: str
    name: str
    objectives: str
    status: str
    words: str


def evidence(network: NetworkReport) -> tuple[Evidence, ...]:
    """All fifteen items for one pair of networks, in order."""
    found = []
    for i, (name, objectives, answer) in enumerate(_ITEMS, 1):
        status, sentence = answer(network)
        found.append(Evidence(f"E{i}", name, objectives, status, sentence))
    return tuple(found)


def _identities(network: NetworkReport) -> Answer:
    if not network.files:
        return ABSENT, "No file is named by its hash."
    return GIVEN, f"{len(network.files)} files by SHA-256, listed below."


def _description(network: NetworkReport) -> Answer:
    if not (network.sizes or network.layers):
        return ABSENT, "No description of the networks."
    return PART, "Sizes and layers are listed; graph and meaning of every operation are those of the network files."


def _transformation(network: NetworkReport) -> Answer:
    if not network.layers:
        return ABSENT, "What was removed is not recorded here."
    removed = sum(layer.channels - layer.kept for layer in network.layers)
    return GIVEN, f"{removed} channels removed from {len(network.layers)} groups; the table lists what each one kept."


def _claim(network: NetworkReport) -> Answer:
    if not words.established(network):
        return ABSENT, "Nothing is claimed."
    return GIVEN, "In plain words under Established, with its limits under Not established."


def _proof(network: NetworkReport) -> Answer:
    proved = [box for box in network.boxes if box.proved]
    audited = [box for box in proved if box.audited == "accept"]
    if not proved:
        return ABSENT, "No formal bound was proved."
    sentence = f"{len(proved)} of {len(network.boxes)} boxes proved, {len(audited)} re-proved by the auditor."
    return (GIVEN if len(audited) == len(network.boxes) else PART), sentence


def _platform(network: NetworkReport) -> Answer:
    covered = [box for box in network.boxes if box.executed_upper is not None]
    if not covered:
        return ABSENT, (
            "The bounds here are in real arithmetic. Missing: certificates with arithmetic float32, for executions."
        )
    return PART, (
        f"Rounding is bounded on {len(covered)} of {len(network.boxes)} boxes, for float32 rounded to nearest with "
        "gradual underflow, any order of summation, with or without fused multiply-add. Missing: that the platform "
        "executes the networks so; no record names or tests a device, a runtime or its settings."
    )


def _statistics(network: NetworkReport) -> Answer:
    if not network.statistical:
        return ABSENT, "No statement about fresh data."
    return GIVEN, f"{len(network.statistical)} statements with confidence over fresh inputs."


def _stability(network: NetworkReport) -> Answer:
    if not network.boxes:
        return ABSENT, "No search for large deviations."
    worst = words.rounded_down(max(box.attacked_lower for box in network.boxes))
    return PART, f"The largest deviation that a search attained is {worst}; margins of decisions are not part of it."


def _transfer(network: NetworkReport) -> Answer:
    uppers = [box.certified_upper for box in network.boxes if box.proved and box.certified_upper is not None]
    if not uppers:
        return ABSENT, "Without a proved bound no property of the original transfers."
    bound = words.rounded_up(max(uppers))
    return PART, (
        f"In the proved boxes, what holds for the original with more than {bound} to spare in every output holds for "
        "the compact network. Which properties do is for their own verification to say."
    )


def _open_regions(network: NetworkReport) -> Answer:
    if not network.boxes:
        return ABSENT, "No region was examined."
    unproved = [box.name for box in network.boxes if not box.proved]
    if not unproved:
        return GIVEN, "Every box was proved; there is no open region."
    shown = ", ".join(unproved[:5]) + (f" and {len(unproved) - 5} more" if len(unproved) > 5 else "")
    return GIVEN, f"{len(unproved)} of {len(network.boxes)} boxes are open: {shown}."


def _qualification(network: NetworkReport) -> Answer:
    return ABSENT, "Tests, coverage and mutation score of the auditor are with its sources, not in this report."


def _reproduction(network: NetworkReport) -> Answer:
    if not network.files:
        return ABSENT, "There is no file to compare a second run with."
    return PART, "A second run can be compared by the SHA-256 of the files; versions and seeds are at the foot."


def _signatures(network: NetworkReport) -> Answer:
    return ABSENT, "This report is not signed; `verify attest` states the verdict of an audit and signs it."


def _change_impact(network: NetworkReport) -> Answer:
    if not network.files:
        return ABSENT, "Without hashes, a change would not be noticed."
    return GIVEN, "Any changed bit of a network file, another domain or another arithmetic voids every bound here."


def _residual_risk(network: NetworkReport) -> Answer:
    count = len(words.not_established(network))
    return PART, f"{count} limits are listed under Not established; weighing them is left to the reader."


_ITEMS: tuple[tuple[str, str, Callable[[NetworkReport], Answer]], ...] = (
    ("Identities of networks, domain and files", "CM-01", _identities),
    ("Model description", "LM-15", _description),
    ("Log of the transformation", "LM-06, IMP-04", _transformation),
    ("Claim in plain words", "LM-06", _claim),
    ("Formal certificate and verdict of the auditor", "IMP-06", _proof),
    ("Platform and rounding", "IMP-07", _platform),
    ("Statistical statements", "IMP-08, LM-14", _statistics),
    ("Stability: attacked deviations", "IMP-09, IMP-10", _stability),
    ("Transfer of properties", "IMP-06", _transfer),
    ("Counterexamples and open regions", "IMP-06, LM-06", _open_regions),
    ("Qualification of the tool", "IMP-04", _qualification),
    ("Reproducibility", "IMP-04, CM-01", _reproduction),
    ("Signatures and provenance", "CM-01", _signatures),
    ("Impact of changes", "CM-01, IMP-06", _change_impact),
    ("Residual risk", "LM-06, IMP-06", _residual_risk),
)
