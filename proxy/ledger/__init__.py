"""The ledger: the append-only record of every call, decision and outcome. The only place that knows SQLAlchemy."""
