"""A folder of vendors' files as a hospital has it: copies of the few real samples, each with a patient of its own.

The samples are five ECGs; a model that is trained on their copies shows that the way works, and nothing else.
"""

from pathlib import Path

SAMPLES = {
    "philips_sierra_xml/1_04_ad4d3d80.xml": ("9999",),
    "philips_sierra_xml/1_03_129DYPRG.XML": ("1112010721168bdc",),
    "hl7_aecg/fda_subject1_0.xml": ("subject1",),
    "hl7_aecg/liryc_hl7aecg_example.xml": ("25060897140",),
}
"""Those with statements, and the patient's id in each."""

WITHOUT_STATEMENTS = ("muse_xml/braveheart_example1.xml",)


def write_copies(formats: Path, folder: Path, copies: int) -> None:
    """`copies` of each sample, the patients' ids replaced; and one file of each in `WITHOUT_STATEMENTS`."""
    folder.mkdir(parents=True, exist_ok=True)
    for number, (name, ids) in enumerate(SAMPLES.items()):
        data = (formats / name).read_bytes()
        for copy in range(copies):
            changed = data
            for one in ids:
                changed = _replaced(changed, one, f"P{number}{copy:05d}")
            assert changed != data
            (folder / f"export{copy % 3}").mkdir(exist_ok=True)
            (folder / f"export{copy % 3}" / f"{number}-{copy:05d}{Path(name).suffix}").write_bytes(changed)
    for name in WITHOUT_STATEMENTS:
        (folder / Path(name).name).write_bytes((formats / name).read_bytes())


def _replaced(data: bytes, old: str, new: str) -> bytes:
    """Some of Philips's files are UTF-16."""
    for encoding in ("utf-8", "utf-16-le"):
        data = data.replace(old.encode(encoding), new.encode(encoding))
    return data
