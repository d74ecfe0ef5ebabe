"""The 38 CSN classes ("Chapman" in MERL and MELP): Chapman-Shaoxing and Ningbo, with their acronyms and SNOMED codes.

Zheng et al. 2022, https://physionet.org/content/ecg-arrhythmia/1.0.0/ (CC BY 4.0). Two versions of the labels:

`csn`, as published. MERL's `finetune/preprocess.ipynb` joins the acronyms of a record's codes with commas and tests
`label in text` on that string, so an acronym is also found inside a longer one: "1AVB" makes a record positive for AVB
(any block) and VB (ventricular bigeminy), "AFIB" for AF (flutter), "STE", "STDD" and "STTC" for ST (sinus tachycardia),
"LVQRSAL" for SA (sinus arrhythmia), "CCR" for CR, "2AVB1" for 2AVB. Of its 4,620 test records, 169 are labelled VB
and none has it; AF has 987 instead of 690. A record with a code outside the table was dropped, so it has no published
label. All CSN scores in the literature up to 2026 use these labels, so they are needed for comparison.

`csn_exact`, corrected. A class is positive only for its own code, and unknown codes drop nothing.

Both exclude records without any class, such as those with only sinus bradycardia (SB), which is not one of the 38.
"""

# ConditionNames_SNOMED-CT.csv. The table gives some codes to several acronyms (698252002: IDC and IVB; 164909002: LBBB,
# LBBBB and LFBBB; 164865005: MI and four walls; 195101003: WAVN and SAAWR); MERL's labels use the first, as here.
ACRONYMS = {
    "270492004": "1AVB",
    "195042002": "2AVB",
    "54016002": "2AVB1",
    "28189009": "2AVB2",
    "27885002": "3AVB",
    "251173003": "ABI",
    "39732003": "ALS",
    "284470004": "APB",
    "164917005": "AQW",
    "47665007": "ARS",
    "233917008": "AVB",
    "251199005": "CCR",
    "251198002": "CR",
    "428417006": "ERV",
    "164942001": "FQRS",
    "698252002": "IDC",
    "426995002": "JEB",
    "251164006": "JPT",
    "164909002": "LBBB",
    "164873001": "LVH",
    "251146004": "LVQRSAL",
    "251148003": "LVQRSCL",
    "251147008": "LVQRSLL",
    "164865005": "MI",
    "164947007": "PRIE",
    "164912004": "PWC",
    "111975006": "QTIE",
    "446358003": "RAH",
    "59118001": "RBBB",
    "89792004": "RVH",
    "429622005": "STDD",
    "164930006": "STE",
    "428750005": "STTC",
    "164931005": "STTU",
    "164934002": "TWC",
    "59931005": "TWO",
    "164937009": "UW",
    "11157007": "VB",
    "75532003": "VEB",
    "13640000": "VFW",
    "17338001": "VPB",
    "195060002": "VPE",
    "251180001": "VET",
    "195101003": "WAVN",
    "74390002": "WPW",
    "426177001": "SB",
    "426783006": "SR",
    "164889003": "AFIB",
    "427084000": "ST",
    "164890007": "AF",
    "427393009": "SA",
    "426761007": "SVT",
    "713422000": "AT",
    "233896004": "AVNRT",
    "233897008": "AVRT",
}

# In the order of MERL's and MELP's files.
CLASSES = tuple(
    "AQW UW SR WPW 2AVB AT VB ARS STTC SA STE VPB TWO STTU ALS APB 2AVB1 PRIE CCR "  # noqa: SIM905
    "CR AF AVB QTIE LBBB VEB SVT RBBB 1AVB STDD MI AFIB TWC PWC ERV RVH LVH ST JEB".split()
)


def published_classes(codes: tuple[str, ...]) -> tuple[str, ...]:
    """Classes of a record as published: substrings of its acronyms; none if a code is not in the table."""
    if not all(code in ACRONYMS for code in codes):
        return ()
    text = ",".join(ACRONYMS[code] for code in codes)
    return tuple(name for name in CLASSES if name in text)
