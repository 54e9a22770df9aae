"""Adding, staging and opening models; damage, half writes and two writers at once."""

from __future__ import annotations

import hashlib
import json
import threading
from collections.abc import Callable
from pathlib import Path

import pytest

from weir.errors import ConfigError
from weir.registry import GateReport, Registry, Stage, parse_reference, read_manifest
from weir.registry.gate import read_gate_report
from weir.registry.store import DirectoryStore

PASSED = GateReport(True, metrics={"accuracy": 0.9})


def make_model(folder: Path, weights: bytes = b"w1", **fields: object) -> Path:
    folder.mkdir(parents=True)
    files = {"config.json": b"{}", "model.safetensors": weights}
    for name, content in files.items():
        (folder / name).write_bytes(content)
    manifest = {
        "name": "student",
        "version": "1.0.0",
        "lineage": {"teacher_sha256": "ab"},
        "sha256": {name: hashlib.sha256(content).hexdigest() for name, content in files.items()},
        **fields,
    }
    (folder / "manifest.json").write_text(json.dumps(manifest))
    return folder


@pytest.fixture(params=["directory", "object store"])
def registry(request: pytest.FixtureRequest, tmp_path: Path) -> Registry:
    url = str(tmp_path / "r") if request.param == "directory" else f"memory://{tmp_path.name}"
    return Registry(url, cache=tmp_path / "cache", clock=lambda: 1.0)


def stages(registry: Registry) -> list[str]:
    return [version.stage.value for version in registry.list("student")]


def test_a_model_is_added_and_opened(registry: Registry, tmp_path: Path) -> None:
    version = registry.add(make_model(tmp_path / "m"), PASSED)
    assert (version.reference, version.stage) == ("student@1", Stage.CANDIDATE)
    assert version.lineage == {"teacher_sha256": "ab"}
    assert version.metrics == {"accuracy": 0.9}
    folder = registry.open("student", 1)
    assert (folder / "model.safetensors").read_bytes() == b"w1"
    assert registry.names() == ["student"]


def test_a_failed_gate_is_refused(registry: Registry, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"intents 0\.4 is below 0\.76"):
        registry.add(
            make_model(tmp_path / "m"),
            GateReport(False, ("accuracy on common intents 0.4 is below 0.76",)),
        )
    assert registry.list() == []


def test_promotion_goes_stage_by_stage_and_back(registry: Registry, tmp_path: Path) -> None:
    for number in (1, 2, 3):
        registry.add(make_model(tmp_path / str(number), b"w%d" % number), PASSED)
    registry.promote("student", 1)
    registry.promote("student", 1)
    registry.promote("student", 2)
    assert stages(registry) == ["live", "canary", "candidate"]
    registry.promote("student", 2)
    registry.promote("student", 3, Stage.LIVE)
    assert stages(registry) == ["retired", "retired", "live"]
    assert registry.rollback("student").number == 2
    assert registry.rollback("student").number == 1
    assert stages(registry) == ["live", "retired", "retired"]
    with pytest.raises(ConfigError, match="no earlier version was live"):
        registry.rollback("student")


def test_a_second_canary_sends_the_first_back(registry: Registry, tmp_path: Path) -> None:
    for number in (1, 2):
        registry.add(make_model(tmp_path / str(number), b"w%d" % number), PASSED)
        registry.promote("student", number)
    assert stages(registry) == ["candidate", "canary"]


def test_the_same_files_twice_are_refused(registry: Registry, tmp_path: Path) -> None:
    model = make_model(tmp_path / "m")
    registry.add(model, PASSED)
    with pytest.raises(ConfigError, match="version 1"):
        registry.add(model, PASSED)


def test_what_is_not_there_is_named(registry: Registry, tmp_path: Path) -> None:
    registry.add(make_model(tmp_path / "m"), PASSED)
    with pytest.raises(ConfigError, match=r"nothing of stage live; versions: 1 \(candidate\)"):
        registry.open("student")
    with pytest.raises(ConfigError, match="nothing of version 7"):
        registry.promote("student", 7)


def changed(folder: Path) -> None:
    (folder / "model.safetensors").write_bytes(b"evil")


def missing(folder: Path) -> None:
    (folder / "model.safetensors").unlink()


def added(folder: Path) -> None:
    (folder / "pytorch_model.bin").write_bytes(b"pickle")


def other_manifest(folder: Path) -> None:
    manifest = json.loads((folder / "manifest.json").read_text())
    (folder / "model.safetensors").write_bytes(b"evil")
    manifest["sha256"]["model.safetensors"] = hashlib.sha256(b"evil").hexdigest()
    (folder / "manifest.json").write_text(json.dumps(manifest))


@pytest.mark.parametrize(
    ("damage", "named"),
    [
        (changed, "model.safetensors: refused: its SHA-256"),
        (missing, "model.safetensors: refused: the manifest lists this file"),
        (added, "pytorch_model.bin: refused: the manifest does not list"),
        (other_manifest, "manifest.json: refused: the manifest is not the one of student@1"),
    ],
)
def test_damage_is_refused_at_load(
    tmp_path: Path, damage: Callable[[Path], None], named: str
) -> None:
    registry = Registry(str(tmp_path / "r"))
    registry.add(make_model(tmp_path / "m"), PASSED)
    damage(registry.open("student", 1))
    for load in (registry.open, registry.promote):
        with pytest.raises(ConfigError, match=named):
            load("student", 1)
    assert stages(registry) == ["candidate"]


def test_damage_in_the_cache_is_refused_too(tmp_path: Path) -> None:
    registry = Registry(f"memory://{tmp_path.name}", cache=tmp_path / "cache")
    registry.add(make_model(tmp_path / "m"), PASSED)
    changed(registry.open("student", 1))
    with pytest.raises(ConfigError, match=r"model.safetensors: refused: its SHA-256"):
        registry.open("student", 1)


def test_a_folder_that_is_not_what_it_says_is_not_added(tmp_path: Path) -> None:
    registry = Registry(str(tmp_path / "r"))
    model = make_model(tmp_path / "m")
    (model / "model.safetensors").write_bytes(b"half")
    with pytest.raises(ConfigError, match=r"model\.safetensors"):
        registry.add(model, PASSED)
    assert registry.list() == []


@pytest.mark.parametrize("name", ["../../etc/passwd", "/etc/passwd", "a\\b"])
def test_a_manifest_cannot_lead_out_of_its_folder(tmp_path: Path, name: str) -> None:
    model = make_model(tmp_path / "m", sha256={name: "00"})
    with pytest.raises(ConfigError, match="no path inside the folder"):
        read_manifest(model)


class _Breaks(DirectoryStore):
    """Fails at the n-th upload, as a machine that goes down would."""

    left = 1

    def upload(self, local: Path, path: str) -> None:
        self.left -= 1
        if self.left < 0:
            raise OSError("gone")
        super().upload(local, path)


def test_a_half_written_version_does_not_exist(tmp_path: Path) -> None:
    broken = Registry("r", store=_Breaks(tmp_path / "r"))
    model = make_model(tmp_path / "m")
    with pytest.raises(OSError, match="gone"):
        broken.add(model, PASSED)
    whole = Registry(str(tmp_path / "r"))
    assert whole.list() == []
    assert whole.add(model, PASSED).number == 1
    assert whole.open("student", 1).is_dir()


def test_two_writers_lose_nothing(tmp_path: Path) -> None:
    """Ten versions added by ten threads: ten numbers, none lost, one live at the end."""
    registry = Registry(str(tmp_path / "r"))
    models = [make_model(tmp_path / str(n), b"w%d" % n) for n in range(10)]
    failures: list[BaseException] = []

    def work(model: Path) -> None:
        try:
            number = registry.add(model, PASSED).number
            registry.promote("student", number, Stage.LIVE)
        except BaseException as error:  # a thread's error must reach the test
            failures.append(error)
            raise

    threads = [threading.Thread(target=work, args=(model,)) for model in models]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert failures == []
    versions = registry.list("student")
    assert [v.number for v in versions] == list(range(1, 11))
    assert sorted(v.stage.value for v in versions) == ["live"] + ["retired"] * 9


class _SlowToNotice(DirectoryStore):
    """Shows the state before the other writer's change once, as a race would."""

    def __init__(self, root: Path) -> None:
        super().__init__(root)
        self.before_create: Callable[[], object] | None = None

    def create(self, path: str, content: bytes) -> bool:
        if self.before_create is not None:
            other, self.before_create = self.before_create, None
            other()
        return super().create(path, content)


def test_a_promotion_between_reading_and_writing_is_kept(tmp_path: Path) -> None:
    store = _SlowToNotice(tmp_path / "r")
    mine, other = Registry("r", store=store), Registry(str(tmp_path / "r"))
    for number in (1, 2):
        other.add(make_model(tmp_path / str(number), b"w%d" % number), PASSED)
    store.before_create = lambda: other.promote("student", 1, Stage.LIVE)
    mine.promote("student", 2, Stage.CANARY)
    assert stages(mine) == ["live", "canary"]


def test_confidence_is_read_and_checked(tmp_path: Path) -> None:
    good: dict[str, object] = {
        "signal": "mean_logprob",
        "first_tokens": 8,
        "threshold": -0.3,
        "target_accuracy": 0.9,
    }
    manifest = read_manifest(make_model(tmp_path / "m", confidence=good))
    assert manifest is not None
    assert manifest.confidence is not None
    assert (manifest.confidence.first_tokens, manifest.confidence.threshold) == (8, -0.3)
    for number, bad in enumerate(({**good, "signal": "x"}, {**good, "first_tokens": 0}, [1])):
        with pytest.raises(ConfigError, match="confidence"):
            read_manifest(make_model(tmp_path / f"bad{number}", confidence=bad))


def test_references() -> None:
    assert parse_reference("student") == ("student", Stage.LIVE)
    assert parse_reference("student@canary") == ("student", Stage.CANARY)
    assert parse_reference("student@12") == ("student", 12)
    with pytest.raises(ConfigError, match="student@best"):
        parse_reference("student@best")


def test_gate_reports(tmp_path: Path) -> None:
    file = tmp_path / "report.json"
    file.write_text(json.dumps({"gate": {"passed": False, "failures": ["too slow"]}}))
    assert read_gate_report(file) == GateReport(False, ("too slow",))
    file.write_text("{}")
    with pytest.raises(ConfigError, match="passed"):
        read_gate_report(file)
    with pytest.raises(ConfigError, match="cannot pass"):
        GateReport(True, ("x",))


def test_the_shipped_teacher_is_what_its_manifest_says() -> None:
    from deployments.sources import model_source
    from weir.registry import verify_folder

    folder = Path(model_source("builtin:teacher"))
    manifest = read_manifest(folder)
    assert manifest is not None
    verify_folder(folder, manifest)
