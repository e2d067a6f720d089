"""Which settings a reload changes in a running daemon: one table, by dotted name.

Pure data. Everything else takes a restart, since it has shaped the run, its files or its addresses already.
"""

RELOADABLE = frozenset(
    {
        "budgets.missed_deadlines",
        "budgets.policy_answer_s",
        "control.drain_s",
        "control.max_admin_per_s",
        "control.max_commands_per_s",
        "control.max_concurrent_calls",
        "control.max_decisions_per_s",
        "control.max_emergencies_per_s",
        "control.max_reads_per_s",
        "control.max_streams",
        "control.tls_certificate",
        "control.tls_client_ca",
        "control.tls_private_key",
        "control.training_share",
        "log.format",
        "log.level",
    }
)
