"""Names of leads and of other signals, as devices, formats and data bases write them.

Only names with one meaning are in the table. `ECG`, `ECG1` and `Lead 1` may number a channel, `VR` is not augmented,
`V` and `C` may be any chest lead, and `-aVR` has the other sign: they are no standard lead, and a record that needs one
of them is refused.
"""

import re
import unicodedata

from mets_ray.ecg.ecg import FRANK_LEADS, LEADS, UNITS

# In upper case, without a prefix such as `ECG `. Upper and lower case have the same meaning in all sources: PTB-XL
# writes AVR, the PTB Diagnostic ECG Database avr.
_STANDARD = {lead.upper(): lead for lead in LEADS} | {
    # Derivation I: devices in French, Portuguese, Spanish and Turkish.
    **{f"D{number}": lead for number, lead in ((1, "I"), (2, "II"), (3, "III"))},
    **{f"D{lead}": lead for lead in ("I", "II", "III")},
    # Modified limb leads, with the electrodes on the chest: https://physionet.org/physiobank/database/html/mitdbdir/
    # intro.htm and https://physionet.org/content/edb/1.0.0/. METS scores MLII as II.
    **{f"ML{number}": lead for number, lead in ((1, "I"), (2, "II"), (3, "III"))},
    **{f"ML{lead}": lead for lead in ("I", "II", "III")},
}

# As nearly all files write them, so that most names need no more than one look-up.
_AS_USUAL = {spelling: lead for lead in LEADS for spelling in (lead, lead.upper(), lead.lower())}

# The chest electrodes C1 to C6 of IEC 60601-2-25 record V1 to V6. Only without a prefix: `ECG C1` may be a channel.
_CHEST_ELECTRODES = {f"C{number}": f"V{number}" for number in range(1, 7)}

# Leads beside the 12: Frank's, the posterior and right-sided ones (AHA), and bipolar chest leads of monitors and Holter
# recorders (ISO/IEEE 11073-10101, DICOM CID 3001). They are recognised, so that they can be left out.
_OTHER_LEADS = (
    {*FRANK_LEADS, "X", "Y", "Z", "V7", "V8", "V9", "CM5", "CC5", "CS5"}
    | {f"V{number}R" for number in range(1, 10)}
    | {f"MCL{number}" for number in range(1, 7)}
)

# `ECG II` is a label of EDF+ (https://www.edfplus.info/specs/edftexts.html), MDC_ECG_LEAD_II one of HL7 aECG and DICOM
# (ISO/IEEE 11073-10101), `Lead II` one of Philips and GE. A hyphen is no separator: EDF+ has `ECG -aVR`.
_PREFIX = re.compile(r"(?:MDC_ECG_LEAD_|(?:ECG|EKG)[\s_:.]*LEAD[\s_:.]*|(?:ECG|EKG|LEAD)[\s_:.]*)")

# MDC_ECG_LEAD_dI is not lead I itself but lead I as computed from other electrodes (EASI, Frank): DICOM CID 3001.
_DERIVED = "MDC_ECG_LEAD_D"

# Signals of bedside monitors and sleep studies: the signal types of PhysioNet's MIMIC waveforms and of EDF+.
_NOT_ECG = re.compile(
    r"(?:EEG|EOG|EMG|ERG|RESP|IMP|PLETH|PPG|SP?O2|SAO2|ABP|ART|BP|NIBP|PAP|CVP|ICP|LAP|RAP|UAP|UVP|AOBP|AO|CO2|ETCO2"
    r"|AWF|AWP|FLOW|TEMP|HR|PULSE|ACC)(?:[\s_.:\d-].*)?"
)


def standard_lead(name: str) -> str | None:
    """The lead of `LEADS` that `name` means: `i`, `AVR`, `ECG II`, `MDC_ECG_LEAD_V1`, `Lead aVF`, `D2`, `MLII`, `C1`.

    None for every other name, and where two leads could be meant. Upper and lower case, spaces around the name and
    compatibility forms of Unicode (`Ⅱ`) do not matter.
    """
    if (usual := _AS_USUAL.get(name)) is not None:
        return usual
    plain = _plain(name)
    if plain.startswith(_DERIVED):
        return None
    bare = _bare(plain)
    return _STANDARD.get(bare) or (_CHEST_ELECTRODES.get(plain) if bare == plain else None)


def is_other_lead(name: str) -> bool:
    """Whether `name` is known as an ECG lead beside the 12: Frank's (VX), V7 to V9, right-sided (V4R), MCL1, CM5."""
    return _bare(_plain(name)) in _OTHER_LEADS


def is_modified_lead(name: str) -> bool:
    """Whether `name` is a modified limb lead (MLII), whose electrodes are on the chest."""
    return _bare(_plain(name)).startswith("ML")


def is_ecg_name(name: str) -> bool:
    """Whether `name` says that the signal is an ECG: a lead, or a number behind a word for ECG (`ECG 1`)."""
    return standard_lead(name) is not None or is_other_lead(name) or _PREFIX.match(_plain(name)) is not None


def is_ecg_signal(name: str, unit: str | None) -> bool:
    """Whether a signal can be an ECG lead: it may be under any name, but not beside a name or unit that says otherwise.

    unit: as the source writes it; None for none. A lead's name is believed before its unit, so that a lead with a
    wrong unit is refused and not left out.
    """
    return is_ecg_name(name) or (_NOT_ECG.fullmatch(_plain(name)) is None and (unit is None or unit in UNITS))


def _plain(name: str) -> str:
    return unicodedata.normalize("NFKC", name).strip().upper()


def _bare(plain: str) -> str:
    """Without a prefix, and without a space or underscore before the number: `ECG V 1` and `V_1` are V1."""
    match = _PREFIX.match(plain)
    return re.sub(r"(?<=^[VD])[\s_](?=\d)", "", plain[match.end() :] if match else plain)
