"""What esperd trains here; replace model and data by your own."""

import torch
from sklearn.datasets import load_digits
from torch import nn
from torch.utils.data import DataLoader, TensorDataset, random_split

from esperd.tolaria.task import Task


def build(width: int = 4, learning_rate: float = 0.01) -> Task:
    """Everything esperd needs to know; the arguments come from [run.task_options]."""
    digits = load_digits()
    images = torch.tensor(digits.images, dtype=torch.float32).unsqueeze(1) / 16
    data = TensorDataset(images, torch.tensor(digits.target))
    train, held_out = random_split(data, [0.8, 0.2], torch.Generator().manual_seed(0))
    model = nn.Sequential(
        nn.Sequential(nn.Conv2d(1, width, 3, padding=1), nn.ReLU(), nn.MaxPool2d(2)),
        nn.Sequential(nn.Conv2d(width, 2 * width, 3, padding=1), nn.ReLU(), nn.MaxPool2d(2)),
        nn.Sequential(nn.Flatten(), nn.Linear(8 * width, 10)),
    )
    optimizer = torch.optim.AdamW(model.parameters(), lr=learning_rate, fused=True)
    batches = DataLoader(train, batch_size=64, shuffle=True, drop_last=True)
    metrics = {"accuracy": lambda output, target: (output.argmax(1) == target).float().mean()}
    return Task(model, optimizer, nn.functional.cross_entropy, batches, DataLoader(held_out, 256), metrics)
