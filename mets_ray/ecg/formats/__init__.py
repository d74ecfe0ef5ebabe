"""One module for each file format of ECGs: `recognises` its first bytes, and `read` turns a whole file into an `Ecg`."""
