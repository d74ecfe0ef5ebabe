"""JSON files that carry their own hash."""

import json

import pytest

from mets_ray.storage import seal, unseal

FACTS = {"b": [1, 2.5, None], "a": {"µ": "x"}}


def test_the_content_comes_back_and_the_order_of_keys_means_nothing():
    sealed = unseal(seal(json.dumps(FACTS)))
    sealed.check()
    assert sealed.facts == FACTS
    assert sealed.digest == unseal(seal(json.dumps(dict(reversed(FACTS.items()))))).digest
    assert unseal(json.dumps(FACTS).encode()).digest == sealed.digest


def test_another_content_and_a_missing_digest_are_faults():
    tree = json.loads(seal(json.dumps(FACTS)))
    with pytest.raises(ValueError, match="another digest"):
        unseal(json.dumps(tree | {"b": [1, 2.5, 0]}).encode()).check(optional=True)
    bare = unseal(json.dumps(FACTS).encode())
    bare.check(optional=True)
    with pytest.raises(ValueError, match="no `digest`"):
        bare.check()


@pytest.mark.parametrize("data", [b"", b"[]", b"null", b"\xff", b"[" * 100_000, b'{"a": ' + b"1" * 5000 + b"}", b"{"])
def test_what_is_no_object_is_a_value_error(data):
    with pytest.raises(ValueError, match=r"."):
        unseal(data)


def test_a_signature_needs_the_key():
    signed = unseal(seal(json.dumps(FACTS), "key"))
    assert signed.is_signed_with("key")
    assert not signed.is_signed_with("other")
    assert not unseal(seal(json.dumps(FACTS))).is_signed_with("key")
    forged = json.loads(seal(json.dumps(FACTS | {"b": []}))) | {"signature": signed.signature}
    assert not unseal(json.dumps(forged).encode()).is_signed_with("key")
