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
        "kernels.keep_days",
        "kernels.max_error",
        "kernels.max_error_half",
        "kernels.max_kernel_bytes",
        "kernels.max_load_ms",
        "kernels.max_step_ratio",
        "kernels.quota_bytes",
        "kernels.validation_memory_bytes",
        "kernels.validation_steps",
        "kernels.validation_timeout_s",
        "log.format",
        "log.level",
    }
)
