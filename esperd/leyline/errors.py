"""The error catalogue: every error a user can meet, as data, with one exception type that carries it.

Any thread. An entry has a stable code, the reason that goes into `google.rpc.ErrorInfo`, the gRPC status name, what
happened and what to do next. The servicers translate it to gRPC in one place, the command lines to text in one place.
"""

from collections.abc import Mapping
from dataclasses import dataclass

from esperd.leyline.commands import Refusal

DOMAIN = "leyline.esper.dev"
"""The `domain` of every ErrorInfo."""


@dataclass(frozen=True, slots=True)
class Entry:
    """One line of the catalogue; the texts are format strings over the error's metadata."""

    code: str
    reason: str
    status: str
    """Name of the gRPC status code."""
    happened: str
    next_step: str


_ROWS = (
    # Requests and keys
    ("E-AUTH-001", "ENVELOPE_TOO_LARGE", "INVALID_ARGUMENT", "The {part} has {size} bytes; at most {limit} are allowed.", "Send a smaller request."),
    ("E-AUTH-002", "AUTH_THROTTLED", "RESOURCE_EXHAUSTED", "Too many refused signatures from this peer.", "Check the key file, then wait for the time in RetryInfo."),
    ("E-AUTH-003", "SIGNATURE_MISSING", "UNAUTHENTICATED", "This method takes a signed envelope and got none.", "Sign the request with a key of the daemon's key ring (esperctl keys new)."),
    ("E-AUTH-004", "ENVELOPE_MALFORMED", "INVALID_ARGUMENT", "The signed header cannot be read: {detail}.", "Fill every field of SignedHeader; the nonce has 16 to 32 bytes."),
    ("E-AUTH-005", "SIGNATURE_INVALID", "UNAUTHENTICATED", "The signature does not match.", "Check key id and secret against the daemon's key ring; sign exactly the bytes that are sent."),
    ("E-AUTH-006", "KEY_NOT_ACTIVE", "UNAUTHENTICATED", "The key is {state}.", "Use an active key, or make one with esperctl keys new."),
    ("E-AUTH-007", "AUDIENCE_MISMATCH", "UNAUTHENTICATED", "The request is addressed to {got}, this daemon is {audience}.", "Read the daemon's id from GetServerInfo."),
    ("E-AUTH-008", "METHOD_MISMATCH", "UNAUTHENTICATED", "The request was signed for {got}, not for {method}.", "Sign the full name of the method that is called."),
    ("E-AUTH-009", "EPOCH_STALE", "UNAUTHENTICATED", "The request was signed for an earlier start of the daemon.", "Read the epoch from GetServerInfo and sign again."),
    ("E-AUTH-010", "TIMESTAMP_OUT_OF_WINDOW", "UNAUTHENTICATED", "The issue time is more than {window_s} s away from the daemon's clock.", "Set the clock, or use the server_time in this error, and sign again."),
    ("E-AUTH-011", "NONCE_REPLAYED", "UNAUTHENTICATED", "This nonce has been used.", "Make a new nonce for every attempt."),
    ("E-AUTH-012", "NONCE_CAPACITY", "RESOURCE_EXHAUSTED", "Too many requests are remembered at once.", "Wait for the time in RetryInfo; send high rates in batches."),
    ("E-AUTH-013", "PERMISSION_REQUIRED", "PERMISSION_DENIED", "The key of {principal} lacks the permission {permission}.", "Ask the operator for a key with that permission."),
    ("E-AUTH-014", "NO_KEYRING", "UNAUTHENTICATED", "This daemon has no key ring, so it accepts no signed request.", "Make one with esperctl keys new --keyring FILE, then have it read: SIGHUP."),
    ("E-AUTH-015", "UNIX_SOCKET_ONLY", "PERMISSION_DENIED", "{method} is answered over a Unix socket only.", "Call it on the daemon's own machine, through its socket."),
    ("E-AUTH-016", "RATE_LIMITED", "RESOURCE_EXHAUSTED", "{principal} sends more than {rate} {what} a second.", "Wait for the time in RetryInfo; send high rates over CommandStream in batches."),
    ("E-AUTH-017", "KEY_UNKNOWN", "NOT_FOUND", "There is no key {key_id} in the key ring.", "List them with esperctl keys list."),
    ("E-AUTH-018", "REVOCATION_NOT_KEPT", "FAILED_PRECONDITION", "The key {key_id} is refused from now on, but {path} could not be written: {detail}.", "Mend that and revoke it again; until then a restart of the daemon would accept the key."),
    # Commands
    ("E-CMD-001", "COMMAND_INVALID", "INVALID_ARGUMENT", "The command is not valid: {detail}.", "Correct the named fields."),
    ("E-CMD-002", "REQUEST_ID_REUSED", "ALREADY_EXISTS", "The request id {request_id} stands for another request.", "Use a new request_id for a new request."),
    ("E-CMD-003", "STATE_CHANGED", "ABORTED", "The state is at revision {revision}, the command expected {expected}.", "Look at the state again and decide again."),
    ("E-CMD-004", "COMMAND_BOX_FULL", "RESOURCE_EXHAUSTED", "The trainer has {capacity} commands waiting.", "Wait for the time in RetryInfo and send again with the same request_id."),
    ("E-CMD-005", "COMMAND_EXPIRED", "FAILED_PRECONDITION", "The command's expire_time passed before it could take effect.", "Send it again with a later expire_time."),
    ("E-CMD-006", "COMMAND_UNKNOWN", "NOT_FOUND", "There is no command {command_id}.", "List them with esperctl command list."),
    ("E-CMD-007", "COMMAND_LOST_IN_RESTART", "ABORTED", "The daemon ended before the command took effect.", "Look at the state, then send a new command."),
    ("E-CMD-008", "COMMAND_NOT_CANCELLABLE", "FAILED_PRECONDITION", "The command is already {state}.", "Nothing is left to cancel."),
    ("E-CMD-009", "COMMAND_CANCELLED", "CANCELLED", "The command was cancelled before it took effect.", "Send a new command if it is still wanted."),
    ("E-CMD-010", "DECISION_STALE", "FAILED_PRECONDITION", "The decision came {detail}.", "Decide on the newest state packet, before its deadline."),
    # Seeds and sites
    ("E-SITE-001", "SITE_UNKNOWN", "NOT_FOUND", "There is no site {site}.", "List the sites with esperctl sites."),
    ("E-SITE-002", "SITE_OCCUPIED", "FAILED_PRECONDITION", "The site {site} is taken: {detail}.", "Wait for the seed there, or cull it."),
    ("E-SITE-003", "SITE_EMBARGOED", "FAILED_PRECONDITION", "The site {site} is embargoed until step {until_step}.", "Wait, or choose another site."),
    ("E-SEED-001", "SEED_UNKNOWN", "NOT_FOUND", "There is no seed {seed_id}.", "List the seeds with esperctl seeds."),
    ("E-SEED-002", "SEED_STAGE", "FAILED_PRECONDITION", "Seed {seed_id} is {stage}; {operation} needs {needed}.", "Watch the seed with esperctl seeds; {story}"),
    ("E-SEED-003", "SEED_DWELL", "FAILED_PRECONDITION", "Seed {seed_id} has been {stage} for {steps} of at least {needed} steps.", "Send it again later, or use auto_advance."),
    ("E-SEED-004", "SEED_NOT_BLENDING", "FAILED_PRECONDITION", "Seed {seed_id} is {stage}; only a blending seed has an alpha to set.", "Start its grafting first."),
    ("E-SEED-005", "GATE_FAILED", "FAILED_PRECONDITION", "{gate} failed for seed {seed_id}: {detail}.", "The evidence is in the journal; cull the seed or let it train longer."),
    ("E-SEED-006", "GATE_UNMEASURED", "FAILED_PRECONDITION", "{gate} has no measurement for seed {seed_id} yet: {detail}.", "Send it again when the evidence is there, or use auto_advance."),
    ("E-SEED-007", "BLUEPRINT_UNKNOWN", "NOT_FOUND", "There is no blueprint {blueprint_id}.", "esperctl sites shows what each site admits."),
    ("E-SEED-008", "BLUEPRINT_PARAMETER", "INVALID_ARGUMENT", "{detail}.", "Stay within the bounds that the blueprint states."),
    ("E-SEED-009", "SEED_LIMIT", "RESOURCE_EXHAUSTED", "{detail}.", "Wait for a seed to finish, cull one, or raise the limit in [growth]."),
    ("E-SEED-010", "RUN_CONSERVATIVE", "FAILED_PRECONDITION", "The run is conservative ({cause}): no new seeds.", "Wait until it clears itself, or clear it: esperctl emergency list, esperctl emergency clear."),
    ("E-SEED-011", "BLEND_UNSUITABLE", "INVALID_ARGUMENT", "{detail}.", "Choose another blend mode for this site."),
    ("E-SEED-012", "ALPHA_BUSY", "FAILED_PRECONDITION", "Alpha of seed {seed_id} is moving; it can be retargeted only while it holds.", "Wait until the ramp ends."),
    # Optimizers
    ("E-OPT-001", "HYPERPARAMETER_UNKNOWN", "INVALID_ARGUMENT", "The optimizer of {target} has no hyper-parameter {name}.", "It has {known}."),
    ("E-OPT-002", "HYPERPARAMETER_RANGE", "INVALID_ARGUMENT", "{name} = {value} is out of range: {detail}.", "Stay within the range; nothing is clamped."),
    ("E-OPT-003", "OPTIMIZER_TARGET", "INVALID_ARGUMENT", "There is no optimizer for {target}.", "Use host, all, or a live seed."),
    ("E-BRK-001", "BREAKER_UNKNOWN", "NOT_FOUND", "There is no circuit breaker {name}.", "esperctl status lists them."),
    # Run and daemon
    ("E-RUN-001", "RUN_UNKNOWN", "NOT_FOUND", "There is no run {run_id}.", "List the runs with RunService.ListRuns."),
    ("E-RUN-002", "RUN_NOT_TRAINING", "FAILED_PRECONDITION", "The run is {phase}.", "{detail}"),
    ("E-RUN-003", "RUN_FAILED", "FAILED_PRECONDITION", "The run failed: {detail}.", "Read the log for the traceback of the task."),
    ("E-RUN-006", "RUN_CATCHING_UP", "UNAVAILABLE", "The run is catching up with its earlier start (step {step} of {until}).", "Send it again when it has caught up; esperctl status shows it."),
    ("E-RUN-007", "RUN_STARTING", "UNAVAILABLE", "The run is still being set up.", "Send it again in a moment; esperctl status shows it."),
    ("E-RUN-008", "RUN_ACTIVE", "FAILED_PRECONDITION", "The run {run_id} is {phase}.", "Stop it first: esperctl stop."),
    ("E-RUN-009", "RUN_CHANGED", "ABORTED", "The current run is {run_id}, not {expected}.", "Look at the run again (esperctl status) and decide again."),
    ("E-RUN-004", "EMERGENCY_UNKNOWN", "NOT_FOUND", "There is no emergency {emergency_id}.", "List them with esperctl status."),
    ("E-RUN-005", "EMERGENCY_UNACKNOWLEDGED", "DEADLINE_EXCEEDED", "The trainer has not yet acknowledged the emergency.", "It will at its next safe point; watch the state."),
    # Checkpoints, resume, rollback, export
    ("E-CKP-001", "CHECKPOINT_UNKNOWN", "NOT_FOUND", "There is no checkpoint {checkpoint_id}.", "List them with esperctl checkpoint list."),
    ("E-CKP-002", "CHECKPOINT_CORRUPT", "DATA_LOSS", "The checkpoint {checkpoint_id} is damaged: {detail}.", "Use another one (esperctl checkpoint list), and check the disk."),
    ("E-CKP-003", "CHECKPOINT_MISMATCH", "FAILED_PRECONDITION", "The checkpoint {checkpoint_id} does not fit this run: {detail}.", "Give back the task and the settings that it was written with, or begin anew with esperd serve --new-run."),
    ("E-CKP-004", "CHECKPOINT_UNSAVABLE", "FAILED_PRECONDITION", "The state at {path} cannot be saved: {detail}.", "Keep only tensors, numbers, strings and containers of these in what is saved."),
    ("E-CKP-005", "CHECKPOINT_FAILED", "UNAVAILABLE", "The checkpoint could not be written: {detail}.", "Free disk space or mend the disk; training goes on and the last good checkpoint is untouched."),
    ("E-CKP-006", "CHECKPOINT_BUSY", "RESOURCE_EXHAUSTED", "{num} checkpoints are being written already.", "Wait until they are done."),
    ("E-CKP-007", "CHECKPOINT_VERSION", "FAILED_PRECONDITION", "The checkpoint {checkpoint_id} has format {found}, this build reads {known}.", "Read it with the build that wrote it."),
    ("E-CKP-008", "VERIFICATION_BUSY", "RESOURCE_EXHAUSTED", "The checkpoint {checkpoint_id} is being verified.", "Wait until that is done."),
    ("E-CKP-009", "CHECKPOINT_DIRECTORY", "FAILED_PRECONDITION", "The checkpoint directory {path} cannot be used: {detail}.", "Mend it, or name another one in [checkpoints] directory."),
    ("E-RBK-001", "ROLLBACK_TARGET", "FAILED_PRECONDITION", "There is no state to go back to: {detail}.", "esperctl checkpoint list shows the states that there are."),
    ("E-RBK-002", "ROLLBACK_DEADLINE", "DEADLINE_EXCEEDED", "The state could not be read within {within_s} s.", "Nothing was changed; try again, or raise [budgets] full_rollback_s."),
    ("E-RBK-003", "ROLLBACK_FAILED", "INTERNAL", "The state could not be restored: {detail}.", "Training stands still; restart the daemon, which goes on from its newest checkpoint."),
    ("E-EXP-001", "EXPORT_UNSETTLED", "FAILED_PRECONDITION", "Seeds are not settled: {detail}.", "Wait until they are fossilized or culled, or leave live seeds out (--without-live-seeds)."),
    ("E-EXP-002", "EXPORT_FAILED", "FAILED_PRECONDITION", "The model could not be exported: {detail}.", "Read the log of the export, or use the other format."),
    ("E-EXP-003", "EXPORT_BUSY", "RESOURCE_EXHAUSTED", "The checkpoint {checkpoint_id} is being exported.", "Wait until that is done."),
    ("E-KRN-001", "KERNEL_UNKNOWN", "NOT_FOUND", "There is no kernel {artifact_id}.", "List those that there are: esperctl kernels list."),
    ("E-KRN-002", "KERNEL_MANIFEST_INVALID", "INVALID_ARGUMENT", "The kernel's manifest is none: {detail}.", "Compile the kernel again: esper tezzeret compile."),
    ("E-KRN-003", "KERNEL_SIGNATURE_INVALID", "PERMISSION_DENIED", "The manifest of kernel {artifact_id} is not signed as it must be: {detail}.", "Upload it with the key that signed it and may compile, or vouch for it with your own: esperctl kernels upload --sign."),
    ("E-KRN-004", "KERNEL_REPORT_INVALID", "FAILED_PRECONDITION", "The validator's report on the kernel cannot be relied on: {detail}.", "Upload the kernel again: it is then validated again."),
    ("E-KRN-005", "KERNEL_CORRUPT", "DATA_LOSS", "The files of kernel {artifact_id} are not what its manifest says: {detail}.", "It was removed; upload it again, and look at the disk."),
    ("E-KRN-006", "KERNEL_MISFIT", "FAILED_PRECONDITION", "Kernel {artifact_id} is not for this: {detail}.", "Compile one for this variant: esper tezzeret serve does it by itself."),
    ("E-KRN-007", "KERNEL_NOT_OFFERED", "FAILED_PRECONDITION", "Kernel {artifact_id} is {state}: {detail}.", "Only an OFFERED kernel is used; see esperctl kernels list."),
    ("E-KRN-008", "KERNEL_NOT_RESIDENT", "FAILED_PRECONDITION", "Kernel {artifact_id} is not in memory: {detail}.", "It is being fetched; send the command again."),
    ("E-KRN-009", "KERNEL_IN_USE", "FAILED_PRECONDITION", "Kernel {artifact_id} is in use: {detail}.", "Put the seeds back to their eager modules first: esperctl seed kernel SEED --eager."),
    ("E-KRN-010", "KERNEL_QUOTA", "RESOURCE_EXHAUSTED", "The kernel of {num_bytes} bytes does not fit: {detail}.", "Delete kernels (esperctl kernels delete) or raise [kernels] quota_bytes."),
    ("E-KRN-011", "KERNEL_UPLOAD_GAP", "OUT_OF_RANGE", "A chunk begins at byte {offset} of {role}, and {num_received} are there.", "Go on where the upload stands: CreateUpload tells it."),
    ("E-KRN-012", "KERNEL_UPLOAD_UNKNOWN", "NOT_FOUND", "No upload of kernel {artifact_id} is open.", "Begin with CreateUpload."),
    ("E-KRN-013", "KERNEL_UNLOADABLE", "FAILED_PRECONDITION", "Kernel {artifact_id} cannot be opened: {detail}.", "Its seeds run eager; it is quarantined. Compile it again on this machine."),
    ("E-KRN-014", "KERNEL_STORE_UNAVAILABLE", "UNAVAILABLE", "The kernel library at {path} cannot be used: {detail}.", "Check the path, its permissions and free space; seeds run eager meanwhile."),
    ("E-KRN-015", "KERNELS_DISABLED", "FAILED_PRECONDITION", "Kernels are switched off.", "Set [kernels] enabled = true and start the daemon again."),
    ("E-KRN-016", "KERNEL_NOT_WANTED", "NOT_FOUND", "No kernel with the key {variant_key} is wanted.", "See what is: esperctl kernels list --state wanted."),
    ("E-KRN-017", "KERNEL_BREAKER_OPEN", "FAILED_PRECONDITION", "Too many kernels have failed: {detail}.", "Seeds run eager until it heals; esperctl breaker shows and closes it."),
    ("E-SRV-001", "DRAINING", "UNAVAILABLE", "The daemon is shutting down.", "Connect again after the time in RetryInfo."),
    ("E-SRV-002", "JOURNAL_UNAVAILABLE", "UNAVAILABLE", "The journal cannot be written: {detail}.", "Free disk space; the command was not accepted, so send it again."),
    ("E-SRV-003", "TRAINER_NOT_RUNNING", "UNAVAILABLE", "The trainer is not running ({phase}).", "Restart the daemon to go on with a run that failed; begin another with esperctl start."),
    ("E-SRV-004", "SLOW_CONSUMER", "RESOURCE_EXHAUSTED", "The stream was read too slowly; revision {revision} was the last one sent.", "Read faster, or resume from that revision, or watch with LATEST."),
    ("E-SRV-005", "REVISION_COMPACTED", "OUT_OF_RANGE", "The resume token is older than revision {floor}.", "Watch again without a token, or let it begin anew on a gap (resnapshot_on_gap, restart_on_gap)."),
    ("E-SRV-006", "RESUME_TOKEN_INVALID", "INVALID_ARGUMENT", "The resume token cannot be read.", "Pass the token exactly as it came."),
    ("E-SRV-007", "TOO_MANY_STREAMS", "RESOURCE_EXHAUSTED", "{limit} streams are open.", "Close one, or wait for the time in RetryInfo."),
    ("E-SRV-008", "PAGE_TOKEN_INVALID", "INVALID_ARGUMENT", "The page token cannot be read.", "Start again without a token."),
    ("E-SRV-009", "LEASE_TAKEN", "FAILED_PRECONDITION", "{principal} steers this run.", "Wait until it leaves, or open the stream in advise mode."),
    ("E-SRV-010", "LEASE_LOST", "FAILED_PRECONDITION", "This policy holds no lease: {detail}.", "Open DecisionStream again."),
    ("E-SRV-011", "METRIC_UNKNOWN", "INVALID_ARGUMENT", "There is no metric {name}.", "List them with esperctl telemetry --list."),
    ("E-SRV-012", "PACED_OUT", "RESOURCE_EXHAUSTED", "More calls are waiting than training may be slowed for.", "Wait for the time in RetryInfo; send high rates over CommandStream in batches."),
    ("E-SRV-013", "INTERNAL", "INTERNAL", "The daemon met a fault of its own ({detail}).", "Report it with the log lines of that moment."),
    ("E-SRV-014", "REPORT_INVALID", "INVALID_ARGUMENT", "The field report is not valid: {detail}.", "Correct the named fields."),
    ("E-SRV-015", "JOURNAL_UNREADABLE", "FAILED_PRECONDITION", "The journal {path} cannot be read: {detail}.", "Move the file away to begin a new history, or start the daemon that wrote it."),
    ("E-SRV-016", "RECORD_EXISTS", "ALREADY_EXISTS", "The journal already holds the {kind} {key}.", "Give a new record a new id."),
    ("E-SRV-017", "REQUEST_INVALID", "INVALID_ARGUMENT", "The request is not valid: {detail}.", "Correct the named fields."),
    ("E-SRV-018", "HEALTH_UNKNOWN", "NOT_FOUND", "There is no service or condition {name}.", "List them with grpc.health.v1.Health/List."),
    # Configuration, task, files
    ("E-CFG-001", "CONFIG_INVALID", "INVALID_ARGUMENT", "{detail}", "Correct the file; esperd check FILE shows all errors at once."),
    ("E-CFG-002", "CONFIG_UNREADABLE", "NOT_FOUND", "The configuration {path} cannot be read: {detail}.", "esperd init DIR writes a working one."),
    ("E-CFG-003", "KEYRING_INVALID", "INVALID_ARGUMENT", "The key ring {path} is not valid: {detail}.", "Make a key with esperctl keys new; the file must have mode 0600."),
    ("E-CFG-004", "KEY_FILE_INVALID", "INVALID_ARGUMENT", "The key file {path} is not valid: {detail}.", "Make a key with esperctl keys new --client-file."),
    ("E-CFG-005", "DIRECTORY_TAKEN", "ALREADY_EXISTS", "{path} is in use by process {pid}.", "Stop that daemon, or choose another run directory."),
    ("E-CFG-006", "FILE_EXISTS", "ALREADY_EXISTS", "{path} exists already.", "Choose another place, or remove it."),
    ("E-CFG-007", "ADDRESS_UNUSABLE", "INVALID_ARGUMENT", "Cannot listen on {address}: {detail}.", "Use unix:PATH (at most 100 bytes), tls:HOST:PORT, or 127.0.0.1:PORT with a free port."),
    ("E-CFG-008", "TLS_INVALID", "INVALID_ARGUMENT", "The TLS files cannot be used: {detail}.", "Correct tls_certificate, tls_private_key and tls_client_ca in [control]."),
    ("E-TASK-001", "TASK_NOT_FOUND", "NOT_FOUND", "The task {task} cannot be imported: {detail}.", "Write it as package.module:function, importable from the file's directory."),
    ("E-TASK-002", "TASK_INVALID", "INVALID_ARGUMENT", "The task {task} is not valid: {detail}.", "Return Task(model, optimizer, loss_fn, train_data, eval_data)."),
    ("E-TASK-003", "TASK_FAILED", "FAILED_PRECONDITION", "The task {task} raised {detail}.", "Fix the task; esperd check FILE runs one step of it."),
    ("E-TASK-004", "DATA_MISSING", "FAILED_PRECONDITION", "{detail}", "Install what is named; no synthetic data is ever used."),
    ("E-TASK-005", "SITE_PATTERN", "INVALID_ARGUMENT", "The site pattern {pattern} names no module.", "The model has {known}."),
    ("E-DEV-001", "DEVICE_UNAVAILABLE", "FAILED_PRECONDITION", "The device {device} is not there: {detail}.", "Set [training] device to cpu, or fix the driver."),
    ("E-DEV-002", "TORCH_MISSING", "FAILED_PRECONDITION", "PyTorch is not installed.", "pip install 'esperd[train]'."),
    ("E-DEV-003", "OUT_OF_MEMORY", "RESOURCE_EXHAUSTED", "A step does not fit into the memory of {device}, and no seed is left to cull: {detail}.", "Use smaller batches or a smaller model, or free the device; the memory summary is in the run directory."),
    ("E-CLI-001", "DAEMON_UNREACHABLE", "UNAVAILABLE", "No daemon answers at {address}: {detail}.", "Start one with esperd serve FILE, or name its address with --address."),
    ("E-CLI-002", "NO_KEY", "FAILED_PRECONDITION", "This change must be signed and no key was given.", "Use --key FILE or set ESPER_KEY; esperctl keys new makes one."),
    ("E-CLI-003", "CLIENT_TLS_INVALID", "INVALID_ARGUMENT", "The files for TLS cannot be used: {detail}.", "Name all three in the key file (ca, certificate, private_key) or with --tls-ca, --tls-cert and --tls-key."),
    ("E-CLI-004", "KERNEL_FOLDER_INVALID", "INVALID_ARGUMENT", "The directory {path} holds no kernel that can be used: {detail}.", "Compile one into it: esper tezzeret compile BLUEPRINT -o DIR."),
)  # fmt: skip

CATALOGUE: Mapping[str, Entry] = {row[1]: Entry(*row) for row in _ROWS}
"""Every entry by its reason."""


class EsperdError(Exception):
    """An error of the catalogue, with the facts that fill its text."""

    def __init__(self, reason: str, **metadata: object) -> None:
        self.entry = CATALOGUE[reason]
        self.metadata = {name: str(value) for name, value in metadata.items()}
        super().__init__(self.message)

    @property
    def reason(self) -> str:
        """The catalogue's reason."""
        return self.entry.reason

    @property
    def message(self) -> str:
        """Code, what happened and what to do next, in one line."""
        facts = _Facts(self.metadata)
        entry = self.entry
        return f"{entry.code}: {entry.happened.format_map(facts)} {entry.next_step.format_map(facts)}".rstrip()

    def refusal(self) -> Refusal:
        """The same error as a value that crosses threads and goes into the journal."""
        return Refusal(self.reason, self.message, self.metadata)


class _Facts(dict[str, str]):
    def __missing__(self, key: str) -> str:
        return "?"
