"""What every event does: decisions, from records and rules to transactions of the ledger."""
