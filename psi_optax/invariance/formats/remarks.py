"""Sentences on a whole report: why weights have no groups, and remedies."""

from psi_optax.invariance.analysis.reasons import RUNNING_AVERAGES
from psi_optax.invariance.finding import Findings, groups_of
from psi_optax.invariance.formats.summary import SummaryLine, summary_lines

_RETURNED = (
    "loss_fn returns {} arrays, and groups leave all of them unchanged: return"
    " the loss alone, no new statistics, logits or gradients, or pass"
    " has_aux=True if it returns (loss, aux)"
)
_TRAINING = "pass the loss of training, which normalizes by the batch"
_ALONE = ", and return nothing else, no new statistics, logits or gradients"
_BEHIND = (
    "A kernel has groups where its outputs reach the loss through a"
    " normalization alone; one in front of it does not help"
)
# Words of reasons.
_RESCALING = "rescaling symmetry"
_PENALTY = "penalty sees its scale"
_UNKNOWN = "no rule for"


def remark(findings: Findings, returned: int, advice: str) -> str:
    """Return sentences on how to find more groups, each after a full stop.

    Args:
        findings: one for each parameter, by path.
        returned: the number of arrays that the loss returned.
        advice: that of the report.
    """
    remarks = [advice] if advice else []
    if returned > 1:
        remarks.append(_RETURNED.format(returned))
    searched = any(f.kind == "ordinary" for f in findings.values())
    if searched and not groups_of(findings) and not remarks:
        if _RESCALING in main_reason(findings, returned):
            remarks.append(_BEHIND)
        text = f"If the network has BatchNorm layers: {_TRAINING}{_ALONE}"
        remarks.append(text)
    return "".join(f". {text}" for text in remarks)


def main_reason(findings: Findings, returned: int) -> str:
    """Return why weights have no groups; "" if nothing is known.

    It is, in this order: a penalty that the loss adds, more than one array that
    it returns, running averages that it subtracts, an operation that the
    analysis does not know, or the reason of the parameters with the most
    weights. A sentence without a full stop.
    """
    lines = [
        line
        for line in summary_lines(findings)
        if line.findings[0].kind in ("ordinary", "partly") and line.reason
    ]
    if penalties := _with(_PENALTY, lines):
        return penalties[0].reason.replace("its scale", "the scale of weights")
    if lines and returned > 1:
        return _RETURNED.format(returned)
    if averages := _with(f"({RUNNING_AVERAGES})", lines):
        return f"{_why(averages[0])}: {_TRAINING}"
    first = [*_with(_UNKNOWN, lines), *lines][:1]
    return "".join(map(_why, first))


def _with(words: str, lines: list[SummaryLine]) -> list[SummaryLine]:
    return [line for line in lines if words in line.reason]


def _why(line: SummaryLine) -> str:
    return f"{line.pattern or '(root)'!r} has no groups: {line.reason}"
