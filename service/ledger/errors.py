"""How the ledger says no."""

from __future__ import annotations


class LedgerError(Exception):
    """A batch that cannot be right, or a ledger that does not fit this service; nothing of the call has happened.

    ``transaction`` is the number, counted from 1 within what was given to ``commit``, of the transaction at fault; None
    where no single one is. The others of that call may be sent again without it.
    """

    def __init__(self, message: str, transaction: int | None = None) -> None:
        super().__init__(message if transaction is None else f"transaction {transaction}: {message}")
        self.transaction = transaction


class LedgerUnavailable(Exception):  # noqa: N818 - a state of the ledger, not a mistake of its caller
    """The ledger did not answer, or cannot write now; it is not known whether the last call happened.

    ``reason`` is one word for logs and metrics: connection, timeout, full, read_only, loading, master_down,
    cluster_down, busy.
    """

    def __init__(self, reason: str, message: str) -> None:
        super().__init__(f"the ledger is unavailable ({reason}): {message}")
        self.reason = reason
