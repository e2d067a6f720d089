"""What a kernel's documents make it: offered, to be validated, or never to be used. A rule without files.

Any thread.
"""

from dataclasses import dataclass

from esperd.leyline.errors import EsperdError
from esperd.leyline.kernels import KernelDocuments, KernelReport
from esperd.leyline.vocabulary import KernelState
from esperd.urza.trust import KernelTrust, failed_checks


@dataclass(frozen=True, slots=True)
class Verdict:
    """A kernel's state, with its reason."""

    state: KernelState
    detail: str
    documents: KernelDocuments
    """Without a report that does not count."""
    report: KernelReport | None


def judge(documents: KernelDocuments, fault: str, trust: KernelTrust) -> Verdict:
    """Judge a kernel whose files are all there.

    Args:
        documents: its manifest and report with their signatures.
        fault: why nobody may use it, as somebody found; empty when nobody did.
        trust: whose word counts.
    """
    bare = KernelDocuments(documents.manifest, documents.manifest_signature)
    report, wrong = None, ""
    if documents.report:
        try:
            report = trust.read_report(documents)
        except EsperdError as error:
            wrong = error.metadata["detail"]
    kept = documents if report else bare
    if fault:
        return Verdict(KernelState.QUARANTINED, fault, kept, report)
    try:
        trust.check_manifest(documents)
    except EsperdError as error:
        return Verdict(KernelState.QUARANTINED, error.metadata["detail"], kept, report)
    if report is None:
        return Verdict(KernelState.VALIDATING, wrong and f"its report does not count: {wrong}", bare, None)
    if report.is_favourable:
        return Verdict(KernelState.OFFERED, "", documents, report)
    return Verdict(KernelState.QUARANTINED, failed_checks(report), documents, report)
