"""Names of the files that pass between worker and store."""

from __future__ import annotations

from badnets.core.config import canonical
from badnets.measure.question import Question

WEIGHTS = "weights.safetensors"


def question_name(question: Question) -> str:
    """The file name under which a worker returns the answer to a question."""
    return "question " + canonical(question)
