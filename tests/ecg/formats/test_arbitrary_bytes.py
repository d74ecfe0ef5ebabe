"""Readers of binary formats on bytes that nobody wrote as a file: they refuse, and do nothing else."""

import warnings

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mets_ray.ecg.formats import dicom, edf, ishne, mfer, scp
from mets_ray.ecg.formats.scp_huffman import decode, default_table
from mets_ray.errors import RecordError
from tests.support.clinical_files import huffman, mfer_header
from tests.support.clinical_files import ishne as written_ishne
from tests.support.clinical_files import scp as written_scp

BEGINNINGS = {
    dicom: bytes(128) + b"DICM",
    edf: b"0       " + b" " * 176 + b"512     " + b" " * 44 + b"1       1       1   " + b"ECG I".ljust(16),
    ishne: written_ishne(np.zeros((1, 1), np.int16), [5], checksum=b"\0\0")[:150],
    mfer: mfer_header((1, 2)),
    scp: written_scp({3: b"", 6: b""})[:24],
}


@pytest.mark.parametrize("module", BEGINNINGS, ids=lambda module: module.FORMAT)
@settings(max_examples=60, deadline=None)
@given(rest=st.binary(max_size=1500))
def test_only_refuses(module, rest):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        for data in (rest, BEGINNINGS[module] + rest):
            module.recognises(data[:4096])
            try:
                ecg = module.read(data)
            except RecordError as error:
                assert error.reason  # noqa: PT017
            else:
                assert ecg.signal_mv.shape[0] == len(ecg.leads) > 0


@settings(max_examples=60, deadline=None)
@given(numbers=st.lists(st.integers(-32768, 32767), max_size=200))
def test_huffman_code_there_and_back(numbers):
    assert decode(huffman(np.array(numbers)), len(numbers), (default_table(),)).tolist() == numbers
