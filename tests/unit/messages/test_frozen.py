from __future__ import annotations

import copy
import pickle
from dataclasses import FrozenInstanceError

import pytest

from beanstalk_dispatch.messages.delivery import Delivery
from beanstalk_dispatch.messages.frozen import make
from beanstalk_dispatch.messages.message import Message

FIELDS = {"function": "f", "id": "1", "args": [1]}


def test_an_instance_is_as_if_its_class_had_made_it() -> None:
    made = make(Message, FIELDS)
    assert type(made) is Message
    assert repr(made) == "<Message id=1 function=f attempt=1>"
    assert made == Message(function="f", id="1", args=[1])
    assert made == copy.deepcopy(made) == pickle.loads(pickle.dumps(made))
    with pytest.raises(FrozenInstanceError):
        made.function = "g"  # type: ignore[misc]


def test_instances_share_no_default() -> None:
    one, other = make(Message, {"function": "f"}), make(Message, {"function": "f"})
    assert one.id != other.id
    assert one.kwargs is not other.kwargs


def test_wrong_fields_are_an_error_as_for_the_class() -> None:
    with pytest.raises(TypeError, match=r"Message.__init__\(\) missing 1 required keyword-only"):
        make(Message, {})
    with pytest.raises(TypeError, match=r"Delivery.__init__\(\) got an unexpected keyword"):
        make(Delivery, FIELDS)
