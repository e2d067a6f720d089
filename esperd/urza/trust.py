"""Whose word counts: whether a kernel's manifest and report are signed by those who may vouch for it.

Any thread; knows the key ring as it is at the moment of each call, the validators' keys, and neither files nor torch.
Design 05, order of trust.
"""

from collections.abc import Callable, Mapping

from esperd.leyline.errors import EsperdError
from esperd.leyline.kernel_documents import (
    MANIFEST_DOMAIN,
    REPORT_DOMAIN,
    artifact_id_of,
    is_signed,
    read_report,
)
from esperd.leyline.kernels import KernelDocuments, KernelReport
from esperd.leyline.keyring import KeyRing, KeyState
from esperd.leyline.secret import Secret
from esperd.leyline.vocabulary import Permission


class KernelTrust:
    """Judges signatures over exact bytes."""

    def __init__(
        self, keyring: Callable[[], KeyRing], validators: Mapping[str, Secret], clock: Callable[[], float]
    ) -> None:
        """Judge by what `keyring` returns at each call, by the secrets of the validators by key id, and by the time."""
        self._keyring = keyring
        self._validators = dict(validators)
        self._clock = clock

    @property
    def validator_ids(self) -> tuple[str, ...]:
        """The keys whose reports count here."""
        return tuple(self._validators)

    def principal_of(self, key_id: str) -> str:
        """Whose key it is; empty when it is unknown."""
        key = self._keyring().find(key_id)
        return "" if key is None else key.principal

    def check(self, documents: KernelDocuments) -> None:
        """All that must be vouched for before a library may be opened.

        Raises:
            EsperdError: KERNEL_SIGNATURE_INVALID, KERNEL_REPORT_INVALID.
        """
        self.check_manifest(documents)
        self.check_report(documents)

    def check_manifest(self, documents: KernelDocuments) -> None:
        """Whether a key that may compile has signed these bytes; one that has expired since is as good as ever.

        Raises:
            EsperdError: KERNEL_SIGNATURE_INVALID, with the reason in its words.
        """
        wrong = self._wrong_signature(documents)
        if wrong:
            raise EsperdError("KERNEL_SIGNATURE_INVALID", artifact_id=artifact_id_of(documents.manifest), detail=wrong)

    def check_report(self, documents: KernelDocuments) -> KernelReport:
        """The report, when it lets the kernel be used.

        Raises:
            EsperdError: KERNEL_REPORT_INVALID, with the reason in its words.
        """
        report = self.read_report(documents)
        if not report.is_favourable:
            raise _report_invalid(f"it says {report.handling_class.name}: {failed_checks(report)}")
        return report

    def read_report(self, documents: KernelDocuments) -> KernelReport:
        """The report, whatever it says, when a validator of this daemon wrote it about this kernel.

        Raises:
            EsperdError: KERNEL_REPORT_INVALID, with the reason in its words.
        """
        signature = documents.report_signature
        if not documents.report or signature is None:
            raise _report_invalid("there is none")
        secret = self._validators.get(signature.key_id)
        if secret is None:
            raise _report_invalid(f"the validator {signature.key_id} is unknown here")
        if not is_signed(secret.reveal(), REPORT_DOMAIN, documents.report, signature.hmac):
            raise _report_invalid(f"the signature by {signature.key_id} is of other bytes")
        report = read_report(documents.report)
        if report.artifact_id != artifact_id_of(documents.manifest):
            raise _report_invalid(f"it is about kernel {report.artifact_id}")
        return report

    def _wrong_signature(self, documents: KernelDocuments) -> str:
        signature = documents.manifest_signature
        key = self._keyring().find(signature.key_id)
        if key is None:
            return f"the key {signature.key_id} is unknown"
        state = key.state(self._clock())
        if state in (KeyState.REVOKED, KeyState.PREPARED):
            return f"the key {signature.key_id} is {state}"
        if not key.allows(Permission.COMPILE):
            return f"the key {signature.key_id} lacks the permission compile"
        if not is_signed(key.secret.reveal(), MANIFEST_DOMAIN, documents.manifest, signature.hmac):
            return f"the signature by {signature.key_id} is of other bytes"
        return ""


def failed_checks(report: KernelReport) -> str:
    """The checks that failed, in words."""
    failed = [
        f"{check.name} ({check.detail})" if check.detail else check.name for check in report.checks if not check.passed
    ]
    return ", ".join(failed) or "no check failed"


def _report_invalid(detail: str) -> EsperdError:
    return EsperdError("KERNEL_REPORT_INVALID", detail=detail)
