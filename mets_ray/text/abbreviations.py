"""Abbreviations that cardiologists type, spelt out: the frozen LM knows "atrial fibrillation" and hardly "AF".

The table holds what has one meaning about an ECG, as in the AHA/ACCF/HRS recommendations for its interpretation
(Mason et al. 2007, Circulation 115:1325). What has several is left as it is typed: ST (sinus tachycardia, or the
segment), LAD (left axis deviation, or an artery), AMI (anterior, or acute), PAT, AT, PE.
"""

import re

_SPELT_OUT = {
    "AF": "atrial fibrillation",
    "AFib": "atrial fibrillation",
    "AFL": "atrial flutter",
    "AFLT": "atrial flutter",
    "APB": "premature atrial complexes",
    "APC": "premature atrial complexes",
    "AVB": "AV block",
    "AVNRT": "AV nodal reentrant tachycardia",
    "AVRT": "AV reentrant tachycardia",
    "BBB": "bundle branch block",
    "CHB": "complete heart block",
    "CLBBB": "complete left bundle branch block",
    "CRBBB": "complete right bundle branch block",
    "ILBBB": "incomplete left bundle branch block",
    "IRBBB": "incomplete right bundle branch block",
    "IVCD": "intraventricular conduction delay",
    "LAE": "left atrial enlargement",
    "LAFB": "left anterior fascicular block",
    "LAHB": "left anterior fascicular block",
    "LBBB": "left bundle branch block",
    "LPFB": "left posterior fascicular block",
    "LPHB": "left posterior fascicular block",
    "LQTS": "prolonged QT interval",
    "LVH": "left ventricular hypertrophy",
    "MI": "myocardial infarction",
    "NSR": "normal sinus rhythm",
    "NSTEMI": "non-ST elevation myocardial infarction",
    "PAC": "premature atrial complexes",
    "PSVT": "paroxysmal supraventricular tachycardia",
    "PVC": "premature ventricular complexes",
    "RAE": "right atrial enlargement",
    "RBBB": "right bundle branch block",
    "RVH": "right ventricular hypertrophy",
    "SR": "sinus rhythm",
    "STD": "ST depression",
    "STE": "ST elevation",
    "STEMI": "ST elevation myocardial infarction",
    "SVES": "premature supraventricular complexes",
    "SVT": "supraventricular tachycardia",
    "TWI": "T wave inversion",
    "VES": "premature ventricular complexes",
    "VF": "ventricular fibrillation",
    "VFib": "ventricular fibrillation",
    "VPB": "premature ventricular complexes",
    "VPC": "premature ventricular complexes",
    "VT": "ventricular tachycardia",
    "WPW": "Wolff-Parkinson-White syndrome",
}
_MEANING = {short.casefold(): meaning for short, meaning in _SPELT_OUT.items()}
_TOKEN = re.compile(rf"(?<![\w-])({'|'.join(sorted(_SPELT_OUT, key=len, reverse=True))})s?(?![\w-])", re.IGNORECASE)


def spell_out(text: str) -> str:
    """The text with its abbreviations spelt out, in any case and with a plural s: "new LBBB" → "new left bundle …"."""
    return _TOKEN.sub(lambda found: _MEANING[found[1].casefold()], text)
