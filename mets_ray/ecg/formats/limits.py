"""How much a file may ask for. Readers check it before they allocate memory."""

from mets_ray.errors import RecordError

MAX_BYTES = 512 * 1024**2  # of a file: a day of 12-lead Holter at 180 Hz and 16 bits has 373 MB

MAX_SIGNALS = 64

MAX_SAMPLES = 256 * 1024**2  # of all leads together: 2 GiB, five days of two leads at 300 Hz

# A server that accepts a file of some size must hold its samples, of 8 bytes each. int16 is half a sample per byte,
# deflate of it 1.3, Philips' and SCP's codes 2.
_SAMPLES_PER_BYTE = 2
_ANY_SAMPLES = 1024**2  # a small file may hold this many whatever its size: 12 leads of 500 Hz for 3 minutes


def check_bytes(size: int) -> None:
    """Raise RecordError `too_large` for a file of more than `MAX_BYTES`."""
    if size > MAX_BYTES:
        raise RecordError(
            "too_large",
            f"the file has {size} bytes, and at most {MAX_BYTES} are read",
            hint="cut the recording into parts",
        )


def check_samples(num_signals: int, num_samples: int, size: int) -> None:
    """Raise RecordError `too_large` for more samples (of each of `num_signals`) than `size` bytes can honestly hold.

    size: of the file as it came, so that a compressed file cannot ask for a thousand times its size.
    """
    if num_signals > MAX_SIGNALS:
        raise RecordError("unsupported_format", f"the file has {num_signals} signals; at most {MAX_SIGNALS} are read")
    allowed = min(MAX_SAMPLES, max(_ANY_SAMPLES, _SAMPLES_PER_BYTE * size))
    if num_signals * num_samples > allowed:
        raise RecordError(
            "too_large",
            f"the file asks for {num_signals} signals of {num_samples} samples in {size} bytes",
            hint="cut the recording into parts, or compress it less",
        )
