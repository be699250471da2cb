"""Collects what a bug report needs: versions, devices, settings, caches and weights. A failing part stops no other."""

import os
import platform
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import sagan_jax
from sagan_jax.errors import one_line
from sagan_jax.runtime.packages import installed_version

_PACKAGES = ("jax", "jaxlib", "flax", "optax", "orbax-checkpoint", "chex", "grain", "numpy", "pillow", "tyro")
_OPTIONAL_PACKAGES = ("mlxtend", "pyarrow", "wandb", "jax-cuda13-plugin", "jax-cuda12-plugin", "libtpu")
_SETTINGS = ("JAX_", "XLA_", "SAGAN_JAX_", "PJRT_", "NPROC", "CUDA_VISIBLE_DEVICES", "TPU_", "XDG_CACHE_HOME")


def info_lines() -> Iterator[str]:
    """Yields the lines of `sagan-jax info`. A part that fails becomes a line with the reason."""
    for name, describe in _DESCRIPTIONS.items():
        try:
            found = describe()
        except Exception as error:  # a bug report must show what is broken
            found = [f"failed: {type(error).__name__}: {one_line(error)}"]
        for number, line in enumerate(found or ["none"]):
            yield f"{'' if number else name:<20}{line}"


def _package() -> list[str]:
    from sagan_jax.runtime.environment import git_revision

    folder = Path(sagan_jax.__file__).parent
    found = git_revision(folder)
    changed = ", with changes" if found["git_dirty"] else ""
    revision = f", git {found['git_revision']}{changed}" if found["git_revision"] else ""
    return [f"{sagan_jax.__version__}{revision}, in {folder}"]


def _python() -> list[str]:
    return [f"{platform.python_version()}, {sys.executable}"]


def _machine() -> list[str]:
    usable = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    return [f"{platform.platform()}, {usable} of {os.cpu_count()} CPUs usable, {_size(memory)} of memory"]


def _packages() -> list[str]:
    found = {name: installed_version(name) for name in (*_PACKAGES, *_OPTIONAL_PACKAGES)}
    return [
        f"{name} {version or 'is not installed'}" for name, version in found.items() if version or name in _PACKAGES
    ]


def _devices() -> list[str]:
    import jax

    from sagan_jax.runtime.devices import require_backend

    require_backend()
    kinds = [f"{device.device_kind} ({device.platform})" for device in jax.devices()]
    return [f"{kinds.count(kind)} x {kind}" for kind in sorted(set(kinds))]


def _settings() -> list[str]:
    return [f"{name}={value}" for name, value in sorted(os.environ.items()) if name.startswith(_SETTINGS)]


def _image_cache() -> list[str]:
    from sagan_jax.runtime.cache_folders import cache_folder

    return [_folder(cache_folder("auto"))]


def _statistics_cache() -> list[str]:
    from sagan_jax.runtime.cache_folders import cache_folder

    return [_folder(cache_folder("auto", "references"))]


def _programs() -> list[str]:
    import jax

    from sagan_jax.runtime.cache_folders import cache_folder

    config: Any = jax.config
    if not config.jax_enable_compilation_cache:
        return [_folder(None)]
    if "JAX_COMPILATION_CACHE_DIR" in os.environ:
        return [_folder(Path(config.jax_compilation_cache_dir) if config.jax_compilation_cache_dir else None)]
    return [_folder(cache_folder("auto", "compiled"))]


def _weights() -> list[str]:
    from sagan_jax.runtime.cache_folders import weights_folder

    folder = weights_folder()
    if folder is None:
        return ["none: there is no home folder"]
    files = sorted(path for path in folder.iterdir() if path.is_file()) if folder.is_dir() else []
    return [f"{path}, {_size(path.stat().st_size)}" for path in files] or [f"none in {folder}"]


def _folder(folder: Path | None) -> str:
    """Returns a folder with the number and size of the files below it."""
    if folder is None:
        return "turned off"
    if not folder.is_dir():
        return f"{folder}, which does not exist yet"
    sizes = [
        os.lstat(os.path.join(parent, name)).st_size  # noqa: PTH118  a cache may hold very many files
        for parent, _, names in os.walk(folder)
        for name in names
    ]
    return f"{folder}, {len(sizes):,} files, {_size(sum(sizes))}"


def _size(num_bytes: int) -> str:
    return f"{num_bytes / 1e9:,.1f} GB" if num_bytes >= 1e9 else f"{num_bytes / 1e6:,.1f} MB"


_DESCRIPTIONS: dict[str, Callable[[], list[str]]] = {
    "sagan_jax": _package,
    "python": _python,
    "machine": _machine,
    "packages": _packages,
    "devices": _devices,
    "settings": _settings,
    "decoded images": _image_cache,
    "statistics": _statistics_cache,
    "compiled programs": _programs,
    "weights": _weights,
}
