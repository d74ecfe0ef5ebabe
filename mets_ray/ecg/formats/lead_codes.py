"""Numbers of leads that several standards share: SCP-ECG (EN 1064, section 3), ISO/IEEE 11073-10101 (MDC_ECG_LEAD),
DICOM CID 3001 and MFER (ISO 22077-1, MWF_LDN)."""

LEAD_CODES = (
    {1: "I", 2: "II", 61: "III", 62: "aVR", 63: "aVL", 64: "aVF"}
    | {number + 2: f"V{number}" for number in range(1, 8)}
    | {number + 8: f"V{number}R" for number in range(2, 8)}
    | {16: "VX", 17: "VY", 18: "VZ", 19: "CC5", 20: "CM5", 65: "-aVR", 66: "V8", 67: "V9", 68: "V8R", 69: "V9R"}
)
"""X, Y and Z are Frank's leads, which are VX, VY and VZ here as in PTB."""
