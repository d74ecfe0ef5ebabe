"""ZIP files in memory."""

import io
import zipfile


def zipped(files, method=zipfile.ZIP_DEFLATED):
    """The bytes of a ZIP of {name: data}."""
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", method) as archive:
        for name, data in files.items():
            archive.writestr(name, data)
    return buffer.getvalue()
