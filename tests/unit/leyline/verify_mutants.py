"""Wrong verifiers, each made of the real one by one small change of its text that the model must notice.

A change names a text that stands exactly once in its module, so a change of the module that it no longer fits is told
as such, and no mutant is silently the original.
"""

import importlib
import inspect
import types
from dataclasses import dataclass

from esperd.leyline import nonces, verify
from tests.unit.leyline.requests import Parts


@dataclass(frozen=True)
class Mutant:
    """One change."""

    name: str
    module: types.ModuleType
    right: str
    wrong: str

    def parts(self) -> Parts:
        """The classes with this fault. Raises AssertionError when the change does not fit the module any more."""
        source = inspect.getsource(self.module)
        assert source.count(self.right) == 1, f"{self.name}: its text stands {source.count(self.right)} times"
        mutated = types.ModuleType(self.module.__name__)
        mutated.__dict__.update(importlib.import_module(self.module.__name__).__dict__)
        names = {name: value for name, value in vars(self.module).items() if is_exception(value)}
        exec(compile(source.replace(self.right, self.wrong), f"<mutant {self.name}>", "exec"), mutated.__dict__)
        mutated.__dict__.update(names)  # others catch the exceptions of the real module
        if self.module is nonces:
            return Parts(nonces=mutated.NonceStore)
        return Parts(verifier=mutated.Verifier, mac=mutated.mac)


def is_exception(value: object) -> bool:
    """Whether a value is an exception class."""
    return isinstance(value, type) and issubclass(value, Exception)


MUTANTS = (
    Mutant("the watermark is not looked at", verify, "elif issue_s <= self._nonces.watermark_unix_s:", "elif False:"),
    Mutant(
        "the watermark lets its own time pass",
        verify,
        "issue_s <= self._nonces.watermark_unix_s",
        "issue_s < self._nonces.watermark_unix_s",
    ),
    Mutant(
        "the watermark is the last issue time forgotten, not the newest",
        nonces,
        "if issue_unix_s > self._watermark_unix_s:",
        "if True:",
    ),
    Mutant(
        "the watermark stands at the first that was forgotten",
        nonces,
        "if issue_unix_s > self._watermark_unix_s:",
        "if self._watermark_unix_s < 0:",
    ),
    Mutant("the epoch is not looked at", verify, "if fields.epoch != self._epoch:", "if False:"),
    Mutant(
        "only the beginning of the epoch is looked at",
        verify,
        "if fields.epoch != self._epoch:",
        "if fields.epoch[:8] != self._epoch[:8]:",
    ),
    Mutant("the window is a second too wide", verify, "> FRESHNESS_S:", "> FRESHNESS_S + 1.0:"),
    Mutant("the window ends before its last moment", verify, "> FRESHNESS_S:", ">= FRESHNESS_S:"),
    Mutant("the future is always fresh", verify, "if abs(wall_s - issue_s) > F", "if wall_s - issue_s > F"),
    Mutant("the past is always fresh", verify, "if abs(wall_s - issue_s) > F", "if issue_s - wall_s > F"),
    Mutant(
        "a full quota forgets the oldest",
        nonces,
        'raise NonceCapacity("key", seen.order[0][0] - monotonic_s)',
        "seen.nonces.discard(seen.order[0][1])",
    ),
    Mutant(
        "a full store forgets the oldest",
        nonces,
        'raise NonceCapacity("total", self._order[0].order[0][0] - monotonic_s)',
        "self.expire(self._order[0].order[0][0]); seen = self._keys.get(key_id)",
    ),
    Mutant(
        "the quota has room for one more", nonces, "len(seen.order) >= self._per_key", "len(seen.order) > self._per_key"
    ),
    Mutant(
        "the store has room for one more", nonces, "len(self._order) >= self._total", "len(self._order) > self._total"
    ),
    Mutant(
        "the quota has room for one less",
        nonces,
        "len(seen.order) >= self._per_key",
        "len(seen.order) + 1 >= self._per_key",
    ),
    Mutant("replays are not noticed", nonces, "if nonce in seen.nonces:", "if False:"),
    Mutant(
        "only the beginning of a nonce counts",
        nonces,
        "if nonce in seen.nonces:",
        "if nonce[:8] in {n[:8] for n in seen.nonces}:",
    ),
    Mutant("nothing is ever forgotten", nonces, "while order and order[0].order[0][0] <= monotonic_s:", "while False:"),
    Mutant(
        "it is forgotten a moment late",
        nonces,
        "order[0].order[0][0] <= monotonic_s",
        "order[0].order[0][0] < monotonic_s",
    ),
    Mutant("it is forgotten after a minute", nonces, "monotonic_s + self._retention_s", "monotonic_s + 60.0"),
    Mutant(
        "all keys share their nonces", nonces, "seen = self._keys.get(key_id)", 'seen = self._keys.get(key_id := "")'
    ),
    Mutant(
        "the nonce is used up before the time is looked at",
        verify,
        "self._check_fresh(key, issue_s, wall_s, now_s)\n        self._claim_nonce(key, fields.nonce, issue_s, now_s)",
        "self._claim_nonce(key, fields.nonce, issue_s, now_s)\n        self._check_fresh(key, issue_s, wall_s, now_s)",
    ),
    Mutant(
        "the nonce is only used up by who has the permission",
        verify,
        "        self._claim_nonce(key, fields.nonce, issue_s, now_s)",
        "        if permission in key.permissions:\n            self._claim_nonce(key, fields.nonce, issue_s, now_s)",
    ),
    Mutant(
        "memory is lost when keys are exchanged",
        verify,
        "        self._keyring = keyring\n\n    def verify",
        "        self._keyring = keyring\n        self._nonces = NonceStore()\n\n    def verify",
    ),
    Mutant(
        "a revoked key opens",
        verify,
        "if state is not KeyState.ACTIVE and state is not KeyState.RETIRING:",
        "if state is KeyState.PREPARED:",
    ),
    Mutant(
        "a retiring key does not open",
        verify,
        "if state is not KeyState.ACTIVE and state is not KeyState.RETIRING:",
        "if state is not KeyState.ACTIVE:",
    ),
    Mutant(
        "the lengths are not signed",
        verify,
        '(DOMAIN, len(header).to_bytes(8, "big"), header, len(payload).to_bytes(8, "big"), payload)',
        "(DOMAIN, header, payload)",
    ),
    Mutant("the payload is not signed", verify, 'len(payload).to_bytes(8, "big"), payload)', 'b"")'),
    Mutant(
        "half a signature is enough",
        verify,
        "hmac.compare_digest(mac(secret, header, payload), signature)",
        "hmac.compare_digest(mac(secret, header, payload)[:16], signature[:16])",
    ),
    Mutant("every signature is genuine", verify, "if not genuine:", "if False:"),
    Mutant(
        "an unknown key opens with any signature",
        verify,
        'raise RequestRefused("SIGNATURE_INVALID", "unknown key", _claimed(fields))',
        "return ring.keys[0]",
    ),
    Mutant(
        "failures of one peer close the door to all",
        verify,
        'return f"{peer} {_claimed(parsed)}" if is_unix(peer) else peer',
        'return ""',
    ),
    Mutant(
        "forgeries in a key's name lock its holder out",
        verify,
        "if wait_s > 0.0 and not self._is_shared(peer, bucket):",
        "if wait_s > 0.0:",
    ),
    Mutant("who keeps failing is never slowed", verify, "self._throttle.record_failure(bucket, now_s)", "pass"),
)
