"""What makes a batch invalid before anybody looks at the ledger.

Both ledgers refuse the same batches, so that a test on the twin finds what Redis would refuse. Only mistakes of a
caller are looked for here; whatever depends on the state of the ledger is decided where that state is.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from service.ledger.errors import LedgerError
from service.ledger.outbox import CELL, ROW, SEPARATOR
from service.ledger.transaction import QUANTITY_MAX, Attempt, Transaction


def refuse_invalid(transactions: Sequence[Transaction]) -> None:
    """Raise ``LedgerError`` for the first transaction that cannot be right."""
    for number, transaction in enumerate(transactions, start=1):
        problem = problem_of(number, transaction)
        if problem is not None:
            raise LedgerError(problem, number)


def problem_of(number: int, transaction: Transaction) -> str | None:
    """What is wrong with the ``number``-th transaction of a batch, in a sentence; None where nothing is."""
    if not transaction.attempts:
        return "it has no attempt"
    if not 0 <= transaction.position <= QUANTITY_MAX:
        return f"its position {transaction.position} is out of range"
    for key, version in transaction.expect:
        if version <= -number:
            return f"it expects {key} of transaction {-version}, which does not come before it"
    for own, attempt in enumerate(transaction.attempts):
        problem = _problem_of_attempt(own, attempt)
        if problem is not None:
            return f"attempt {own} {problem}"
    return None


def refuse_control_characters(texts: Iterable[str]) -> None:
    """Names and texts must not hold the three characters that separate the parts of what the ledger stores."""
    for text in texts:
        if SEPARATOR in text or CELL in text or ROW in text:
            raise LedgerError(f"a name or text holds a control character: {text!r}")


def _problem_of_attempt(own: int, attempt: Attempt) -> str | None:
    for take in attempt.take:
        if not (-QUANTITY_MAX <= take.used <= QUANTITY_MAX and -QUANTITY_MAX <= take.reserved <= QUANTITY_MAX):
            return f"takes a quantity that is out of range: {take}"
        if not take.path:
            return f"takes from nobody: {take}"
    for emission in attempt.emit:
        if SEPARATOR in emission.facts:
            return "announces a text with a NUL"
        if emission.denials_of and not _earlier(emission.denials_of, own):
            return f"announces the denials of attempts {emission.denials_of}, which are not all earlier"
    for limit in attempt.limits:
        if not (_bounded(limit.value) and _bounded(limit.overage)):
            return f"sets a limit that is out of range: {limit}"
    wait = attempt.wait
    if wait is not None and not _earlier(wait.denials_of, own):
        return f"waits for the denials of attempts {wait.denials_of}, which are not all earlier"
    return None


def _earlier(numbers: Iterable[int], own: int) -> bool:
    return all(0 <= number < own for number in numbers)


def _bounded(number: int | None) -> bool:
    return number is None or 0 <= number <= QUANTITY_MAX
