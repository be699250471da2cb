"""`sagan-jax export`: the networks of a run, for use elsewhere."""

import dataclasses
from pathlib import Path
from typing import Literal

from sagan_jax.cli.announcement import announce
from sagan_jax.cli.arguments import parse_arguments
from sagan_jax.errors import InvalidInputError


@dataclasses.dataclass(frozen=True)
class Arguments:
    """Write the generator of a run, with spectral normalisation and batch-norm statistics folded into its weights.

    generator.safetensors holds the weights for this package. generator.jax_export is a function that needs only jax.
    README.md has the Python code that loads each.

    With --format hub: the networks of the run as a folder for the Hugging Face hub, for sagan_jax.load_pretrained.

    With --format onnx: generator.onnx, from latents [b, Z] and labels [b] to images [b, H, W, C] in [-1, 1], and
    discriminator.onnx. Both are checked in onnxruntime before they are written (pip install 'sagan-jax[onnx]').
    """

    workdir: Path
    """the folder of the run"""
    out: Path | None = None
    """the folder for the files. Defaults to export/ in the workdir, or hub/ or onnx/"""
    format: Literal["files", "hub", "onnx"] = "files"
    """files: only the generator. hub: all networks, as trained and averaged, with config, model card and samples.
    onnx: both networks for onnxruntime and other programs"""
    license: str = ""
    """for the model card of --format hub: a license identifier of the hub, such as apache-2.0"""
    checkpoint: Literal["newest", "best"] | int = "newest"
    """best: the checkpoint with the best score, of a run that was scored while it trained. Or a step, such as 1000"""
    raw: bool = False
    """use the weights as trained, even where the run keeps a moving average"""
    trust_checkpoint: bool = False
    """if config.json was changed, use the config that is stored in the checkpoint"""
    compilation_cache: bool = True
    """keep compiled programs in the user's cache folder, so that the next start does not compile them again"""


def run(arguments: list[str]) -> None:
    """Runs the command.

    Args:
        arguments: the words after the name of the command.
    """
    parsed = parse_arguments(Arguments, arguments, "sagan-jax export")
    hub = parsed.format == "hub"
    if parsed.license and not hub:
        raise InvalidInputError("--license is for the model card of --format hub; the other files have none.")
    if parsed.raw and hub:
        raise InvalidInputError(
            "--raw does nothing with --format hub: it has the weights as trained and their average."
        )
    what = "the generator" if parsed.format == "files" else "the networks"
    announce(f"exporting {what}", compilation_cache=parsed.compilation_cache)
    chosen = {"checkpoint": parsed.checkpoint, "trust_checkpoint": parsed.trust_checkpoint}
    if hub:
        from sagan_jax.runs.publish import publish_run

        written = publish_run(parsed.workdir, parsed.out, license=parsed.license, **chosen)
    elif parsed.format == "onnx":
        from sagan_jax.runs.onnx_files import export_onnx

        written = export_onnx(parsed.workdir, parsed.out, raw=parsed.raw, **chosen)
    else:
        from sagan_jax.runs.export import export_run

        written = export_run(parsed.workdir, parsed.out, raw=parsed.raw, **chosen)
    for path in written:
        print(f"{path}: {path.stat().st_size / 1e3:,.1f} kB")
