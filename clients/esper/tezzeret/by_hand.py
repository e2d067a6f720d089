"""`esper tezzeret compile`: one kernel by hand, into a directory, to be looked at, kept, or uploaded.

The command line alone: options in, files and one line out.
"""

import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import click

from esper.client.credentials import Credentials
from esper.failures import Failed, run_reporting
from esper.text import plain
from esper.tezzeret.cxx import require_cxx
from esperd.leyline.kernel_documents import (
    MANIFEST_DOMAIN,
    MANIFEST_NAME,
    MANIFEST_SIGNATURE_NAME,
    read_manifest,
    sign_document,
    write_signature,
)
from esperd.leyline.kernels import KernelManifest, Signature

DTYPES = ("float32", "float64", "bfloat16", "float16")
_SHAPE = re.compile(r"[1-9][0-9]{0,8}(x[1-9][0-9]{0,8}){1,7}")


@dataclass(frozen=True, slots=True)
class SiteSpec:
    """A site as it is named on the command line."""

    shape: tuple[int, ...]
    """Of the activation, batch size first."""
    dtype: str = "float32"
    autocast_dtype: str = ""


def read_site_spec(_context: click.Context, _parameter: click.Parameter, text: str) -> SiteSpec:
    """Read `SHAPE,dtype=DTYPE,autocast=DTYPE`, e.g. `128x64,autocast=bfloat16`. Raises click.BadParameter."""
    shape, *settings = text.split(",")
    if not _SHAPE.fullmatch(shape):
        raise click.BadParameter(f"{shape!r} is no shape with the batch size first, such as 128x64 or 32x16x8x8")
    found = {"dtype": "float32", "autocast": ""}
    for setting in settings:
        name, _, given = setting.partition("=")
        if name not in found or given not in DTYPES:
            allowed = ", ".join(DTYPES)
            raise click.BadParameter(f"{setting!r} is neither dtype=T nor autocast=T, with T one of {allowed}")
        found[name] = given
    return SiteSpec(tuple(map(int, shape.split("x"))), found["dtype"], found["autocast"])


@click.command("compile")
@click.argument("blueprint_id", metavar="BLUEPRINT")
@click.option("--site-spec", "site", callback=read_site_spec, required=True, metavar="SHAPE[,dtype=T][,autocast=T]",
              help="The activation there, batch size first, e.g. 128x64 or 64x16x8x8,autocast=bfloat16.")  # fmt: skip
@click.option("--batch", "batch_size", type=click.IntRange(1, 2**24), metavar="N",
              help="Compile for this batch size instead of the shape's.")  # fmt: skip
@click.option("-p", "--parameter", "parameters", multiple=True, metavar="NAME=VALUE",
              help="A parameter of the blueprint; may be given again.")  # fmt: skip
@click.option("--strategy", type=click.Choice(["standard", "conservative"]), default="standard", show_default=True,
              help="How much the compiler dares.")  # fmt: skip
@click.option("--device", "device_type", type=click.Choice(["cpu", "cuda"]), default="cpu", show_default=True,
              help="Where it is to run; a GPU has to be here.")  # fmt: skip
@click.option("--key", envvar="ESPER_KEY", type=click.Path(dir_okay=False),
              help="Key file with the permission compile, to sign the manifest; unsigned without one.")  # fmt: skip
@click.option("-o", "--output", "folder", type=click.Path(file_okay=False, path_type=Path), required=True,
              help="Directory for the manifest, its signature and the libraries.")  # fmt: skip
def compile_by_hand(
    blueprint_id: str,
    site: SiteSpec,
    batch_size: int | None,
    parameters: Sequence[str],
    strategy: str,
    device_type: str,
    key: str | None,
    folder: Path,
) -> None:
    """Compile one blueprint for one kind of site, on this machine and for machines like it.

    Prints the kernel's artifact id. `esperctl kernels upload` brings the directory to a daemon. Needs a C++ compiler:
    g++, or what CXX names.
    """
    values = dict(_parameter(text) for text in parameters)

    def work() -> None:
        credentials = Credentials.load(key) if key is not None else None
        if (folder / MANIFEST_NAME).exists():
            raise Failed(f"{folder}: there is a kernel already; name another directory")
        require_cxx()
        shape = (batch_size or site.shape[0], *site.shape[1:])
        data = _compiled(blueprint_id, SiteSpec(shape, site.dtype, site.autocast_dtype), values, strategy, device_type,
                         folder)  # fmt: skip
        (folder / MANIFEST_NAME).write_bytes(data)
        if credentials is not None:
            signature = Signature(credentials.key_id, sign_document(credentials.secret, MANIFEST_DOMAIN, data))
            (folder / MANIFEST_SIGNATURE_NAME).write_bytes(write_signature(signature))
        click.echo(_told(read_manifest(data), is_signed=credentials is not None))

    run_reporting(work)


def _compiled(
    blueprint_id: str, site: SiteSpec, parameters: Mapping[str, float], strategy: str, device_type: str, folder: Path
) -> bytes:
    """The manifest of a fresh kernel whose libraries are in the folder."""
    from esper.tezzeret.capture import CaptureError
    from esper.tezzeret.compile import CompileRequest, compile_kernel
    from esper.tezzeret.lowering import Strategy
    from esperd.kasmina.blueprints.descriptor import BlueprintParameterError, SiteNotAdmissibleError
    from esperd.kasmina.blueprints.registry import UnknownBlueprintError, standard_registry

    try:
        request = CompileRequest(
            descriptor=standard_registry().get(blueprint_id),
            tail_shape=site.shape[1:],
            hint_batch=site.shape[0],
            parameters=parameters,
            dtype=site.dtype,
            autocast_dtype=site.autocast_dtype,
            device_type=device_type,
            strategy=Strategy(strategy),
        )
        return compile_kernel(request, folder).manifest
    except (UnknownBlueprintError, BlueprintParameterError, SiteNotAdmissibleError, CaptureError) as error:
        raise Failed(plain(str(error))) from error
    except OSError:
        raise
    except Exception as error:
        words = plain(str(error).strip().split("\n")[0])
        advice = "" if strategy == "conservative" else ". Try --strategy conservative"
        raise Failed(f"the compiler raised {type(error).__name__}: {words}{advice}") from error


def _parameter(text: str) -> tuple[str, float]:
    name, _, value = text.partition("=")
    try:
        number = float(value)
    except ValueError:
        number = math.nan
    if not name or not math.isfinite(number):
        raise click.BadParameter(f"{text!r} is not NAME=NUMBER", param_hint="--parameter")
    return name, number


def _told(manifest: KernelManifest, *, is_signed: bool) -> str:
    batches = f"batch {manifest.min_batch} to {manifest.max_batch}"
    size = f"{manifest.num_bytes / 1024:.0f} KiB"
    signed = "signed" if is_signed else "unsigned"
    return f"{manifest.artifact_id}  {batches}, {size}, {manifest.compile_s:.1f} s, {signed}"
