"""Reading settings: a profile that ships with weir, overlaid by the user's YAML file.

All problems are reported at once, each with the path of the key and what was expected.
"""

from __future__ import annotations

from collections.abc import Mapping
from importlib import resources
from pathlib import Path
from typing import Any

import yaml

from weir.errors import ConfigError
from weir.settings.examine import Further, Problem, examine
from weir.settings.parts import Parts
from weir.settings.tree import Settings

Tree = dict[str, Any]


class SettingsError(ConfigError):
    """The settings are unusable; ``problems`` lists everything found."""

    def __init__(self, origin: str, problems: tuple[Problem, ...]) -> None:
        lines = "".join(f"\n  {problem}" for problem in problems)
        count = f"{len(problems)} problem{'s' if len(problems) != 1 else ''}"
        super().__init__(f"{origin}: {count}{lines}")
        self.origin = origin
        self.problems = problems


class _UniqueKeyLoader(yaml.SafeLoader):
    """YAML lets a later duplicate key win silently; a settings file must not."""


def _unique_mapping(loader: _UniqueKeyLoader, node: yaml.MappingNode) -> Tree:
    seen: set[Any] = set()
    for key_node, _ in node.value:
        key = loader.construct_object(key_node, deep=True)
        if isinstance(key, list | dict):
            raise yaml.constructor.ConstructorError(
                None, None, "a key must be text", key_node.start_mark
            )
        if key in seen:
            raise yaml.constructor.ConstructorError(
                None, None, f"key {key!r} is given twice", key_node.start_mark
            )
        seen.add(key)
    return {str(k): v for k, v in loader.construct_mapping(node, deep=True).items()}


_UniqueKeyLoader.add_constructor(yaml.resolver.BaseResolver.DEFAULT_MAPPING_TAG, _unique_mapping)


def profile_names() -> tuple[str, ...]:
    """Profiles that ship with weir, sorted."""
    folder = resources.files("weir.settings") / "profiles"
    return tuple(sorted(f.name[:-5] for f in folder.iterdir() if f.name.endswith(".yaml")))


def load_settings(
    profile: str = "laptop", file: Path | None = None, overlay: Mapping[str, Any] | None = None
) -> Settings:
    """Profile, then ``file``, then ``overlay`` (later wins; lists are replaced, not merged).

    Raises:
        SettingsError: with every problem found, not only the first.
    """
    origin = f"profile {profile}" if file is None else str(file)
    return parse_settings(overlaid(profile, file, overlay), origin)


def overlaid(
    profile: str, file: Path | None = None, overlay: Mapping[str, Any] | None = None
) -> Tree:
    """The tree that :func:`load_settings` reads.

    Raises:
        SettingsError: no such profile, or the file is no YAML mapping.
    """
    tree = read_profile(profile)
    if file is not None:
        tree = _merge(tree, read_tree(file))
    return _merge(tree, dict(overlay)) if overlay else tree


def read_profile(name: str) -> Tree:
    """The tree of a profile that ships with weir."""
    if name not in profile_names():
        known = ", ".join(profile_names())
        raise SettingsError("--profile", (Problem(name, f"no such profile; known: {known}"),))
    text = (resources.files("weir.settings") / "profiles" / f"{name}.yaml").read_text("utf-8")
    return _parse_yaml(text, f"profile {name}")


def read_tree(file: Path) -> Tree:
    """A YAML file's mapping, duplicate keys refused."""
    try:
        text = file.read_text("utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise SettingsError(str(file), (Problem("(file)", str(error)),)) from error
    return _parse_yaml(text, str(file))


def parse_settings(
    tree: Tree, origin: str, parts: Parts | None = None, further: Further = lambda _: ()
) -> Settings:
    """Validate a whole tree. ``parts`` and ``further``: what the rooms know of it
    (:func:`weir.settings.examine.examine`).

    Raises:
        SettingsError: with every problem found, not only the first.
    """
    settings, problems = examine(tree, parts, further)
    if settings is None:
        raise SettingsError(origin, problems)
    return settings


def _parse_yaml(text: str, origin: str) -> Tree:
    try:
        tree = yaml.load(text, Loader=_UniqueKeyLoader)
    except yaml.YAMLError as error:
        message = " ".join(str(error).split())
        raise SettingsError(origin, (Problem("(yaml)", message),)) from None
    if tree is None:
        return {}
    if not isinstance(tree, dict):
        found = type(tree).__name__
        raise SettingsError(origin, (Problem("(top level)", f"expected a mapping, found {found}"),))
    return tree


def _merge(base: Tree, over: Tree) -> Tree:
    merged = dict(base)
    for key, value in over.items():
        below = merged.get(key)
        both_maps = isinstance(below, dict) and isinstance(value, dict)
        merged[key] = _merge(below, value) if both_maps else value  # type: ignore[arg-type]
    return merged
