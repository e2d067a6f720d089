"""The tables of `esperctl kernels` and `esperctl blueprints`."""

from collections.abc import Iterable, Mapping

from google.protobuf.message import DecodeError

from esper.ctl import words
from esper.ctl.output import columns, moment, number, pairs, size
from esper.leyline.v1 import kernel_pb2, kernel_service_pb2
from esper.text import plain

SHORT_ID_CHARS = 12
"""Of a kernel's name where it is one of many; the commands take it in this length."""


def page_of(page: kernel_service_pb2.ListKernelsResponse) -> str:
    """A page of kernels, and how full the library is."""
    lines = [rows_of(page.kernels)]
    if page.next_page_token:
        lines.append(f"more with --page-token {page.next_page_token}")
    if page.quota_bytes:
        stored = f"stored {size(page.stored_bytes)} of {size(page.quota_bytes)}"
        lines.append(f"{stored}, in memory {size(page.resident_bytes)}")
    else:
        lines.append("kernels are switched off in this daemon: [kernels] enabled")
    return "\n".join(lines)


def rows_of(found: Iterable[kernel_pb2.Kernel]) -> str:
    """One line for each kernel."""
    header = ("KERNEL", "STATE", "BLUEPRINT", "SHAPE", "BATCH", "SIZE", "STEP", "LOAD MS", "SEEDS", "WAITING", "NOTE")
    rows = [
        (
            short(kernel.artifact_id),
            words.kernel_state(kernel.state),
            blueprint(kernel.variant),
            shape(kernel.variant),
            batches(kernel),
            size(kernel.num_bytes) if kernel.num_bytes else "-",
            number(kernel.report.step_ratio) if kernel.HasField("report") else "-",
            number(kernel.report.load_ms) if kernel.HasField("report") else "-",
            ",".join(kernel.seed_ids) or "-",
            kernel.num_waiting_seeds or "-",
            note(kernel),
        )
        for kernel in found
    ]
    return columns(header, rows, "no kernels, and none is wanted")


def line(kernel: kernel_pb2.Kernel) -> str:
    """One kernel in a line of its own."""
    what = f"{blueprint(kernel.variant)} {shape(kernel.variant)} batch {batches(kernel)}"
    told = note(kernel)
    return plain(
        f"{short(kernel.artifact_id)}  {words.kernel_state(kernel.state)}  {what}" + (f"  {told}" * bool(told))
    )


def short(artifact_id: str) -> str:
    """The name of a kernel among others; `-` while it has none."""
    return artifact_id[:SHORT_ID_CHARS] or "-"


def blueprint(variant: kernel_pb2.KernelVariant) -> str:
    """`bottleneck(width=16)`."""
    return f"{variant.blueprint_id}({_values(variant.parameters)})" if variant.parameters else variant.blueprint_id


def shape(variant: kernel_pb2.KernelVariant) -> str:
    """`64x8x8 float32`, with the autocast under which it runs."""
    sizes = "x".join(map(str, variant.tail_shape))
    return f"{sizes} {variant.dtype}" + (f"/{variant.autocast_dtype}" if variant.autocast_dtype else "")


def batches(kernel: kernel_pb2.Kernel) -> str:
    """The batch sizes of a kernel, or the one that is wanted."""
    return f"{kernel.min_batch}-{kernel.max_batch}" if kernel.max_batch else str(kernel.hint_batch)


def note(kernel: kernel_pb2.Kernel) -> str:
    """What must be known of a kernel besides its numbers: the check that failed, or why it is where it is."""
    is_gone = kernel.state == kernel_pb2.KERNEL_STATE_REMOVED
    failed = None if is_gone else next((check for check in kernel.report.checks if not check.passed), None)
    marks = [
        *(["pinned"] if kernel.pinned else []),
        *(["in memory"] if kernel.resident else []),
        *([f"attempt {kernel.num_attempts}"] if kernel.num_attempts > 1 else []),
        *([f"failed {check_line(failed)}"] if failed is not None else []),
        *([kernel.detail] if kernel.detail and failed is None else []),
    ]
    return ", ".join(marks)


def check_line(check: kernel_pb2.KernelCheck) -> str:
    """A check in a few words: `step 1.2 ratio (limit 1): slower than eager`."""
    measured = f" {number(check.value)} {check.unit} (limit {number(check.limit)})" if check.limit else ""
    return f"{check.name}{measured}" + (f": {check.detail}" if check.detail else "")


def details(answer: kernel_service_pb2.GetKernelResponse) -> str:
    """One kernel with its manifest, and each thing that the validator looked at."""
    kernel = answer.kernel
    variant = kernel.variant
    rows: list[tuple[str, object]] = [
        ("kernel", kernel.artifact_id),
        ("state", f"{words.kernel_state(kernel.state)} since {moment(kernel.update_time)}"),
        ("detail", kernel.detail),
        ("blueprint", blueprint(variant)),
        ("source", variant.blueprint_sha256),
        ("tier", words.tier(kernel.tier)),
        ("shape", f"{shape(variant)}, weights {variant.weight_dtype}, {variant.memory_format}"),
        ("batch sizes", f"{batches(kernel)}, compiled at {kernel.hint_batch}"),
        ("for", f"{variant.device_type} {variant.capability}, {variant.machine}, torch {variant.torch_version}"),
        ("size", size(kernel.num_bytes)),
        ("sites", ", ".join(kernel.sites)),
        ("seeds", ", ".join(kernel.seed_ids)),
        ("seeds that wait", kernel.num_waiting_seeds or ""),
        ("pinned", kernel.pinned),
        ("in memory", kernel.resident),
        ("uploaded by", kernel.principal),
        ("wish", kernel.variant_key),
    ]
    return "\n".join([pairs(rows), *_manifest(answer), *_report(answer)])


def verdict(answer: kernel_service_pb2.VerifyKernelResponse) -> str:
    """Whether a kernel is intact, and what is not."""
    if answer.intact:
        return f"{short(answer.kernel.artifact_id)}  intact, {size(answer.kernel.num_bytes)}"
    return f"{short(answer.kernel.artifact_id)}  DAMAGED: {'; '.join(answer.findings)}"


def blueprints(found: Iterable[kernel_service_pb2.BlueprintDescriptor]) -> str:
    """One line for each blueprint."""
    header = ("BLUEPRINT", "TIER", "RISK", "PARAMETERS", "SITES", "WHAT")
    rows = [
        (
            one.blueprint_id,
            words.tier(one.tier),
            f"{one.risk:.2f}",
            ", ".join(f"{name}={_bounds(bounds)}" for name, bounds in sorted(one.allowed_parameters.items())) or "-",
            ", ".join(one.sites) or "-",
            one.description,
        )
        for one in found
    ]
    return columns(header, rows, "no blueprints: the run is still starting, or no site takes any")


def _bounds(bounds: kernel_service_pb2.BlueprintParameterBounds) -> str:
    """`16 (1 to 256)`."""
    return f"{number(bounds.default_value)} ({number(bounds.min_value)} to {number(bounds.max_value)})"


def _manifest(answer: kernel_service_pb2.GetKernelResponse) -> list[str]:
    if not answer.manifest:
        return []
    try:
        manifest = kernel_pb2.KernelManifest.FromString(answer.manifest)
    except DecodeError:
        return ["the manifest cannot be read"]
    rows: list[tuple[str, object]] = [
        ("compiled", f"{moment(manifest.create_time)} in {manifest.compile_s:.1f} s, {manifest.strategy}"),
        ("compiler", manifest.compiler),
        ("random", "draws random numbers" if manifest.draws_random else ""),
        ("signed by", answer.manifest_signature.key_id),
    ]
    files = [
        (
            f"  {words.word(kernel_pb2.KernelFileRole, file.role, 'KERNEL_FILE_ROLE_')}",
            size(file.num_bytes),
            file.sha256.hex(),
        )
        for file in manifest.files
    ]
    return ["", pairs(rows), "", "files:", columns(("  LIBRARY", "SIZE", "SHA-256"), files, "  none")]


def _report(answer: kernel_service_pb2.GetKernelResponse) -> list[str]:
    kernel = answer.kernel
    if not kernel.HasField("report"):
        return ["", "not validated yet"]
    report = kernel.report
    rows: list[tuple[str, object]] = [
        ("validated", f"{moment(report.create_time)} by validator {report.validator_version}"),
        ("hazard", f"{words.hazard(report.hazard_band)}, risk {report.risk_score:.2f}"),
        ("handling", words.handling(report.handling_class)),
        ("load", f"{number(report.load_ms)} ms, first step {number(report.first_ms)} ms"),
        ("step", f"{number(report.step_ratio)} of eager; parameters alone {number(report.parameter_step_ratio)}"),
        ("error", number(report.max_error)),
        ("memory", size(report.resident_bytes)),
        ("signed by", answer.report_signature.key_id),
    ]
    checks = [
        (
            "  ok" if check.passed else "  FAIL",
            check.name,
            number(check.value),
            number(check.limit) if check.limit else "-",
            check.unit,
            check.detail,
        )
        for check in report.checks
    ]
    return [
        "",
        pairs(rows),
        "",
        "checks:",
        columns(("  ", "CHECK", "VALUE", "LIMIT", "UNIT", "DETAIL"), checks, "  none"),
    ]


def _values(values: Mapping[str, float]) -> str:
    return ", ".join(f"{name}={number(value)}" for name, value in sorted(values.items()))
