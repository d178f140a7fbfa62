"""Pilots' access tokens."""

import time

import jwt
import pytest

from copilot_agent.protocol.errors import CopilotError, ErrorCode
from job_manager_adapter.transports.http.tokens import AccessTokens

PILOT = "p-00000000000000000000"
KEY = b"k" * 32


def code_of(tokens: AccessTokens, token: str) -> str:
    with pytest.raises(CopilotError) as caught:
        tokens.pilot(token)
    assert caught.value.remedy
    return caught.value.code


def test_a_token_names_its_pilot_and_end() -> None:
    token, expires = AccessTokens(KEY, 600).issue(PILOT, time.time())
    assert AccessTokens(KEY).pilot(token) == PILOT
    assert expires == pytest.approx(time.time() + 600, abs=2)


def test_an_old_one_has_expired() -> None:
    tokens = AccessTokens(KEY, 600)
    token, _ = tokens.issue(PILOT, time.time() - 601)
    assert code_of(tokens, token) == ErrorCode.TOKEN_EXPIRED


def test_a_good_one_is_checked_anew_after_its_end(monkeypatch: pytest.MonkeyPatch) -> None:
    tokens = AccessTokens(KEY, 600)
    token, expires = tokens.issue(PILOT, time.time())
    checked: list[str] = []

    def check(given: str) -> tuple[str, float]:
        checked.append(given)
        return PILOT, expires

    monkeypatch.setattr(tokens, "_checked", check)
    assert [tokens.pilot(token), tokens.pilot(token)] == [PILOT, PILOT]
    assert checked == [token]
    monkeypatch.setattr(time, "time", lambda: expires)
    tokens.pilot(token)
    assert checked == [token, token]


def test_forged_ones_are_refused() -> None:
    tokens = AccessTokens(KEY)
    good, _ = tokens.issue(PILOT, time.time())
    head, claims, signature = good.split(".")
    kid = jwt.get_unverified_header(good)["kid"]
    payload = {"sub": PILOT, "aud": "copilot-pilot", "exp": time.time() + 99}
    forged = [
        AccessTokens(b"x" * 32).issue(PILOT, time.time())[0],
        f"{head}.{claims}.{signature[:-2]}AA",
        jwt.encode(payload, "", algorithm="none", headers={"kid": kid}),
        jwt.encode(payload, b"x" * 32, algorithm="HS256", headers={"kid": kid}),
        jwt.encode(payload | {"aud": "other"}, KEY, algorithm="HS256", headers={"kid": kid}),
        "",
        "a.b.c",
        "é" * 100,
    ]
    assert {code_of(tokens, token) for token in forged} == {ErrorCode.UNAUTHENTICATED}
