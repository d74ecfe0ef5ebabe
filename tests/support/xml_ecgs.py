"""XML files of ECGs, small and of the layout that devices write; samples are the integers that go into the file."""

import base64
import zlib

import numpy as np

SLIST = """<component><sequence><code code="{code}"/><value xsi:type="SLIST_PQ"><origin value="{origin}" unit="{unit}"/>
<scale value="{scale}" unit="{unit}"/><digits>{digits}</digits></value></sequence></component>"""


def sequence_set(leads, *, scale="2.5", unit="uV", origin="0", step='value="0.002" unit="s"', more=""):
    """leads: samples by MDC code."""
    time = f"""<component><sequence><code code="TIME_ABSOLUTE"/><value xsi:type="GLIST_TS">
        <head value="20240229101500"/><increment {step}/></value></sequence></component>"""
    rows = "".join(
        SLIST.format(code=code, origin=origin, scale=scale, unit=unit, digits=" ".join(map(str, samples)))
        for code, samples in leads.items()
    )
    return f"<component><sequenceSet>{time}{rows}{more}</sequenceSet></component>"


def aecg(*sets, before="", inside="", code="RHYTHM"):
    """before: further series ahead of the rhythm; inside: what the rhythm series holds besides its `sets`."""
    return f"""<?xml version="1.0" encoding="UTF-8"?>
<AnnotatedECG xmlns="urn:hl7-org:v3" xmlns:xsi="http://www.w3.org/2001/XMLSchema-instance" type="Observation">
<id root="1.2.3" extension="record-7"/>
<effectiveTime><low value="20240229101500.000+0100"/></effectiveTime>
<componentOf><timepointEvent><componentOf><subjectAssignment><subject><trialSubject><id extension="subject-9"/>
<subjectDemographicPerson><administrativeGenderCode code="F"/><birthTime value="19700301"/></subjectDemographicPerson>
</trialSubject></subject></subjectAssignment></componentOf></timepointEvent></componentOf>
{before}<component><series><code code="{code}"/>{inside}{"".join(sets)}</series></component></AnnotatedECG>""".encode()


def annotation_set(*annotations, author="", language=""):
    """annotations: (code, XML of the value)."""
    written = "".join(
        f'<component><annotation><code code="{code}"/>{value}</annotation></component>' for code, value in annotations
    )
    return f"<subjectOf><annotationSet>{language}{author}{written}</annotationSet></subjectOf>"


def muse(leads, *, kind="Rhythm", head="", changes=None, lead_fields=None, encoding="ISO-8859-1"):
    """leads: int16 samples by name. changes: of the waveform's fields; lead_fields: of each lead's."""
    waveform = {"WaveformType": kind, "SampleBase": 500, "SampleExponent": 0, "HighPassFilter": 16}
    waveform |= {"LowPassFilter": 150, "ACFilter": 60} | (changes or {})
    rows = ""
    for name, samples in leads.items():
        stored = np.asarray(samples, "<i2").tobytes()
        fields = {
            "LeadByteCountTotal": len(stored),
            "LeadTimeOffset": 0,
            "LeadSampleCountTotal": len(stored) // 2,
            "LeadAmplitudeUnitsPerBit": 4.88,
            "LeadAmplitudeUnits": "MICROVOLTS",
            "LeadID": name,
            "LeadSampleSize": 2,
            "LeadDataCRC32": zlib.crc32(stored),
            "WaveFormData": base64.encodebytes(stored).decode(),
        } | (lead_fields or {})
        rows += f"<LeadData>{_elements(fields)}</LeadData>"
    return f"""<?xml version="1.0" encoding="{encoding}"?>
<!DOCTYPE RestingECG SYSTEM "restecg.dtd">
<RestingECG>{head}<Waveform>{_elements(waveform)}{rows}</Waveform></RestingECG>""".encode(encoding)


def diagnosis(tag, *statements):
    """statements: (text, whether it ends its line)."""
    flag = {True: "<StmtFlag>ENDSLINE</StmtFlag>", False: ""}
    written = "".join(
        f"<DiagnosisStatement>{flag[ends]}<StmtText>{text}</StmtText></DiagnosisStatement>" for text, ends in statements
    )
    return f"<{tag}><Modality>RESTING</Modality>{written}</{tag}>"


def sierra(text, *, version="1.04", attributes=None, acquired=None, body="", encoding="utf-8"):
    """text: of `parsedwaveforms`; attributes: its; acquired: elements of `signalcharacteristics`."""
    kind = "SierraECG" if version == "1.03" else "PhilipsECG"
    shown = " ".join(f'{key}="{value}"' for key, value in (attributes or {}).items())
    return f"""<?xml version="1.0" encoding="{encoding}"?>
<restingecgdata xmlns="http://www3.medical.philips.com" status="Confirmed" lang="de" locale="DE">
<documentinfo><documentname>guid.xml</documentname><documenttype>{kind}</documenttype>
<documentversion>{version}</documentversion></documentinfo>
<dataacquisition date="2024-02-29" time="10:15:00">
<machine detaildescription="Philips Medical Products:860315:A.07">PageWriter TC</machine>
<signalcharacteristics>{_elements(acquired or {})}</signalcharacteristics></dataacquisition>{body}
<waveforms><parsedwaveforms {shown}>{text}</parsedwaveforms></waveforms></restingecgdata>""".encode(encoding)


def xli(channels):
    """Channels of integers as XLI: each byte as a 10-bit code of its own, which is LZW that never uses its table."""
    packed = b""
    for samples in channels:
        samples = [int(one) for one in samples]
        bent = [2 * samples[n - 1] - samples[n - 2] - samples[n] for n in range(2, len(samples))]
        words = np.array([*samples[:2], *(value + 64 for value in bent[1:]), 0], "<i2")  # each one place before its own
        unpacked = (words.view(np.uint16) >> 8).astype(np.uint8).tobytes()
        unpacked += (words.view(np.uint16) & 255).astype(np.uint8).tobytes()
        bits = "".join(f"{byte:010b}" for byte in unpacked) + f"{1023:010b}"
        codes = int(bits.ljust(-(-len(bits) // 8) * 8, "0"), 2).to_bytes(-(-len(bits) // 8), "big")
        packed += len(codes).to_bytes(4, "little") + b"\0\0" + np.int16(bent[0]).tobytes() + codes
    return base64.b64encode(packed).decode()


def _elements(fields):
    return "".join(f"<{name}>{value}</{name}>" for name, value in fields.items() if value is not None)
