"""Which settings a reload changes in a running daemon: one table, by dotted name.

Pure data. Everything else takes a restart, since it has shaped the run, its files or its addresses already.
"""

RELOADABLE = frozenset(
    {
        "budgets.missed_deadlines",
        "budgets.policy_answer_s",
        "control.drain_s",
        "control.max_concurrent_calls",
        "control.max_streams",
        "control.training_share",
        "log.format",
        "log.level",
    }
)
