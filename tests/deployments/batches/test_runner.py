"""Who takes lines, and as whom they run."""

from __future__ import annotations

from dataclasses import replace

import pytest

from deployments.batches.runner import STANDBY_WAIT_S, _Standby
from deployments.batches.service import callers_in
from weir.errors import ConfigError
from weir.settings import TenantSettings
from weir.settings.batches import BatchesSettings, class_of_batches
from weir.tenancy import Directory, LiveDirectory, hash_key


def test_a_gateway_with_clients_takes_lines_at_once() -> None:
    traffic = [0]
    standby = _Standby(lambda: traffic[0], 100.0)
    traffic[0] = 1
    assert standby.may_take(True, True, 101.0)
    assert not standby.may_take(False, True, 101.0)
    assert standby.may_take(True, False, 130.0)


def test_a_standby_takes_lines_when_nobody_else_does() -> None:
    standby = _Standby(lambda: 0, 100.0)
    assert not standby.may_take(True, False, 100.0)
    assert not standby.may_take(True, False, 100.0 + STANDBY_WAIT_S / 2)
    assert not standby.may_take(True, True, 101.0 + STANDBY_WAIT_S)
    assert not standby.may_take(True, False, 110.0)
    assert standby.may_take(True, False, 110.0 + STANDBY_WAIT_S)
    assert standby.may_take(True, False, 111.0 + STANDBY_WAIT_S)


def test_lines_run_as_long_as_tenant_and_key_may_ask() -> None:
    directory = Directory.of([TenantSettings(id="t", key_sha256=(hash_key("k"),))])
    caller = directory.callers[hash_key("k")]
    key, tenant = caller.key, caller.tenant
    live = LiveDirectory(directory, lambda: 100.0)
    find = callers_in(live, lambda: 100.0)
    assert find("t", key.id) == caller
    assert find("u", key.id) is None
    assert find("t", "other") is None
    for changed, there in (
        (replace(caller, key=replace(key, expires_s=50.0)), True),
        (replace(caller, key=replace(key, revoked_s=50.0)), False),
        (replace(caller, key=replace(key, revoked_s=150.0)), True),
        (replace(caller, tenant=replace(tenant, enabled=False)), False),
    ):
        live.directory = replace(directory, callers={key.id: changed})
        assert (find("t", key.id) is not None) is there


def test_the_class_of_batches_is_named_or_the_one_called_so_or_the_last() -> None:
    assert class_of_batches(BatchesSettings(), ["a", "batch", "b"]) == "batch"
    assert class_of_batches(BatchesSettings(), ["a", "b"]) == "b"
    assert class_of_batches(BatchesSettings(priority_class="a"), ["a", "b"]) == "a"
    with pytest.raises(ConfigError):
        class_of_batches(BatchesSettings(priority_class="c"), ["a", "b"])
