"""The log key in a TPM 2.0, in software: made in it, signing from it, and gone with it."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from pathlib import Path

import pytest
from tpm_token import TpmToken, tpm_token

from agent.hsm.key import TRIAL, TokenKey, look, make
from agent.ledger import store as store_module
from tests.integration.test_log_key_token import TokenBox, events
from wire.checkpoints import log_key, open_checkpoint


@pytest.fixture
def tpm(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[TpmToken]:
    with tpm_token(tmp_path / "tpm", monkeypatch) as made:
        yield made


def test_a_key_is_made_in_the_chip_and_signs(tpm: TpmToken) -> None:
    token = tpm.token()
    assert look(token) is None
    key = make(token)
    assert key.public.verifies(TRIAL, key.sign_now(TRIAL))
    again = make(token)
    assert (again.public, again.id) == (key.public, key.id)
    assert make(tpm.token(key="another")).public != key.public


async def test_a_chip_that_is_gone_stops_checkpoints_alone_and_signs_when_it_is_back(
    tpm: TpmToken, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(store_module, "GROUP_S", 0.001)
    box = TokenBox(tmp_path / "state")
    box.soft, box.begun_in_token = tpm, True
    await box.open()
    try:
        await box.write(2)
        await box.checkpointer.make()
        assert box.checkpointer.counters.signed == 1
        await asyncio.to_thread(tpm.pull)
        await box.write(3)
        await box.checkpointer.make()
        assert box.checkpointer.counters.signed == 1
        assert box.checkpointer.unsigned is not None
        await asyncio.to_thread(tpm.put_back)
        await box.checkpointer.make()
        assert box.checkpointer.unsigned is None
        rows = await box.ledger.read("SELECT size, note FROM checkpoint ORDER BY size")
        assert len(rows) == 2
        assert isinstance(box.checkpointer.key, TokenKey)
        for _, note in rows:
            open_checkpoint(bytes(note), [log_key(box.checkpointer.origin, box.checkpointer.key.public.raw)])
        assert [now for now, _ in await events(box)] == ["does not sign", "signs"]
    finally:
        await box.close()
