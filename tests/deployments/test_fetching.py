"""Model files in a folder that machines share."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import yaml

from deployments.fetching import copy_folder, fetch_all, main, sources_of
from weir.errors import ConfigError
from weir.settings import Settings, parse_settings


def settings(*models: dict[str, Any], **more: Any) -> Settings:
    return parse_settings({"models": list(models), **more}, "test")


def model(name: str, source: str, **more: Any) -> dict[str, Any]:
    return {"name": name, "source": source, **more}


def test_each_source_is_fetched_once_and_drafts_are_sources() -> None:
    draft = {"speculative": {"draft": "org/small"}}
    tree = settings(model("a", "org/large", **draft), model("b", "org/large"))
    assert list(sources_of(tree)) == ["org/large", "org/small"]


def test_only_what_is_not_on_this_machine_is_downloaded(tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text("{}")
    asked: list[str] = []
    models = (model("a", "builtin:teacher"), model("b", str(tmp_path)), model("c", "org/large"))
    fetch_all(settings(*models), asked.append)
    assert asked == ["org/large"]


def test_a_model_that_is_not_there_is_said() -> None:
    with pytest.raises(ConfigError, match="no directory"):
        fetch_all(settings(model("a", "/nowhere")), lambda _: None)


class TestCopies:
    """Folders of a store."""

    def test_a_folder_is_copied_whole_and_only_once(self, tmp_path: Path) -> None:
        origin, target = tmp_path / "origin", tmp_path / "models" / "llama"
        (origin / "deep").mkdir(parents=True)
        (origin / "config.json").write_text("{}")
        (origin / "deep" / "part.safetensors").write_bytes(b"1")
        assert copy_folder(f"file://{origin}", target)
        assert (target / "config.json").read_text() == "{}"
        assert (target / "deep" / "part.safetensors").read_bytes() == b"1"
        (origin / "config.json").write_text("other")
        assert not copy_folder(f"file://{origin}", target)
        assert (target / "config.json").read_text() == "{}"

    def test_what_is_broken_off_is_not_there(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        from fsspec.implementations.local import LocalFileSystem

        origin, target = tmp_path / "origin", tmp_path / "models" / "llama"
        origin.mkdir()
        (origin / "config.json").write_text("{}")

        def fail(*_: Any, **__: Any) -> None:
            raise OSError("the network is gone")

        with monkeypatch.context() as patched:
            patched.setattr(LocalFileSystem, "get", fail)
            with pytest.raises(ConfigError, match="the network is gone"):
                copy_folder(f"file://{origin}", target)
        assert not target.exists()
        assert copy_folder(f"file://{origin}", target)

    @pytest.mark.parametrize("url", ["file:///nowhere/at/all", "nosuchscheme://x"])
    def test_no_such_folder(self, tmp_path: Path, url: str) -> None:
        with pytest.raises(ConfigError, match=url):
            copy_folder(url, tmp_path / "it")


def test_the_mark_is_left_at_the_end_and_waited_for(tmp_path: Path) -> None:
    file, folder, origin = tmp_path / "settings.yaml", tmp_path / "models", tmp_path / "origin"
    origin.mkdir()
    (origin / "config.json").write_text("{}")
    file.write_text(yaml.safe_dump({"models": [model("a", str(folder / "llama"))]}))
    common = ["--settings", str(file), "--folder", str(folder)]
    assert main([*common, "--done", "one"]) == 1, "nothing has copied it"
    assert not (folder / ".done" / "one").exists()
    assert main([*common, "--done", "one", "--copy", f"file://{origin}=llama"]) == 0
    assert main([*common, "--done", "one", "--wait"]) == 0


@pytest.mark.parametrize("given", ["file:///x", "file:///x=../up", "file:///x=/etc", "=x"])
def test_copies_stay_in_the_folder(tmp_path: Path, given: str) -> None:
    file = tmp_path / "settings.yaml"
    file.write_text(yaml.safe_dump({"models": [model("a", "builtin:teacher")]}))
    assert main(["--settings", str(file), "--folder", str(tmp_path), "--copy", given]) == 1
