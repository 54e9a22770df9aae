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

from typing import Any

from ray.serve._private.config import DeploymentConfig

from deployments.checking import checked
from deployments.deploy import application


def build(args: dict[str, Any]) -> Any:
    """The application. ``args``: ``settings``, a tree as :func:`weir.settings.parse_settings` takes
    it.

    Raises:
        SettingsError: everything that is wrong with the settings; Serve's status shows it.
    """
    built = application(checked(args["settings"], "serveConfigV2"))
    gateway = built._bound_deployment
    _, handles = gateway.init_args
    for deployment in (gateway, *(each._bound_deployment for each in handles.values())):
        _keep_version(deployment)
    return built


def _keep_version(deployment: Any) -> None:
    """Serve's REST API gives all deployments of an application one version, a digest of ``args``,
    so that each change of the settings would restart every replica of every model. It puts it into
    the deployment's configuration just before it packs that; what is packed here is the version
    that :mod:`deployments.versions` made."""
    version: str = deployment._version
    given: DeploymentConfig = deployment._deployment_config

    class OwnVersion(DeploymentConfig):  # type: ignore[misc]
        def to_proto_bytes(self) -> bytes:
            self.version = version
            return bytes(super().to_proto_bytes())

    deployment._deployment_config = OwnVersion.model_construct(
        _fields_set=set(given.model_fields_set), **dict(given)
    )
