"""A byte-level transformer on the standard library's own source text: the demo's language task.

Sites: `blocks.0`, `blocks.1`, ... (`blocks.*`), the outputs (B, T, D) of the transformer blocks. The text is what ships
with Python: the top-level modules of the standard library and the documentation in `pydoc_data.topics`, about 5 MB; it
changes with the Python version, so its hash goes into the journal. Blocks of 64 KiB are dealt to training (90 %),
measuring (5 %) and validation (5 %). The default host has one layer of width 32 and 31 k parameters, and is saturated
after some thousand steps.
"""

import hashlib
import math
import sysconfig
from pathlib import Path

import torch
from torch import nn
from torch.nn import functional

from esperd.examples.schedules import warm_stable_decay
from esperd.leyline.errors import EsperdError
from esperd.tolaria.data import ByteWindows
from esperd.tolaria.task import Task

CONTEXT = 64
NUM_BYTE_VALUES = 256
BLOCK_BYTES = 1 << 16
SPLIT_SEED = 0
"""The split is part of the task, not of a run."""

NUM_EVAL_WINDOWS = 1024
NUM_PROBE_WINDOWS = 2048


def build(
    num_steps: int = 5000,
    batch_size: int = 16,
    d_model: int = 32,
    num_layers: int = 1,
    num_heads: int = 4,
    learning_rate: float = 0.003,
    data_seed: int = 0,
) -> Task:
    """The task; a step sees `batch_size` windows of 64 bytes, an epoch is 500 steps.

    `data_seed` draws the windows; the weights come from torch's global seed. Raises EsperdError DATA_MISSING.
    """
    text = load_text()
    train, probe, test = _split(text)
    model = ByteTransformer(d_model, num_layers, num_heads)
    optimizer = torch.optim.AdamW(model.parameters(), lr=learning_rate, fused=True)
    return Task(
        model=model,
        optimizer=optimizer,
        scheduler=warm_stable_decay(optimizer, num_steps),
        loss_fn=mean_loss,
        per_sample_loss=sequence_losses,
        train_data=ByteWindows(train, batch_size, CONTEXT, num_batches=500, random_seed=data_seed),
        eval_data=ByteWindows(test, 128, CONTEXT, num_batches=NUM_EVAL_WINDOWS // 128),
        probe_data=ByteWindows(probe, 128, CONTEXT, num_batches=NUM_PROBE_WINDOWS // 128),
        metrics={"accuracy": accuracy, "bits_per_byte": bits_per_byte},
        facts={"text_bytes": str(len(text)), "text_sha256": hashlib.sha256(text).hexdigest()},
    )


def mean_loss(output_BTV: torch.Tensor, targets_BT: torch.Tensor) -> torch.Tensor:
    """Mean cross entropy of the next byte, in nats."""
    return functional.cross_entropy(output_BTV.flatten(0, 1), targets_BT.flatten())


def sequence_losses(output_BTV: torch.Tensor, targets_BT: torch.Tensor) -> torch.Tensor:
    """One mean cross entropy per window, shape (B,): the bytes of a window are not independent."""
    losses = functional.cross_entropy(output_BTV.flatten(0, 1), targets_BT.flatten(), reduction="none")
    return losses.view(targets_BT.shape).mean(1)


def accuracy(output_BTV: torch.Tensor, targets_BT: torch.Tensor) -> torch.Tensor:
    """Share of bytes guessed right."""
    return (output_BTV.argmax(-1) == targets_BT).float().mean()


def bits_per_byte(output_BTV: torch.Tensor, targets_BT: torch.Tensor) -> torch.Tensor:
    """Cross entropy in bits."""
    return mean_loss(output_BTV, targets_BT) / math.log(2)


class ByteTransformer(nn.Module):
    """A pre-norm causal transformer over bytes: (B, T) int64 to logits (B, T, 256)."""

    def __init__(self, d_model: int, num_layers: int, num_heads: int) -> None:
        super().__init__()
        self.bytes = nn.Embedding(NUM_BYTE_VALUES, d_model)
        self.positions = nn.Embedding(CONTEXT, d_model)
        self.blocks = nn.ModuleList(Block(d_model, num_heads) for _ in range(num_layers))
        self.norm = nn.LayerNorm(d_model)
        self.head = nn.Linear(d_model, NUM_BYTE_VALUES, bias=False)
        for embedding in (self.bytes, self.positions):
            nn.init.normal_(embedding.weight, std=0.02)

    def forward(self, bytes_BT: torch.Tensor) -> torch.Tensor:
        """Logits of the byte after each."""
        x_BTD = self.bytes(bytes_BT) + self.positions.weight[: bytes_BT.shape[1]]
        for block in self.blocks:
            x_BTD = block(x_BTD)
        logits_BTV: torch.Tensor = self.head(self.norm(x_BTD))
        return logits_BTV


class Block(nn.Module):
    """Attention and a feed-forward of four times the width, each behind a norm and on a residual path."""

    def __init__(self, d_model: int, num_heads: int) -> None:
        super().__init__()
        self.num_heads = num_heads
        self.norm1 = nn.LayerNorm(d_model)
        self.qkv = nn.Linear(d_model, 3 * d_model)
        self.out = nn.Linear(d_model, d_model)
        self.norm2 = nn.LayerNorm(d_model)
        self.feed_forward = nn.Sequential(nn.Linear(d_model, 4 * d_model), nn.GELU(), nn.Linear(4 * d_model, d_model))

    def forward(self, x_BTD: torch.Tensor) -> torch.Tensor:
        """(B, T, D) to (B, T, D)."""
        x_BTD = x_BTD + self._attend(self.norm1(x_BTD))
        return x_BTD + self.feed_forward(self.norm2(x_BTD))  # type: ignore[no-any-return]  # modules return Any

    def _attend(self, x_BTD: torch.Tensor) -> torch.Tensor:
        heads = self.qkv(x_BTD).unflatten(-1, (3, self.num_heads, -1)).permute(2, 0, 3, 1, 4)
        mixed_BHTK = functional.scaled_dot_product_attention(heads[0], heads[1], heads[2], is_causal=True)
        return self.out(mixed_BHTK.transpose(1, 2).flatten(2))  # type: ignore[no-any-return]  # as above


def load_text() -> bytes:
    """The text, files in the order of their names. Raises EsperdError DATA_MISSING when the sources are not there."""
    library = Path(sysconfig.get_paths()["stdlib"])
    files = [*sorted(library.glob("*.py")), library / "pydoc_data" / "topics.py"]
    text = b"".join(file.read_bytes() for file in files if file.is_file())
    if len(text) < 20 * BLOCK_BYTES or not files[-1].is_file():
        detail = f"The bytes task reads the sources of Python's standard library, which are not whole in {library}."
        raise EsperdError("DATA_MISSING", detail=detail)
    return text


def _split(text: bytes) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Training, measuring and validation text, (N,) uint8 each."""
    blocks = torch.frombuffer(bytearray(text), dtype=torch.uint8).split_with_sizes(_block_sizes(len(text)))
    order = torch.randperm(len(blocks), generator=torch.Generator().manual_seed(SPLIT_SEED)).tolist()
    num_held_out = max(1, len(blocks) // 20)
    held_out, train = order[: 2 * num_held_out], order[2 * num_held_out :]
    parts = (sorted(train), sorted(held_out[:num_held_out]), sorted(held_out[num_held_out:]))
    joined = [torch.cat([blocks[i] for i in part]) for part in parts]
    return joined[0], joined[1], joined[2]


def _block_sizes(num_bytes: int) -> list[int]:
    whole, rest = divmod(num_bytes, BLOCK_BYTES)
    return [BLOCK_BYTES] * whole + ([rest] if rest else [])
