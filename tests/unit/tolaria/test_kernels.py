"""What a run tells about kernels before there are any: which would fit, and for which batches."""

from dataclasses import replace
from typing import Any

import torch

from esperd.config.settings import GrowthSettings, Settings, TrainingSettings
from esperd.leyline.views import SiteView
from tests.unit.tolaria.harness import BATCH, Run, make_task


def site(amp: str = "off", **task: Any) -> SiteView:
    """The site of a run before its first step."""
    settings = Settings(training=TrainingSettings(device="cpu", amp=amp), growth=GrowthSettings(sites=("2",)))
    run = Run(replace(make_task(), **task), settings).begin()
    (found,) = run.trainer.publish().sites
    return found


def test_a_site_tells_the_batch_size_of_training():
    """Not that of the dry run, which is smaller: kernels are compiled for the batches that come."""
    rows = torch.randn(96, 6)
    large = [(rows, torch.zeros(96, dtype=torch.long))]
    assert site().batch_size == BATCH
    found = site(train_data=large)
    assert (found.batch_size, found.activation_shape) == (96, (8, 8))


def test_a_smaller_last_batch_changes_nothing():
    """Or every epoch would wish for other kernels."""
    rows, classes = torch.randn(20, 6), torch.zeros(20, dtype=torch.long)
    batches = [(rows[:16], classes[:16]), (rows[16:], classes[16:])]
    settings = Settings(training=TrainingSettings(device="cpu"), growth=GrowthSettings(sites=("2",)))
    run = Run(replace(make_task(), train_data=batches), settings).begin()
    sizes = []
    for _ in range(4):
        sizes.append(run.trainer.publish().sites[0].batch_size)
        run.steps(1)
    assert sizes == [16] * 4


def test_offers_tell_their_bounds_and_which_kernels_fit_them():
    """With the blueprint's defaults; under autocast the weights stay in float32."""
    plain, cast = site(), site(amp="bf16")
    offers = {offer.blueprint_id: offer for offer in plain.offers}
    mlp = offers["residual_mlp"]
    assert mlp.name
    assert mlp.description
    assert (mlp.bounds["expansion"].default, mlp.bounds["expansion"].is_integer) == (4, True)
    assert mlp.variant is not None
    assert (mlp.variant.tail_shape, mlp.variant.dtype, mlp.variant.autocast_dtype) == ((8,), "float32", "")
    assert plain.autocast_dtype == ""
    assert cast.autocast_dtype == "bfloat16"
    variant = next(offer.variant for offer in cast.offers if offer.blueprint_id == "residual_mlp")
    assert variant is not None
    assert (variant.weight_dtype, variant.autocast_dtype) == ("float32", "bfloat16")
