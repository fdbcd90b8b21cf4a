"""What other tests are made of."""

from __future__ import annotations

from pathlib import Path

from apps import free_port

HERE = Path(__file__).parent


def test_a_port_is_not_handed_out_again_while_the_one_who_has_it_is_being_made() -> None:
    ports = [free_port() for _ in range(50)]

    assert len(set(ports)) == 50


def test_no_server_in_the_tests_process_prints_what_became_of_its_clients() -> None:
    """They are all made of the one that does not."""
    found = {path.name for path in HERE.glob("*.py") if "ThreadingHTTPServer" in path.read_text(encoding="utf-8")}
    assert found == {"quiet_server.py", Path(__file__).name}
