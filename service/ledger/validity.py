"""What makes a batch invalid before anybody looks at the ledger.

Both ledgers refuse the same batches, so that a test on the twin finds what Redis would refuse. Only mistakes of a
caller are looked for here; whatever depends on the state of the ledger is decided where that state is. What concerns
names is asked once for each name: by the encoder when it enters one into its tables, by the reference for all of them.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from service.ledger import keys
from service.ledger.errors import LedgerError
from service.ledger.outbox import CELL, ROW, SEPARATOR
from service.ledger.transaction import QUANTITY_MAX, Attempt, RecordKey, Transaction, Wait


def refuse_invalid(transactions: Sequence[Transaction]) -> None:
    """Raise ``LedgerError`` for the first transaction that cannot be right."""
    looked_at: set[int] = set()  # groups of expectations: what comes before one transaction comes before all later ones
    for number, transaction in enumerate(transactions, start=1):
        problem = problem_of(number, transaction)
        for group in transaction.standing:
            if id(group) not in looked_at:
                looked_at.add(id(group))
                problem = problem or _problem_of_expectations(number, group)
        if problem is not None:
            raise LedgerError(problem, number)


def problem_of(number: int, transaction: Transaction) -> str | None:
    """What is wrong with the ``number``-th transaction of a batch, in a sentence; None where nothing is."""
    if not transaction.attempts:
        return "it has no attempt"
    if not 0 <= transaction.position <= QUANTITY_MAX:
        return f"its position {transaction.position} is out of range"
    problem = _problem_of_expectations(number, transaction.expect)
    if problem is not None:
        return problem
    for own, attempt in enumerate(transaction.attempts):
        problem = _problem_of_attempt(own, attempt)
        if problem is not None:
            return f"attempt {own} {problem}"
    return None


def _problem_of_expectations(number: int, expect: Iterable[tuple[RecordKey, int]]) -> str | None:
    for key, version in expect:
        if version <= -number:
            return f"it expects {key} of transaction {-version}, which does not come before it"
    return None


def left_present(attempt: Attempt, key: RecordKey) -> bool | None:
    """Whether a record is there once the attempt is applied; None where the attempt does not speak of it."""
    if key in attempt.delete:
        return False
    return True if any(key == each for each, _ in attempt.put) else None


def problem_of_name(name: str) -> str | None:
    """Names must not hold the three characters that separate the parts of what the ledger stores."""
    if name.isprintable() or not (SEPARATOR in name or CELL in name or ROW in name):
        return None
    return f"a name holds a control character: {name!r}"


def problem_of_path(path: Sequence[str]) -> str | None:
    """A path leads past somebody, and past nobody twice."""
    return None if path and len(set(path)) == len(path) else f"a path names nobody, or somebody twice: {path}"


def problem_of_kind(kind: str) -> str | None:
    """Records and the ledger's own keys must not share a name."""
    if kind in keys.RESERVED_KINDS or ":" in kind or "/" in kind:
        return f"records cannot be of kind {kind!r}, which is the ledger's own"
    return None


def _problem_of_attempt(own: int, attempt: Attempt) -> str | None:
    for emission in attempt.emit:
        if SEPARATOR in emission.facts:
            return "announces a text with a NUL"
        if emission.denials_of and not _earlier(emission.denials_of, own):
            return f"announces the denials of attempts {emission.denials_of}, which are not all earlier"
    for limit in attempt.limits:
        if not (_bounded(limit.value) and _bounded(limit.overage)):
            return f"sets a limit that is out of range: {limit}"
    for timer in attempt.timers:
        if timer.due_ms is not None and not 0 <= timer.due_ms <= QUANTITY_MAX:
            return f"sets a timer that is out of range: {timer}"
    return None if attempt.wait is None else _problem_of_wait(own, attempt.wait)


def _problem_of_wait(own: int, wait: Wait) -> str | None:
    if not _earlier(wait.denials_of, own):
        return f"waits for the denials of attempts {wait.denials_of}, which are not all earlier"
    return "waits for a reason with a NUL" if SEPARATOR in wait.static else None


def _earlier(numbers: Iterable[int], own: int) -> bool:
    return all(0 <= number < own for number in numbers)


def _bounded(number: int | None) -> bool:
    return number is None or 0 <= number <= QUANTITY_MAX
