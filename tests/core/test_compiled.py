import numba
import pytest
from numba.core import caching

from simclr.core import compiled


def test_where_nothing_can_be_written_there_is_no_cache(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(caching.CacheImpl, "_locator_classes", [])

    def double(value):  # type: ignore[no-untyped-def]
        return 2 * value

    with pytest.raises(RuntimeError, match="no locator available"):
        numba.njit(double, cache=True)
    assert compiled.njit(double)(4) == 8
