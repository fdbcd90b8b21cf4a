"""What other tests are made of."""

from __future__ import annotations

import re
import socket
import threading
from http.server import BaseHTTPRequestHandler
from pathlib import Path
from urllib.parse import urlsplit

import pytest
from lying_server import lying
from ports import FIRST, LAST, free_port
from quiet_server import QuietServer

HERE = Path(__file__).parent


def test_a_port_is_not_handed_out_again_while_the_one_who_has_it_is_being_made() -> None:
    ports = [free_port() for _ in range(50)]

    assert len(set(ports)) == 50


def test_no_server_is_where_another_workers_server_was() -> None:
    """Its clients may still be knocking. What asks Linux for any port can be given one that another test gave back."""
    with QuietServer(("127.0.0.1", 0), BaseHTTPRequestHandler) as server, lying(lambda *_: None) as url:
        ports = (server.server_address[1], urlsplit(url).port or 0)
    asking = re.compile(r"(start_server|create_server|\.bind)\(.*\D0\)")
    found = {path.name for path in HERE.glob("*.py") if asking.search(path.read_text(encoding="utf-8"))}

    assert all(FIRST <= port <= LAST for port in ports)
    assert not found


def test_a_server_that_is_over_takes_no_connection_of_another() -> None:
    before = threading.enumerate()

    with lying(lambda *_: None) as url:
        port = urlsplit(url).port or 0

    assert threading.enumerate() == before
    with pytest.raises(ConnectionRefusedError):
        socket.create_connection(("127.0.0.1", port))


def test_no_server_in_the_tests_process_prints_what_became_of_its_clients() -> None:
    """They are all made of the one that does not."""
    found = {path.name for path in HERE.glob("*.py") if "ThreadingHTTPServer" in path.read_text(encoding="utf-8")}
    assert found == {"quiet_server.py", Path(__file__).name}
