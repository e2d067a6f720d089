"""Every setting of a run, as nested frozen dataclasses; the string under a field is its help text.

Read on any thread, never changed. `esperd/config/load.py` fills them from TOML.
"""

from dataclasses import dataclass, field


@dataclass(frozen=True, slots=True)
class RunSettings:
    """`[run]`: what is trained, for how long, with which random seed."""

    task: str = ""
    """The task function as `package.module:function`."""
    num_steps: int = 0
    """Optimizer steps to train; 0 trains until stopped."""
    random_seed: int = 0
    """Seeds Python, NumPy and torch before the task function runs."""
    directory: str = "esperd-run"
    """Where the journal, the run's socket (unless set) and its state live."""
    name: str = ""
    """A name for people; the run id is made from it."""
    num_threads: int = 0
    """CPU threads for torch; 0 leaves torch's own choice."""
    task_options: dict[str, str | int | float | bool] = field(default_factory=dict)
    """`[run.task_options]`: keyword arguments for the task function."""
    start_paused: bool = False
    """Wait for a resume command before the first step."""
    exit_when_finished: bool = False
    """Leave when the run has finished, instead of staying up to answer."""
    wait_for_policy_s: float = 0.0
    """Hold the first step until a steering policy holds the lease, at most this long."""


@dataclass(frozen=True, slots=True)
class TrainingSettings:
    """`[training]`: how the loop runs."""

    device: str = "auto"
    """`auto`, `cpu`, `cuda` or `cuda:N`; a device that is not there is an error, never a silent move."""
    amp: str = "auto"
    """`auto` (bf16 on CUDA devices that have it, else off), `off`, `bf16` or `fp16`."""
    matmul_precision: str = "high"
    """float32 matmul precision: `highest`, `high` or `medium`."""
    clip_grad_norm: float = 0.0
    """Global-norm clip of the host's gradients; 0 clips nothing."""
    log_every_steps: int = 10
    """Telemetry and the state view are refreshed every so many steps."""
    validate_every_steps: int = 0
    """Validate every so many steps; 0 validates at each epoch's end."""
    deterministic: bool = False
    """Ask torch for deterministic algorithms."""
    channels_last: bool = False
    """Keep a convolutional host in channels-last memory format."""
    prefetch: bool = True
    """On CUDA copy the next batch on a side stream while this one computes."""


@dataclass(frozen=True, slots=True)
class GrowthSettings:
    """`[growth]`: where seeds may grow and what they must prove."""

    sites: tuple[str, ...] = ()
    """Module paths or globs, e.g. `blocks.*`."""
    max_live_seeds: int = 8
    """Seeds in GERMINATED to PROBATIONARY at once, over all sites."""
    max_candidates_per_site: int = 4
    """Seeds in GERMINATED or TRAINING side by side at one site."""
    max_fossils_per_site: int = 4
    """Seeds fossilized on top of each other at one site."""
    max_parameter_ratio: float = 32.0
    """Grown parameters over the host's own, at most."""
    max_seed_flops_ratio: float = 8.0
    """One seed's forward FLOPs over the host's forward FLOPs, at most."""
    max_memory_bytes: int = 1 << 30
    """Parameters, optimizer state and activations of one seed, at most."""
    allow_tier: str = "SAFE"
    """The riskiest tier that may germinate: SAFE, EXPERIMENTAL or HIGH_RISK."""
    training_mode: str = "GRADIENT_MATCHING"
    """What seeds in TRAINING learn from, unless the command says otherwise."""
    blend_mode: str = "BERNOULLI"
    """How seeds blend, unless the command says otherwise."""
    isolation: str = "DEFAULT"
    """How far the host may feel a seed, unless the command says otherwise."""
    rho: float = 0.3
    """Gradient matching: length of the target step relative to rms of the activation."""
    seed_lr_ratio: float = 1.0
    """A seed's learning rate over the host's current one."""
    seed_warmup_steps: int = 50
    """Steps over which a new seed's learning rate rises."""
    seed_clip_grad_norm: float = 1.0
    """Each seed's own clip; 0 clips nothing."""
    adaptive_clip: bool = False
    """Clip a blending seed at 0.1 / (1 + 100*(alpha - 0.5)^2) instead."""
    ema_decay: float = 0.98
    """Gates look at an average of the seed's weights with this decay."""
    alpha_curve: str = "COSINE"
    """Default blend ramp: LINEAR, COSINE or SIGMOID."""
    alpha_steps: int = 150
    """Default length of the blend ramp in steps."""
    blend_alpha: float = 0.9
    """Alpha at the end of a Bernoulli ramp; FOSSILIZED is always 1."""
    min_training_steps: int = 50
    """Minimum dwell in TRAINING."""
    max_training_steps: int = 2000
    """At this age in TRAINING without evidence the seed is culled."""
    min_dwell_steps: int = 1
    """Minimum dwell in every other stage."""
    max_dwell_steps: int = 5000
    """Maximum dwell in every other live stage."""
    embargo_steps: int = 200
    """Steps for which a site is blocked after a cull; doubled per failure of the same blueprint there."""
    embargo_s: float = 0.0
    """Seconds for which a site is blocked after a cull, as well."""
    probe_units: int = 64
    """Held-out units (samples or sequences) in one probe."""
    probe_every_steps: int = 10
    """Steps between the probes of a seed that is being judged."""
    probe_budget: float = 0.02
    """Share of training FLOPs that routine probes may take, on average."""
    max_probe_units: int = 1024
    """Undecided after so many units is a cull."""
    wanted_gain_ratio: float = 0.02
    """The gain that is wanted at commit, relative to the probe loss."""
    non_inferiority_ratio: float = 0.005
    """The harm that is tolerated before blending, relative to the probe loss."""
    rent: float = 0.01
    """Loss (relative) that a seed must bring per unit of ln(FLOP ratio)."""
    error_level: float = 0.05
    """Chance of keeping a useless seed, over all germinations of the run."""
    strict_evidence: bool = False
    """Decide by the betting e-process instead of the asymptotic confidence sequence."""
    max_output_ratio: float = 0.5
    """rms(delta)/rms(activation) at the end of TRAINING, at most."""
    max_step_time_ratio: float = 10.0
    """Step time with the seed over the baseline, at most (G3)."""
    isolation_check_every_steps: int = 200
    """Steps between differential isolation probes."""
    max_isolation_violations: int = 3
    """At so many violations the seed is culled."""


@dataclass(frozen=True, slots=True)
class BudgetSettings:
    """`[budgets]`: what counts as slow, relative to the run's own baseline."""

    window_steps: int = 50
    """Steps in the window of medians."""
    slow_ratio: float = 3.0
    """A window this much slower than the baseline misses its budget."""
    misses_to_elevate: int = 3
    """Missed windows in a row that raise L2."""
    healthy_windows_to_clear: int = 3
    """Healthy windows in a row that lower the level again."""
    policy_answer_s: float = 2.0
    """A policy's decision is stale after this."""
    missed_deadlines: int = 3
    """Missed deadlines in a row that count as a lost policy."""
    step_cap_s: float = 0.0
    """Absolute cap of a step; 0 means none."""
    anomaly_window: int = 50
    """Losses in the window of the loss-anomaly rule."""
    full_rollback_s: float = 12.0
    """A rollback that cannot be prepared within this is given up."""
    max_rollbacks: int = 3
    """Automatic rollbacks without a new good state between them that halt the run."""


@dataclass(frozen=True, slots=True)
class ControlSettings:
    """`[control]`: the gRPC control plane."""

    listen: tuple[str, ...] = ()
    """Addresses: `unix:PATH`, `tls:HOST:PORT` or `127.0.0.1:PORT`; empty means `unix:<run directory>/leyline.sock`."""
    tls_certificate: str = ""
    """The server's certificate with those between it and its CA (PEM); needed for `tls:` addresses, as the next two."""
    tls_private_key: str = ""
    """The key of that certificate (PEM, unencrypted, mode 0600 or 0640)."""
    tls_client_ca: str = ""
    """The CAs whose certificates clients must show (PEM)."""
    keyring: str = ""
    """Key ring file (TOML, mode 0600); empty means `<run directory>/keys.toml` if it exists."""
    daemon_id: str = ""
    """The audience of signed requests; empty means one made from the run's name."""
    command_box_capacity: int = 1024
    """Commands that may wait for a safe point; more are refused at once."""
    telemetry_ring_capacity: int = 65536
    """Samples kept for the event loop; older ones are dropped and counted."""
    frame_interval_s: float = 0.1
    """Telemetry leaves in frames this far apart."""
    training_share: float = 0.1
    """Share of training time that calls from outside may take before they are paced."""
    max_concurrent_calls: int = 256
    """Calls in progress over all connections; more are refused."""
    max_streams: int = 256
    """Open streams over all connections."""
    max_connections: int = 1024
    """Connections to each address; more are closed as they come."""
    max_reads_per_s: float = 5000.0
    """Unsigned calls of one peer: one certificate, one host, or all on a Unix socket together."""
    max_commands_per_s: float = 5000.0
    """Signed calls of one principal, a batch on a command stream counting as one."""
    max_decisions_per_s: float = 500.0
    """Sessions, decisions and field reports of one principal."""
    max_emergencies_per_s: float = 100.0
    """Calls of one principal on the emergency lane."""
    max_admin_per_s: float = 100.0
    """Calls of one principal that need the permission `operate` or `admin`."""
    socket_group: str = ""
    """The group that may connect to the Unix sockets; empty leaves the daemon's own."""
    allow_core_dumps: bool = False
    """True lets core files and debuggers of the same user see the daemon's memory, with the secrets in it."""
    drain_s: float = 10.0
    """Time for streams and calls to end at shutdown."""


@dataclass(frozen=True, slots=True)
class JournalSettings:
    """`[journal]`: the run's durable history."""

    enabled: bool = True
    """False keeps the history in memory only: nothing survives the daemon."""


@dataclass(frozen=True, slots=True)
class CheckpointSettings:
    """`[checkpoints]`: what is kept, so that nothing is lost."""

    directory: str = ""
    """Where checkpoints go; empty means `<run directory>/checkpoints`."""
    every_steps: int = 500
    """Write a checkpoint every so many steps; 0 writes them only by command, in emergencies and at the end."""
    keep: int = 3
    """Scheduled checkpoints kept, besides the newest good one."""
    keep_every_steps: int = 0
    """Checkpoints at multiples of this step are kept for ever; 0 keeps none for ever."""
    snapshot_every_steps: int = 0
    """Keep a state in memory every so many steps between checkpoints too, so that a rollback loses less; each costs a
    copy of the state. 0 keeps only those that are checkpointed."""
    snapshots: int = 2
    """States between two checkpoints that are kept in memory."""
    max_snapshot_bytes: int = 8 << 30
    """Memory of all kept states together; a run whose state is too large for two keeps them on disk only."""
    good_after_steps: int = 50
    """A state is good once so many healthy steps have followed it."""


@dataclass(frozen=True, slots=True)
class KernelSettings:
    """`[kernels]`: compiled seeds, where they are kept, and what they may cost."""

    enabled: bool = True
    """Use kernels where they are offered; without, seeds run their eager modules and uploads are refused."""
    store: str = ""
    """Where the library keeps them: a directory, or any URL that fsspec knows (`s3://bucket/kernels`); empty means
    `<run directory>/kernels/library`."""
    quota_bytes: int = 2 << 30
    """What the library may hold; above it the kernels that were not used for longest go, never pinned ones or ones in
    use."""
    keep_days: float = 90.0
    """Kernels that nobody has used for so many days are removed; 0 keeps them."""
    max_kernel_bytes: int = 64 << 20
    """Size of one kernel's files together."""
    cache_bytes: int = 512 << 20
    """Memory of the kernels that are open; those in use stay whatever this says."""
    cache_kernels: int = 32
    """Kernels that are open at once."""
    cache_ttl_s: float = 600.0
    """An open kernel that no seed has used for so long is closed at the next epoch's end."""
    fetch_budget_ms: float = 10.0
    """A kernel that takes longer to fetch and open is reported, and counts against the breaker."""
    validation_timeout_s: float = 300.0
    """For one kernel; the validator is then killed and the kernel quarantined."""
    validation_memory_bytes: int = 8 << 30
    """Address space of the validator."""
    validation_steps: int = 50
    """Optimizer steps beside the eager module."""
    max_error: float = 1e-5
    """Relative error of outputs and gradients in float32."""
    max_error_half: float = 1e-2
    """The same in 16 bits."""
    max_step_ratio: float = 1.0
    """Time of a training step against the eager module's above which a kernel is quarantined."""
    max_load_ms: float = 10.0
    """Time to open it, in the quicker quarter of several tries, above which it is quarantined."""


@dataclass(frozen=True, slots=True)
class PolicySettings:
    """`[policy]`: what a policy is sent."""

    packet_every_steps: int = 0
    """Send a state packet every so many steps besides each epoch's end; 0 sends only those."""
    required: bool = False
    """Without a steering policy the run is conservative from the start."""


@dataclass(frozen=True, slots=True)
class LogSettings:
    """`[log]`: the daemon's own log."""

    level: str = "info"
    """debug, info, warning or error."""
    format: str = "auto"
    """`console`, `json` or `auto` (console on a terminal)."""


@dataclass(frozen=True, slots=True)
class Settings:
    """A whole configuration file."""

    run: RunSettings = RunSettings()
    training: TrainingSettings = TrainingSettings()
    growth: GrowthSettings = GrowthSettings()
    budgets: BudgetSettings = BudgetSettings()
    control: ControlSettings = ControlSettings()
    journal: JournalSettings = JournalSettings()
    checkpoints: CheckpointSettings = CheckpointSettings()
    kernels: KernelSettings = KernelSettings()
    policy: PolicySettings = PolicySettings()
    log: LogSettings = LogSettings()
