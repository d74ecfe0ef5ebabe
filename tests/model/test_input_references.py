"""The reference of inputs beside a bundle: read with it, and refused where it is another's or damaged."""

import json
import shutil
from dataclasses import replace

import numpy as np
import pytest

from mets_ray import storage
from mets_ray.errors import CheckpointError
from mets_ray.model.bundle import load_bundle, with_reference
from mets_ray.model.input_references import ReferenceFile, find_reference, require_reference
from tests.support.references import made_up_reference, write_reference
from tests.support.serving import make_bundle


@pytest.fixture(scope="module")
def bare(tmp_path_factory):
    return make_bundle(tmp_path_factory.mktemp("bundle"))


@pytest.fixture(scope="module")
def file(bare):
    signals = np.random.default_rng(0).integers(-900, 900, (60, 12, 1000)).astype(np.int16)
    return made_up_reference(bare, signals)


@pytest.fixture
def bundle(bare, tmp_path):
    return shutil.copytree(bare, tmp_path / "copy" / "bundle")


def test_it_is_read_with_the_bundle_and_is_no_part_of_it(bundle, file):
    before = load_bundle(str(bundle))
    assert (before.reference, before.reference_fault) == (None, "the bundle has no reference of its inputs")
    path = write_reference(bundle, file)
    after = load_bundle(str(bundle))
    assert after.digest == before.digest
    assert after.reference is not None
    assert after.reference.to_bytes() == file.to_bytes() == path.read_bytes()
    assert after.reference_fault == ""
    # Counts and moments: a hundred numbers of 60 ECGs would be 60 times as many.
    numbers = [len(row["edges"]) + len(row["counts"]) for row in file.reference.to_json()["features"]]
    assert max(numbers) <= 20


def test_one_of_another_bundle_or_a_damaged_one_is_refused_when_named_and_left_out_beside_a_bundle(
    bundle, file, tmp_path
):
    loaded = load_bundle(str(bundle))
    other = write_reference(bundle, replace(file, bundle_digest="0123456789", run="another-run"))
    with pytest.raises(CheckpointError, match=r"is of another bundle: `another-run` with digest 01234567") as error:
        with_reference(loaded, str(other))
    assert "evaluate this bundle" in error.value.hint
    assert load_bundle(str(bundle)).reference is None
    assert "another bundle" in load_bundle(str(bundle)).reference_fault
    with pytest.raises(CheckpointError, match="there is no such file"):
        with_reference(loaded, str(tmp_path / "absent.json"))

    path = write_reference(bundle, file)
    facts = json.loads(path.read_bytes())
    facts["reference"]["records"] += 1
    path.write_bytes(json.dumps(facts).encode())
    with pytest.raises(CheckpointError, match="the reference of inputs cannot be used"):
        require_reference(str(path), loaded.digest)
    path.write_bytes(b"no json")
    assert find_reference(str(path), loaded.digest)[0] is None
    write_reference(bundle, file)
    with pytest.raises(CheckpointError, match="not signed"):
        require_reference(str(path), loaded.digest, "a key")
    write_reference(bundle, file, "a key")
    assert require_reference(str(path), loaded.digest, "a key").reference.records == 60
    later = storage.seal(json.dumps(storage.unseal(file.to_bytes()).facts | {"schema_version": 9}))
    with pytest.raises(CheckpointError, match="its schema version is 9"):
        ReferenceFile.from_bytes(later, "here")
    reference = file.reference
    strange = replace(reference, features=(replace(reference.features[0], name="blood_pressure"),))
    with pytest.raises(CheckpointError, match="this version does not measure blood_pressure"):
        ReferenceFile.from_bytes(replace(file, reference=strange).to_bytes(), "here")
