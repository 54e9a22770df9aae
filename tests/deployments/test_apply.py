"""What ``weir apply`` may change of a platform that runs."""

from __future__ import annotations

import errno
import json
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from deployments.applying import require_same_base
from deployments.platform import Platform
from weir.errors import ConfigError
from weir.run_folder import remove_run_folder
from weir.settings import ModelSettings, Settings, parse_settings, read_tree
from weir.settings.server import CorsSettings, MetricsSettings
from weir.settings.tree import ServerSettings


def _settings(**server: Any) -> Settings:
    return Settings(models=(ModelSettings(name="m", source="x"),), server=ServerSettings(**server))


@pytest.mark.parametrize(
    ("server", "named"),
    [
        ({"port": 9}, "server.port"),
        ({"cors": CorsSettings(origins=())}, "server.cors"),
        ({"max_connections": 9}, "server.max_connections"),
        ({"metrics": MetricsSettings(port=9)}, "server.metrics"),
    ],
)
def test_the_front_door_stays_as_it_is(server: dict[str, Any], named: str) -> None:
    with pytest.raises(ConfigError, match=f"{named}: .*restart"):
        require_same_base(_settings(), _settings(**server))


def test_the_rest_of_the_section_may_change() -> None:
    keys = MetricsSettings(key_sha256=("0" * 64,))
    require_same_base(_settings(), _settings(metrics=keys, request_timeout_s=9))


class _Deploys(Platform):
    """Everything but the processes. ``fails``: how many deploys do not come up."""

    def __init__(self, settings_file: Path, state: Path, fails: int) -> None:
        settings = parse_settings(read_tree(settings_file), "here")
        super().__init__(settings, settings_file, state)
        self.deployed: list[dict[str, Any]] = []
        self.awaited: list[int] = []
        self.fails = fails
        self._in_force.begin(self._in_force.copy())

    def _start_deployer(self, settings_file: Path) -> None:
        self.deployed.append(read_tree(settings_file))

    def _await_application(self) -> None:
        self.awaited.append(self._settings.models[0].replicas)
        if self.fails:
            self.fails -= 1
            raise ConfigError("the platform does not come up")

    def _await_control(self) -> None:
        """It is not there."""

    def _write_description(self) -> None:
        """Nobody reads it."""

    def apply(self, replicas: int) -> dict[str, Any]:
        """The last that whoever waits is told."""
        self._settings_file.write_text(_with_replicas(replicas), "utf-8")
        self._apply()
        lines = (self._state / "progress.jsonl").read_text("utf-8").splitlines()
        return dict(json.loads(lines[-1]))


def _with_replicas(replicas: int) -> str:
    engine = {"mode": "stub"}
    source = str(Path("platform/weir/artifacts/teacher").absolute())
    model = {"name": "m", "source": source, "replicas": replicas, "engine": engine}
    return yaml.safe_dump({"models": [model]})


@pytest.fixture
def deploys(tmp_path: Path) -> Iterator[Callable[[int], _Deploys]]:
    file = tmp_path / "settings.yaml"
    file.write_text(_with_replicas(2), "utf-8")
    yield lambda fails: _Deploys(file, tmp_path, fails)
    remove_run_folder(tmp_path)


def _replicas(tree: dict[str, Any]) -> int:
    return int(tree["models"][0]["replicas"])


def test_an_apply_that_fails_brings_back_what_was_there(
    deploys: Callable[[int], _Deploys],
) -> None:
    platform = deploys(1)
    told = platform.apply(5)
    assert (told["stage"], told["state"]) == ("apply", "fail")
    assert "does not come up" in told["error"]
    assert [_replicas(tree) for tree in platform.deployed] == [5, 2]
    assert platform.awaited == [5, 2]
    assert _replicas(read_tree(platform._settings_file)) == 2
    # The next one that fails goes back to what took effect last, and not to what failed.
    assert platform.apply(3)["state"] == "done"
    platform.fails = 1
    assert platform.apply(4)["state"] == "fail"
    assert [_replicas(tree) for tree in platform.deployed] == [5, 2, 3, 4, 3]


def test_what_was_there_may_not_come_back_either(deploys: Callable[[int], _Deploys]) -> None:
    platform = deploys(2)
    assert platform.apply(5)["state"] == "fail"
    told = (platform._state / "progress.jsonl").read_text("utf-8")
    assert "does not come back" in told


def test_the_run_folder_goes_though_temporary_files_lie_in_it_by_then(
    deploys: Callable[[int], _Deploys], monkeypatch: pytest.MonkeyPatch
) -> None:
    """The test's state folder has a long path, so that its run folder is a temporary one."""
    monkeypatch.setenv("TMPDIR", tempfile.gettempdir())  # as it was, afterwards
    monkeypatch.setattr(tempfile, "tempdir", None)
    platform = deploys(0)
    platform._keep_temporary_files_together()
    assert tempfile.gettempdir() == str(platform._folder)
    platform.remove_folder()
    assert not platform._folder.exists()


def test_a_full_disk_changes_nothing(
    deploys: Callable[[int], _Deploys], monkeypatch: pytest.MonkeyPatch
) -> None:
    platform = deploys(0)

    def full(*_: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(platform._in_force, "copy", full)
    told = platform.apply(5)
    assert told["state"] == "fail"
    assert "No space" in told["error"]
    assert platform.deployed == []
    assert platform._settings.models[0].replicas == 2
