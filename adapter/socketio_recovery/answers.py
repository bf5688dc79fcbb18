"""What those who were asked have answered, and who has not.  No I/O."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any, NamedTuple


class Answers(NamedTuple):
    """The answers to one question that was put to several clients, or to several nodes."""

    #: By the ``sid`` of the client, or by the name of the node (the ``host_id`` of its manager).
    answers: dict[str, Any]
    #: Who was expected to answer and did not, in time: sids, or names of nodes.
    missing: list[str]
    #: Nodes on which the question failed: by name, what the handler raised, or that there is no handler. Clients have
    #: no way to say that.
    errors: dict[str, str]


def answer(arguments: Sequence[Any]) -> Any:
    """What an acknowledgement says, in the form that python-socketio's ``call`` returns it."""
    return None if not arguments else arguments[0] if len(arguments) == 1 else tuple(arguments)


def of_clients(expected: Iterable[str], got: Mapping[str, Sequence[Any]]) -> Answers:
    """The answers of clients: the arguments of each one's acknowledgement."""
    missing = [sid for sid in expected if sid not in got]
    return Answers({sid: answer(arguments) for sid, arguments in got.items()}, missing, {})


def of_nodes(expected: Iterable[str], got: Mapping[str, Sequence[Any]]) -> Answers:
    """The answers of nodes: whether the handler succeeded, and what it returned, or what went wrong."""
    answers: dict[str, Any] = {}
    errors: dict[str, str] = {}
    for node, (succeeded, value) in got.items():
        if succeeded:
            answers[node] = value
        else:
            errors[node] = str(value)
    return Answers(answers, [node for node in expected if node not in got], errors)
