"""A small multilayer perceptron on the tables that come with scikit-learn: breast cancer (569 x 30) or wine (178 x 13).

Sites: `hidden1` and `hidden2`, the outputs (B, width) of the two hidden layers. 60 % of the rows to train on, 20 % to
measure contributions on, 20 % to validate on; columns are standardised by the training rows.
"""

from collections import OrderedDict

import torch
from torch import nn
from torch.nn import functional

from esperd.examples.digits import accuracy
from esperd.examples.schedules import warm_stable_decay
from esperd.leyline.errors import EsperdError
from esperd.tolaria.data import TensorBatches
from esperd.tolaria.task import Task

SPLIT_SEED = 0
"""The split is part of the task, not of a run."""


def build(
    table: str = "breast_cancer",
    num_steps: int = 1000,
    batch_size: int = 32,
    width: int = 4,
    learning_rate: float = 0.005,
    data_seed: int = 0,
) -> Task:
    """The task; `table` is `breast_cancer` or `wine`. Raises EsperdError DATA_MISSING."""
    rows, labels, num_classes = _load(table)
    order = torch.randperm(len(rows), generator=torch.Generator().manual_seed(SPLIT_SEED))
    num_train, num_probe = len(rows) * 6 // 10, len(rows) * 2 // 10
    train, probe, test = order.tensor_split((num_train, num_train + num_probe))
    rows = (rows - rows[train].mean(0)) / rows[train].std(0)
    model = _network(rows.shape[1], width, num_classes)
    optimizer = torch.optim.AdamW(model.parameters(), lr=learning_rate, fused=True)
    return Task(
        model=model,
        optimizer=optimizer,
        scheduler=warm_stable_decay(optimizer, num_steps),
        loss_fn=functional.cross_entropy,
        train_data=TensorBatches(rows[train], labels[train], batch_size, shuffle_seed=data_seed, drop_last=True),
        eval_data=TensorBatches(rows[test], labels[test], 256),
        probe_data=TensorBatches(rows[probe], labels[probe], 256),
        metrics={"accuracy": accuracy},
    )


def _network(num_columns: int, width: int, num_classes: int) -> nn.Module:
    def layer(num_in: int) -> nn.Sequential:
        return nn.Sequential(nn.Linear(num_in, width), nn.ReLU())

    return nn.Sequential(
        OrderedDict(hidden1=layer(num_columns), hidden2=layer(width), head=nn.Linear(width, num_classes))
    )


def _load(table: str) -> tuple[torch.Tensor, torch.Tensor, int]:
    try:
        from sklearn.datasets import load_breast_cancer, load_wine
    except ImportError as error:
        detail = "The tabular task reads tables that come with scikit-learn, which is not installed."
        raise EsperdError("DATA_MISSING", detail=detail) from error
    loaders = {"breast_cancer": load_breast_cancer, "wine": load_wine}
    if table not in loaders:
        raise EsperdError("DATA_MISSING", detail=f"There is no table {table}; there are {', '.join(loaders)}.")
    data = loaders[table]()
    labels = torch.from_numpy(data.target).long()
    return torch.from_numpy(data.data).float(), labels, int(labels.max()) + 1
