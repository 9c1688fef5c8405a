from __future__ import annotations

import urllib.error
import urllib.request

import pytest

from tests.kent import Kent

pytestmark = pytest.mark.slow


def test_the_stand_in_refuses_what_sentry_does() -> None:
    kent = Kent()
    url = f"http://127.0.0.1:{kent.port}/api/1/envelope/"
    with pytest.raises(urllib.error.HTTPError) as refused:
        urllib.request.urlopen(url, data=b"no envelope", timeout=10)
    assert refused.value.code == 400
    refused.value.close()
    with pytest.raises(AssertionError):
        kent.stop()
