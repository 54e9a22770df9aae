"""Fills a folder that several machines share with the files of all models of the settings.

``python -m deployments.fetching --settings FILE --folder DIR [--copy URL=NAME]`` fetches what
``models[].source``, drafts and adapters name: versions of the model registry, and models of the
Hugging Face hub; and copies folders of an object store to ``DIR/NAME``, for sources that are
folders. What is there already stays. ``--done NAME`` leaves a mark at the end, and ``--wait`` only
waits for that mark.

Replicas find the files by the environment: ``WEIR_HOME`` (the registry's copies) and ``HF_HOME``
(the hub's) lie in the folder.
"""

from __future__ import annotations

import argparse
import logging
import shutil
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, Final

from deployments.sources import model_source
from weir.adapters import locate_adapter
from weir.errors import ConfigError, WeirError
from weir.logs import configure_logging
from weir.settings import Settings, parse_settings, read_tree

_LOG = logging.getLogger("weir.fetching")
_MARKS: Final = ".done"
_PAUSE_S = 5.0
#: Weights a second time, in their author's own format.
_LEFT_OUT: Final = ("original/*", "*.pth")


def sources_of(settings: Settings) -> Iterator[str]:
    """What models and their drafts name, each once."""
    named = [
        source
        for model in settings.models
        for source in (model.source, model.speculative.draft)
        if source is not None
    ]
    yield from dict.fromkeys(named)


def fetch_all(settings: Settings, download: Callable[[str], object]) -> None:
    """``download`` gets names of models of the hub.

    Raises:
        ConfigError: a model or an adapter is not there, or is not what its manifest says.
    """
    for source in sources_of(settings):
        _LOG.info("fetching %s", source)
        place = model_source(source, settings.registry.url)
        if not Path(place).is_dir():
            download(place)
    for model in settings.models:
        for adapter in model.adapters:
            _LOG.info("fetching %s of %s", adapter.source, model.name)
            locate_adapter(adapter.source, settings.registry.url)


def copy_folder(url: str, target: Path) -> bool:
    """A folder that fsspec knows, to ``target``; whether it was copied. What is broken off leaves
    nothing there.

    Raises:
        ConfigError: there is no such folder, or no package for such URLs.
    """
    if target.is_dir():
        return False
    import fsspec  # type: ignore[import-untyped]

    partial = target.with_name(f".{target.name}.partial")
    shutil.rmtree(partial, ignore_errors=True)
    target.parent.mkdir(parents=True, exist_ok=True)
    try:
        store, path = fsspec.core.url_to_fs(url)
        if not store.isdir(path):
            raise ConfigError(f"{url}: there is no such folder")
        store.get(path.rstrip("/") + "/", f"{partial}/", recursive=True)
    except (ImportError, ValueError, OSError) as error:
        raise ConfigError(f"{url}: {error}") from None
    partial.rename(target)
    return True


def _from_hub(name: str) -> None:
    from huggingface_hub import snapshot_download

    snapshot_download(name, ignore_patterns=list(_LEFT_OUT))


def _copies(given: list[str], folder: Path) -> dict[str, Path]:
    copies = {}
    for each in given:
        url, _, name = each.rpartition("=")
        if not url or not name or Path(name).is_absolute() or ".." in Path(name).parts:
            raise ConfigError(f"--copy {each}: expected URL=NAME, a folder in --folder")
        copies[url] = folder / name
    return copies


def _fill(arguments: Any, mark: Path) -> None:
    settings = parse_settings(read_tree(arguments.settings), str(arguments.settings))
    configure_logging(settings.log)
    for url, target in _copies(arguments.copy, arguments.folder).items():
        _LOG.info("copying %s", url)
        copy_folder(url, target)
    fetch_all(settings, _from_hub)
    mark.parent.mkdir(parents=True, exist_ok=True)
    mark.touch()


def main(argv: list[str] | None = None) -> int:
    """The exit code is 1 where something cannot be had; the log has the reason."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--settings", type=Path, required=True)
    parser.add_argument("--folder", type=Path, required=True)
    parser.add_argument("--copy", action="append", default=[], metavar="URL=NAME")
    parser.add_argument("--done", default="all", metavar="NAME")
    parser.add_argument("--wait", action="store_true")
    arguments = parser.parse_args(argv)
    mark: Path = arguments.folder / _MARKS / arguments.done
    try:
        while arguments.wait and not mark.exists():
            time.sleep(_PAUSE_S)
        if not arguments.wait:
            _fill(arguments, mark)
    except WeirError as error:
        _LOG.error("%s", error.message)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
