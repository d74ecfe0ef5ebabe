"""A new version of a bundle: the same weights, byte for byte, with one head more."""

import hashlib
import shutil
import tempfile
from pathlib import Path

from mets_ray import bundles, storage
from mets_ray.bundles import MANIFEST_NAME
from mets_ray.bundles.examples import EXAMPLES_FOLDER
from mets_ray.model.beside import carry_over
from mets_ray.model.bundle import BUNDLE_SCHEMA_VERSION, TRAINER_STATE_NAME, Bundle, signing_key
from mets_ray.model.heads import Head, write_head


def publish_with_head(parent_uri: str, parent: Bundle, head: Head, output_uri: str) -> None:
    """Publish the bundle at `parent_uri` with `head` to `output_uri`; a head of the same name is replaced.

    Its calibrations, reference of inputs and examples come along: zero-shot is the same in both. Raises DatasetError
    where nothing can be written.
    """
    with tempfile.TemporaryDirectory() as temporary:
        whole, folder = Path(temporary) / "whole", Path(temporary) / "new"
        storage.download_folder(bundles.locate(parent_uri), whole)
        folder.mkdir()
        files = {name: sha256 for name, sha256 in parent.facts.files.items() if name != TRAINER_STATE_NAME}
        for name in files:
            shutil.copyfile(whole / name, folder / name)
        file = write_head(folder, head)
        files[file] = hashlib.sha256((folder / file).read_bytes()).hexdigest()
        facts = parent.facts.model_copy(update={"files": files, "schema_version": BUNDLE_SCHEMA_VERSION})
        (folder / MANIFEST_NAME).write_bytes(storage.seal(facts.model_dump_json(), signing_key()))
        carry_over(parent, folder)
        if (whole / EXAMPLES_FOLDER).is_dir():
            shutil.copytree(whole / EXAMPLES_FOLDER, folder / EXAMPLES_FOLDER)
        storage.publish_folder(folder, output_uri, MANIFEST_NAME)
