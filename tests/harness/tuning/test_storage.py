"""Where studies are kept: a torn journal, addresses that cannot be reached."""

from __future__ import annotations

import pytest

from harness.errors import UsageError
from harness.tuning.storage import open_storage
from tests.harness.tuning.test_studies import ask, opened, store

__all__ = ["store"]


def test_a_torn_last_line_is_cut_off_with_a_copy_and_the_study_goes_on(store):
    study = opened(store)
    study.tell(ask(study), 1.0)
    journal = store / "studies" / "journal.log"
    whole = journal.read_bytes()
    journal.write_bytes(whole + b'{"op_code": 4, "wor')
    again = opened(store, resume=True)
    again.tell(ask(again), 2.0)
    assert [t.value for t in opened(store, resume=True).trials] == [1.0, 2.0]
    (copy,) = (store / "studies").glob("journal.torn-*.log")
    assert copy.read_bytes() == whole + b'{"op_code": 4, "wor'


def test_an_unreachable_storage_is_said_at_once_and_makes_nothing(store):
    for url in (f"sqlite:///{store}/nowhere/x.db", "postgresql://me:secret@127.0.0.1:9/x", "nonsense"):
        with pytest.raises(UsageError, match="cannot be used") as error:
            open_storage(url, store)
        assert "secret" not in str(error.value)
    assert not (store / "nowhere").exists()
