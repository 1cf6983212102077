"""The address of a cluster of Ray is tried before Ray is asked, which needs no Ray."""

from __future__ import annotations

import socket

import pytest

from hiper.errors import UserError
from hiper.launch.ray import check_address


@pytest.mark.parametrize("prefix", ["", "ray://"])
def test_an_address_where_nothing_listens_is_told_soon(prefix: str):
    with socket.create_server(("127.0.0.1", 0)) as server:
        address = f"{prefix}127.0.0.1:{server.getsockname()[1]}"
        check_address(address)
    with pytest.raises(UserError, match=rf"no cluster of Ray answers at {address} .*check RAY_ADDRESS"):
        check_address(address)


@pytest.mark.parametrize("address", ["nowhere.invalid:6379", "127.0.0.1:99999", ":1"])
def test_odd_addresses_are_told(address: str):
    with pytest.raises(UserError, match="no cluster of Ray answers at"):
        check_address(address)


@pytest.mark.parametrize("address", ["", "auto", "local", "nowhere", "ray://head", "http://dashboard"])
def test_other_words_are_left_to_ray(address: str):
    check_address(address)
