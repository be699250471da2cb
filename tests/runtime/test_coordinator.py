"""The address where the processes of a run meet, checked on this machine."""

import socket

import pytest

from sagan_jax.errors import InvalidInputError
from sagan_jax.runtime import coordinator
from sagan_jax.runtime.coordinator import check_coordinator
from support.processes import free_port


def test_coordinator_with_a_free_port_of_this_machine_can_be_used_and_stays_free():
    port = free_port()
    for _ in range(3):
        check_coordinator(f"127.0.0.1:{port}", 0)
    with socket.create_server(("127.0.0.1", port)):
        pass


def test_coordinator_may_be_an_ipv6_address_or_a_name():
    check_coordinator(f"localhost:{free_port()}", 0)
    if socket.has_dualstack_ipv6():
        check_coordinator(f"[::1]:{free_port()}", 0)


@pytest.mark.parametrize("address", ["127.0.0.1", "host:", ":80", "host:0", "host:65536", "a host:80"])
def test_coordinator_that_is_no_address_is_refused(address):
    with pytest.raises(InvalidInputError, match="needs host:port, such as"):
        check_coordinator(address, 1)


def test_coordinator_whose_port_is_in_use_is_refused_by_process_0_alone():
    with socket.create_server(("127.0.0.1", 0)) as server:
        address = f"127.0.0.1:{server.getsockname()[1]}"
        with pytest.raises(
            InvalidInputError, match=r"free port; process 0 cannot listen at port \d+ \(Address already"
        ):
            check_coordinator(address, 0)
        check_coordinator(address, 1)


def test_coordinator_of_another_machine_is_refused_by_process_0(monkeypatch):
    monkeypatch.setattr(coordinator, "_SECONDS_TO_CONNECT", 0.1)
    # An address of the block that is kept for documentation.
    with pytest.raises(InvalidInputError, match=r"this process is 0, and '192\.0\.2\.1' does not lead to it"):
        check_coordinator(f"192.0.2.1:{free_port()}", 0)


@pytest.mark.parametrize("process_id", [0, 1])
@pytest.mark.parametrize("host", ["nowhere.invalid", "a..b"])
def test_coordinator_without_an_address_is_refused(host, process_id, monkeypatch, capsys):
    monkeypatch.setattr(coordinator, "_SECONDS_TO_RESOLVE", 0.1)
    with pytest.raises(InvalidInputError, match=f"'{host}' has no address"):
        check_coordinator(f"{host}:1234", process_id)
    assert ("has no address yet" in capsys.readouterr().err) == (process_id != 0)
