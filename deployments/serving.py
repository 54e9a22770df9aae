"""weir's application for whoever deploys it by its path: Serve's REST API, as KubeRay uses it.

::

    applications:
      - name: weir
        import_path: deployments.serving:build
        args: {settings: {...}}          # the whole tree, without secrets

What is built is what ``weir up`` deploys (:func:`deployments.deploy.application`). Serve calls
:func:`build` in a task of its own, in which vLLM is imported.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from ray.serve._private import application_state

from deployments.checking import checked
from deployments.deploy import application


def build(args: dict[str, Any]) -> Any:
    """The application. ``args``: ``settings``, a tree as :func:`weir.settings.parse_settings` takes
    it.

    Raises:
        SettingsError: everything that is wrong with the settings; Serve's status shows it.
    """
    built = application(checked(args["settings"], "serveConfigV2"))
    _keep_versions(versions_of(built))
    return built


def versions_of(built: Any) -> dict[str, str]:
    """Of each deployment of an application, by its name: what it is made from
    (:mod:`deployments.versions`)."""
    gateway = built._bound_deployment
    _, handles = gateway.init_args
    bound = [gateway, *(each._bound_deployment for each in handles.values())]
    return {each.name: each._version for each in bound}


def _keep_versions(versions: dict[str, str]) -> None:
    """Serve's REST API gives all deployments of an application one version, a digest of ``args``,
    so that each change of the settings would restart every replica of every model. The task that
    builds the application ends with it; in that process each deployment keeps its own version."""
    describe: Callable[..., Any] = application_state.get_deploy_args

    def with_own_version(name: str, *arguments: Any, version: str, **named: Any) -> Any:
        return describe(name, *arguments, version=versions.get(name, version), **named)

    application_state.get_deploy_args = with_own_version
