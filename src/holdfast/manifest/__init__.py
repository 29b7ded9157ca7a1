"""Floor 4: the state of the database, how it changes, and the file that remembers it
(docs/format/manifest.md).

`Version` is immutable, `VersionEdit` changes it by a pure function, `VersionSet` makes each edit
durable before it is published.
"""

from holdfast.manifest.edit import VersionEdit, decode_edit, encode_edit
from holdfast.manifest.format import (
    ALIGNMENT_MIN,
    HEADER_BYTES,
    MARKER_PREFIX,
    RECORD_HEADER_BYTES,
    Header,
    later_record,
    manifest_name,
    marker_name,
    parse_marker,
    parse_numbered,
    record_header_at,
)
from holdfast.manifest.format import MAGIC as MANIFEST_MAGIC
from holdfast.manifest.log import Recovered, VersionSet
from holdfast.manifest.reader import Manifest, ManifestRecord, decode_manifest
from holdfast.manifest.salvage import SalvagedEdits, salvage_edits
from holdfast.manifest.sealed import ManifestSealing
from holdfast.manifest.version import KeyspaceVersion, Version

__all__ = [
    "ALIGNMENT_MIN",
    "HEADER_BYTES",
    "MANIFEST_MAGIC",
    "MARKER_PREFIX",
    "RECORD_HEADER_BYTES",
    "Header",
    "KeyspaceVersion",
    "Manifest",
    "ManifestRecord",
    "ManifestSealing",
    "Recovered",
    "SalvagedEdits",
    "Version",
    "VersionEdit",
    "VersionSet",
    "decode_edit",
    "decode_manifest",
    "encode_edit",
    "later_record",
    "manifest_name",
    "marker_name",
    "parse_marker",
    "parse_numbered",
    "record_header_at",
    "salvage_edits",
]
