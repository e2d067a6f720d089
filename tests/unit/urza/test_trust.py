"""Whose word counts."""

from dataclasses import replace

import pytest

from esperd.leyline.errors import EsperdError
from esperd.leyline.kernels import KernelDocuments, Signature
from esperd.leyline.keyring import Key, KeyState
from esperd.leyline.secret import Secret
from esperd.leyline.vocabulary import HandlingClass, Permission
from tests.unit.urza.samples import COMPILER, NOW_UNIX_S, VALIDATOR_ID, World, make, report_on, sign

MADE = make()


def documents(report: tuple[bytes, Signature] | None = None) -> KernelDocuments:
    report = report or report_on(MADE.artifact_id)
    return KernelDocuments(MADE.manifest, MADE.signature, *report)


def refusal(world: World, of: KernelDocuments) -> EsperdError:
    with pytest.raises(EsperdError) as caught:
        world.trust().check(of)
    return caught.value


def test_both_signatures_let_a_kernel_be_used(world: World) -> None:
    """The rule itself."""
    world.trust().check(documents())


@pytest.mark.parametrize(
    ("key", "accepted"),
    [
        (replace(COMPILER, declared=KeyState.RETIRING), True),
        (replace(COMPILER, not_after_unix_s=NOW_UNIX_S - 1), True),
        (replace(COMPILER, declared=KeyState.REVOKED), False),
        (replace(COMPILER, not_before_unix_s=NOW_UNIX_S + 1), False),
        (replace(COMPILER, permissions=frozenset({Permission.OPERATE, Permission.ADMIN})), False),
        (replace(COMPILER, secret=Secret(bytes(range(5, 37)))), False),
        (replace(COMPILER, key_id="another"), False),
    ],
    ids=["retiring", "expired since", "revoked", "not yet", "may not compile", "another secret", "unknown"],
)
def test_who_may_sign_a_manifest(world: World, key: Key, accepted: bool) -> None:
    """A key that may compile, unless it was revoked or is not valid yet; it may have expired after it signed."""
    world.keys = [key]
    if accepted:
        world.trust().check(documents())
    else:
        error = refusal(world, documents())
        assert error.reason == "KERNEL_SIGNATURE_INVALID"
        assert MADE.artifact_id in error.message


def test_the_key_ring_is_read_at_each_call(world: World) -> None:
    """A key that is revoked while the daemon runs counts no longer."""
    trust = world.trust()
    trust.check(documents())
    world.keys = []
    with pytest.raises(EsperdError, match="is unknown"):
        trust.check(documents())


def test_a_changed_manifest_is_not_signed(world: World) -> None:
    """The signature is of exact bytes."""
    changed = replace(documents(), manifest=MADE.manifest + b"\x78\x00")
    assert refusal(world, changed).reason == "KERNEL_SIGNATURE_INVALID"


def test_a_manifests_signature_is_no_reports(world: World) -> None:
    """The domain is signed too: a compiler whose key were the validator's still could not pass one for the other."""
    world.validators = {COMPILER.key_id: COMPILER.secret}
    report = report_on(MADE.artifact_id)[0]
    error = refusal(world, documents((report, sign(report))))
    assert error.reason == "KERNEL_REPORT_INVALID"


@pytest.mark.parametrize(
    ("report", "words"),
    [
        ((b"", Signature(VALIDATOR_ID, bytes(32))), "there is none"),
        (report_on(MADE.artifact_id, validator_id="validator-of-another"), "unknown here"),
        (report_on(MADE.artifact_id, secret=Secret(bytes(range(9, 41)))), "of other bytes"),
        (report_on(make(1).artifact_id), "is about kernel"),
        (report_on(MADE.artifact_id, HandlingClass.QUARANTINE), r"QUARANTINE: forward \(far off\)"),
        (report_on(MADE.artifact_id, HandlingClass.UNSPECIFIED), "UNSPECIFIED"),
    ],
    ids=["none", "unknown validator", "other secret", "other kernel", "quarantine", "unspecified"],
)
def test_which_reports_count(world: World, report: tuple[bytes, Signature], words: str) -> None:
    """One about this kernel, by a validator of this daemon, that lets it be used."""
    with pytest.raises(EsperdError, match=words) as caught:
        world.trust().check(documents(report))
    assert caught.value.reason == "KERNEL_REPORT_INVALID"


def test_a_report_without_a_signature_is_none(world: World) -> None:
    """Nobody vouches for it."""
    bare = replace(documents(), report_signature=None)
    assert "there is none" in refusal(world, bare).message
