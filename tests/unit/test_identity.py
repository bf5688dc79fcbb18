"""Names of processes and producers: a fork has new ones. Real forks are in ``tests/cluster/test_life.py``."""

from __future__ import annotations

import os

import pytest
from socketio_recovery.identity import Identity, Producer


def fork(monkeypatch: pytest.MonkeyPatch) -> None:
    """From now on this is another process, as far as :func:`os.getpid` says."""
    pid = os.getpid() + 1
    monkeypatch.setattr(os, "getpid", lambda: pid)


def test_a_process_keeps_its_name_and_a_fork_has_another(monkeypatch: pytest.MonkeyPatch) -> None:
    identity = Identity()
    name = identity.name
    assert identity.name == name
    fork(monkeypatch)
    assert identity.name != name


def test_a_producer_goes_on_where_it_was(monkeypatch: pytest.MonkeyPatch) -> None:
    producer = Producer()
    name = producer.name
    producer.waiting = True
    producer.stored(2)
    producer.begin()
    assert (producer.name, producer.sequence) == (name, 3)
    fork(monkeypatch)
    producer.begin()
    assert (producer.name != name, producer.sequence) == (True, 1)


def test_a_producer_whose_last_batch_is_not_answered_begins_anew() -> None:
    """Otherwise the next batch would be taken for that one, and its entries would be lost."""
    producer = Producer()
    name = producer.name
    producer.waiting = True
    producer.begin()
    assert producer.name != name
    assert not producer.waiting


def test_a_producer_is_forgettable_when_nothing_of_it_can_come_any_more(monkeypatch: pytest.MonkeyPatch) -> None:
    producer = Producer()
    assert not producer.forgettable  # Redis never heard of it
    producer.waiting = True
    assert not producer.forgettable
    producer.stored(1)
    assert producer.forgettable
    producer.retried = True
    assert not producer.forgettable
    producer.retried = False
    fork(monkeypatch)
    assert not producer.forgettable  # it is the parent's
