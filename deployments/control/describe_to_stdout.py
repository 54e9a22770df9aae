"""``python -m deployments.control.describe_to_stdout``: the API's OpenAPI description as JSON."""

from __future__ import annotations

import json
import sys
from pathlib import Path

from deployments.control.building import build_control
from weir.settings import load_settings


def main() -> None:
    """Print it. Nothing is opened: the application is not started."""
    settings = load_settings("laptop")
    app = build_control(settings, {"WEIR_DATABASE_URL": "sqlite://"}, Path("."), background=False)
    json.dump(app.openapi(), sys.stdout)


if __name__ == "__main__":
    main()
